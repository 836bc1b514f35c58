"""The stores of a training are labelled together, by what the training has kept of each of their patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.craanet_makers import CLASSES, SIDE, colourful, options
from wsiseg.config import save
from wsiseg.labels import LabelMap
from wsiseg.methods.craanet_classify import AccumulatingNet, ClassifyStage
from wsiseg.stores.image_labels import ImageLayerInfo
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks.patch_data import patch_data
from wsiseg.tasks.pseudo_label import PseudoLabelJob, PseudoLabelReport, pseudo_label
from wsiseg.tasks.train_data import fingerprints
from wsiseg.tasks.train_job import CONFIG, TrainConfig
from wsiseg.tiling.reading import open_patches

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePatchStore

COUNT = 2


@pytest.fixture
def stores(tmp_path: Path, make_patch_store: MakePatchStore) -> tuple[Path, Path]:
    """Return two stores whose patches show red and green, not in the order of their names."""
    info = ImageLayerInfo(labels=LabelMap.from_names(CLASSES))
    for seed, name in enumerate(("b", "a")):
        images = colourful(COUNT, seed=seed).permute(0, 2, 3, 1).numpy()
        made = make_patch_store(tmp_path / f"{name}.zarr", images)
        made.add_image_layer("shown", info, np.array([[1, 1, 0]] * COUNT, np.uint8))
    return tmp_path / "b.zarr", tmp_path / "a.zarr"


@pytest.fixture
def run(tmp_path: Path, stores: tuple[Path, Path]) -> Path:
    """Return a run that has seen red on the left of the patches of the first store, and on the right of the others."""
    folder, chosen = tmp_path / "run", options()
    prints = fingerprints(stores, [open_patches([store]) for store in stores])
    data = patch_data(open_patches(stores), name="run", layer=None, training_data=prints)
    torch.manual_seed(0)
    learner = ClassifyStage(options=chosen, settings=chosen.numbers.classify).build(data.facts, {}, ())
    assert isinstance(learner.module, AccumulatingNet)
    accumulator = learner.module.accumulator
    accumulator.counts[:, :2] = 1
    accumulator.maps[:COUNT, 0, :, :4] = accumulator.maps[COUNT:, 0, :, 4:] = 1
    accumulator.maps[:, 1] = 1 - accumulator.maps[:, 0]
    learner.predictor(learner.module).save(folder / "classify" / "last", metrics={})
    save(TrainConfig(method="craanet", options=chosen.model_dump(mode="json")), folder / CONFIG)
    return folder


def test_stores_that_were_trained_on_together_are_labelled_together(
    stores: tuple[Path, Path], run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = pseudo_label(PseudoLabelJob(stores=stores, checkpoint=run, device="cpu"))

    assert "other patches" not in caplog.text
    assert str(made).startswith(f"4 patches labelled in {stores[0]}, {stores[1]}, 4 of them new")
    assert isinstance(made, PseudoLabelReport)
    (complete,) = (name for layer, name in made.names.items() if layer.startswith("complete"))
    for store, red in zip(stores, (slice(SIDE // 2), slice(SIDE // 2, None)), strict=True):
        labels = PatchStore.open(store).read_labels(complete, range(COUNT))
        expected = np.ones((COUNT, SIDE, SIDE))
        expected[:, :, red] = 0
        np.testing.assert_array_equal(labels, expected)


def test_stores_in_another_order_are_told(
    stores: tuple[Path, Path], run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pseudo_label(PseudoLabelJob(stores=stores[::-1], checkpoint=run, device="cpu"))

    assert "name the same stores in the same order" in caplog.text
