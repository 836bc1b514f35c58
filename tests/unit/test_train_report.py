"""The page of a training shows patches as they are, and no number where there is none."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from wsiseg.labels import LabelMap
from wsiseg.methods.base import PredictorSpec
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.stores.image_labels import ImageLayerInfo
from wsiseg.stores.patch_set import PatchSet
from wsiseg.tasks.patch_data import patch_data
from wsiseg.tasks.patch_masks import BALANCE, COVERAGE
from wsiseg.tasks.train_job import PAGE
from wsiseg.tasks.train_report import write_report
from wsiseg.training.log import CURVES, TRAINING, VALIDATION, Table, draw_curves
from wsiseg.white import WhiteRule

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePatchStore

NAMES = ("tumour", "stroma")


class Undecided:
    """Sees all classes alike everywhere."""

    spec = PredictorSpec(
        task="semantic", labels=LabelMap.from_names(NAMES), mpp=0.5, tile_px=8, halo_px=0, channels=len(NAMES)
    )

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.full((len(batch), len(NAMES), 8, 8), 1 / len(NAMES))


def draw(folder: Path, **told: float) -> None:
    """Write the logs and curves of a stage."""
    Table(folder / TRAINING, step=0).append({"step": 1, "loss": 0.5})
    Table(folder / VALIDATION, step=0).append({"step": 1, "miou": 0.5, **told})
    draw_curves(folder, metric="miou", labels=LabelMap.from_names(NAMES))


@pytest.mark.parametrize("told", [{"miou": 0.5}, {"miou": 0.5, "label_miou": 0.75, "attention_tumour": 0.95}])
def test_curves_are_shown_and_explained(
    told: dict[str, float], tmp_path: Path, make_patch_store: MakePatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_patch_store(tmp_path / "s.zarr", np.full((1, 8, 8, 3), 90, np.uint8))
    store.add_image_layer("known", ImageLayerInfo(labels=LabelMap.from_names(NAMES)), np.array([[1, 0]], np.uint8))
    data = patch_data(PatchSet([store]), name="run", layer=None, training_data={})
    folder = tmp_path / "classify"
    draw(folder, **told)
    monkeypatch.setattr("wsiseg.tasks.train_report.load_predictor", lambda *_, **__: Undecided())

    write_report(
        tmp_path, data, {"classify": folder}, {}, method="craanet", device=torch.device("cpu"), progress=SILENT,
        stop=Stop(),
    )  # fmt: skip

    page = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert base64.b64encode((folder / CURVES).read_bytes()).decode() in page
    assert ("label_miou is the mIoU of the pseudo-labels" in page) == ("label_miou" in told)


def test_padding_is_not_shown_and_shares_of_nothing_are_dashes(
    tmp_path: Path, make_patch_store: MakePatchStore
) -> None:
    images, masks = np.full((1, 8, 8, 3), 90, np.uint8), np.zeros((1, 8, 8), np.uint8)
    store = make_patch_store(
        tmp_path / "s.zarr", images, masks, layer="made", names=NAMES, extents=np.array([[4, 6]], np.int32)
    )
    store.add_image_layer("known", ImageLayerInfo(labels=LabelMap.from_names(NAMES)), np.array([[1, 0]], np.uint8))
    data = patch_data(PatchSet([store]), name="run", layer=None, training_data={})
    balance = {"made": {COVERAGE: 0.0, **dict.fromkeys(NAMES, float("nan"))}}
    (tmp_path / BALANCE).write_text(json.dumps(balance), encoding="utf-8")

    write_report(
        tmp_path, data, {}, {"made": "made"}, method="mlps", device=torch.device("cpu"), progress=SILENT, stop=Stop()
    )  # fmt: skip

    page = (tmp_path / PAGE).read_text(encoding="utf-8")
    pictures = re.findall(r'base64,([^"]+)" alt="(?:patch|made)"', page)
    assert [Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in pictures] == [(4, 6)] * 2
    assert "nan" not in re.sub(r"base64,[^\"]+", "", page)
    assert "<td>–</td><td>–</td>" in page


@pytest.mark.parametrize("white", [None, WhiteRule(gray_above=200, min_area_px=4)])
def test_white_is_covered_by_no_class_of_a_model_that_knows_of_it(
    white: WhiteRule | None, tmp_path: Path, make_patch_store: MakePatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.full((1, 8, 8, 3), 90, np.uint8)
    images[:, :4] = 250
    store = make_patch_store(tmp_path / "s.zarr", images)
    store.add_image_layer("known", ImageLayerInfo(labels=LabelMap.from_names(NAMES)), np.array([[1, 0]], np.uint8))
    data = patch_data(PatchSet([store]), name="run", layer=None, training_data={})
    model = Undecided()
    model.spec = replace(model.spec, white=white)
    monkeypatch.setattr("wsiseg.tasks.train_report.load_predictor", lambda *_, **__: model)

    stages = {stage: tmp_path / stage for stage in ("classify", "segment")}
    for folder in stages.values():
        draw(folder)
    write_report(
        tmp_path, data, stages, {}, method="mlps", device=torch.device("cpu"), progress=SILENT, stop=Stop()
    )  # fmt: skip

    page = (tmp_path / PAGE).read_text(encoding="utf-8")
    (picture,) = re.findall(r'base64,([^"]+)" alt="segment: prediction"', page)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
    assert (shown[:4, :, :3] == 250).all() == (white is not None)
    assert not (shown[4:, :, :3] == 90).all()
