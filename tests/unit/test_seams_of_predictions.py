"""The summary of a prediction says how much its tiles show, and the log how to mend it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from tests.fake_predictors import FakePredictor
from wsiseg.inference.forward import Network
from wsiseg.inference.memory import Load
from wsiseg.inference.prediction import Target, predict_slide
from wsiseg.inference.settings import OutputSettings, PredictSettings
from wsiseg.progress import SILENT
from wsiseg.slides.array import ArraySlide
from wsiseg.stopping import Stop
from wsiseg.stores.mask_store import MaskStore
from wsiseg.tissue import TissueSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from wsiseg.inference.blending import Blend

SIDE = 64


class TileReader(FakePredictor):
    """Sees a tile as a whole: dark is what is darker than its tile, and tiles differ."""

    def forward(self, batch: Tensor) -> Tensor:
        values = batch[:, :1].float()
        middle = 128 + 4 * (values.mean(dim=(2, 3), keepdim=True) - 128)
        share = ((middle - values) / 20).sigmoid()
        return torch.cat((1 - share, share), dim=1)


def clouds() -> ArraySlide:
    """Return a slide of dark and pale places of a few pixels, two bands high."""
    noise = gaussian_filter(np.random.default_rng(0).standard_normal((620, 300)), 3)
    gray = np.clip(128 + 40 * noise / noise.std(), 0, 255).astype(np.uint8)
    return ArraySlide(np.repeat(gray[..., None], 3, axis=2))


def predicted(folder: Path, predictor: FakePredictor, *, blend: Blend = "gaussian", overlap: float = 0.0) -> Any:  # noqa: ANN401 - JSON
    settings = PredictSettings(
        blend=blend,
        overlap=overlap,
        tissue=TissueSettings(method="none"),
        outputs=OutputSettings(polygons="none"),
    )
    target = Target(
        slide_id="slide",
        folder=folder,
        settings=settings,
        plan={"settings": {"outputs": None}},
        load=Load(batch_size=2, readers=1, finders=1),
        max_ram=8 << 30,
    )
    network = Network(predictor, device=torch.device("cpu"))
    predict_slide(clouds(), network, target, progress=SILENT, stop=Stop())
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))["seams"]


def test_a_network_that_sees_whole_tiles_shows_them_and_overlap_mends_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predictor = TileReader(tile_px=SIDE, halo_px=0, mpp=None)

    apart = predicted(tmp_path / "apart", predictor)
    (told,) = [record.message for record in caplog.records if record.name == "wsiseg.inference.prediction"]
    joined = predicted(tmp_path / "joined", predictor, overlap=0.5)

    assert apart["ratio"] > 1.5
    assert apart["ratio"] == pytest.approx(apart["across"] / apart["inside"], rel=1e-3)
    assert told.startswith(f"slide: labels change {apart['ratio']:.1f} times as often across the borders of tiles")
    assert told.endswith("raise --overlap, up to 0.5")
    assert joined["ratio"] < apart["ratio"] / 2


@pytest.mark.parametrize(("blend", "overlap"), [("none", 0.0), ("gaussian", 0.5)])
def test_a_network_that_sees_single_pixels_shows_no_tiles(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, blend: Blend, overlap: float
) -> None:
    predictor = FakePredictor(tile_px=SIDE, halo_px=0, radius=0, mpp=None)

    seams = predicted(tmp_path, predictor, blend=blend, overlap=overlap)

    assert seams["ratio"] == pytest.approx(1, abs=0.15)
    assert "tiles" not in caplog.text


def test_one_tile_and_objects_have_no_seams(tmp_path: Path) -> None:
    one = predicted(tmp_path / "one", FakePredictor(tile_px=640, halo_px=0, mpp=None))
    objects = predicted(tmp_path / "objects", FakePredictor(task="instance", mpp=None))

    assert (one["ratio"], one["across"]) == (None, None)
    assert one["inside"] > 0
    assert objects is None


@pytest.mark.parametrize("writes", [1, 3])
def test_a_run_that_was_killed_tells_the_same_seams(tmp_path: Path, writes: int) -> None:
    predictor = TileReader(tile_px=SIDE, halo_px=4, mpp=None)
    whole = predicted(tmp_path / "whole", predictor)
    write: Callable[..., None] = MaskStore.write
    left = writes

    def deadly(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - handed on
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        write(*args, **kwargs)

    with patch.object(MaskStore, "write", deadly), pytest.raises(KeyboardInterrupt):
        predicted(tmp_path / "killed", predictor)
    assert not (tmp_path / "killed" / "summary.json").exists()

    assert predicted(tmp_path / "killed", predictor) == whole
