"""Held-out patches are shown with what their masks hold, and the labels that they get are judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from wsiseg.labels import IGNORE, LabelMap
from wsiseg.methods.base import Batch, Clock, PredictorSpec
from wsiseg.training.probe import LABEL_MIOU, Probe
from wsiseg.training.sources import Source
from wsiseg.white import WhiteRule

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.conftest import MakePatchStore

SIDE, COUNT = 8, 12
NAMES = ("fat", "stroma", "gland")
CLOCK = Clock(step=3, steps=8)
CPU = torch.device("cpu")


class Guessing:
    """A learner that gives all pixels of a patch the first class that it shows."""

    def __init__(self) -> None:
        self.shown: list[Batch] = []
        self.clocks: list[Clock] = []

    def probe(self, batch: Batch, clock: Clock) -> NDArray[np.uint8]:
        self.shown.append(batch)
        self.clocks.append(clock)
        first = batch.targets["present"].argmax(dim=1).to(torch.uint8)
        return first[:, None, None].repeat(1, SIDE, SIDE).numpy()

    def mean_attention(self) -> dict[str, float]:
        return {"fat": 0.25, "stroma": float("nan")}


@pytest.fixture
def source(tmp_path: Path, make_patch_store: MakePatchStore) -> Source:
    """Return patches of which the odd ones are held out: above fat, below gland, and nothing in patch 5."""
    masks = np.zeros((COUNT, SIDE, SIDE), dtype=np.uint8)
    masks[:, SIDE // 2 :] = 2
    masks[5] = IGNORE
    images = np.random.default_rng(0).integers(0, 180, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)
    # White at the top, which nobody has looked for in the mask.
    images[:, :2] = 255
    store = make_patch_store(tmp_path / "s.zarr", images, masks, names=NAMES)
    return Source(patches=store, layer="truth", indices=np.arange(1, COUNT, 2))


def spec(white: WhiteRule | None = None) -> PredictorSpec:
    labels = LabelMap.from_names(NAMES, background=False)
    return PredictorSpec(
        task="semantic", labels=labels, mpp=0.5, tile_px=SIDE, halo_px=0, channels=len(NAMES), white=white
    )


def test_each_patch_is_shown_once_as_it_is_stored_with_what_its_mask_holds(source: Source) -> None:
    learner = Guessing()
    Probe(learner, source, spec()).measure(CLOCK, CPU)

    indices = torch.cat([batch.targets["index"] for batch in learner.shown])
    # The mask of patch 5 holds nothing.
    assert indices.tolist() == [1, 3, 7, 9, 11]
    images = torch.cat([batch.images for batch in learner.shown]).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(images, source.patches.read_images(indices.tolist()))
    assert torch.cat([batch.targets["present"] for batch in learner.shown]).tolist() == [[1, 0, 1]] * 5
    assert not torch.cat([batch.targets["symmetry"] for batch in learner.shown]).any()
    assert set(learner.clocks) == {CLOCK}


def test_labels_are_judged_where_the_truth_is_known(source: Source) -> None:
    # Half of what is called fat is fat, all of it was found, and gland was not.
    assert Probe(Guessing(), source, spec()).measure(CLOCK, CPU)[LABEL_MIOU] == pytest.approx((1 / 2 + 0) / 2)


def test_how_far_attention_has_spread_stands_beside_it(source: Source) -> None:
    told = Probe(Guessing(), source, spec()).measure(CLOCK, CPU)

    assert list(told) == [LABEL_MIOU, "attention_fat", "attention_stroma"]
    assert told["attention_fat"] == 0.25


def test_what_counts_as_white_has_no_label(source: Source) -> None:
    white = WhiteRule(gray_above=220, min_area_px=1)

    # Half of the fat, which is a quarter of all, has lost its label.
    told = Probe(Guessing(), source, spec(white)).measure(CLOCK, CPU)
    assert told[LABEL_MIOU] == pytest.approx((1 / 4) / (1 / 4 + 1 / 4 + 1 / 2) / 2)


def test_without_a_mask_that_holds_something_there_is_nothing_to_be_proud_of(source: Source) -> None:
    empty = Source(patches=source.patches, layer="truth", indices=np.array([5]))

    assert Probe(Guessing(), empty, spec()).measure(CLOCK, CPU)[LABEL_MIOU] == 0
