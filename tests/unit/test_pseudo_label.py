"""Stores are labelled by what their training has kept of each patch, or by a model of objects and its run alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.craanet_makers import CLASSES, SIDE, colourful, options
from wsiseg.checkpoint import locate
from wsiseg.config import save
from wsiseg.errors import ConfigError, DataError
from wsiseg.labels import LabelMap
from wsiseg.methods.craanet_classify import AccumulatingNet, ClassifyStage
from wsiseg.stores.image_labels import ImageLayerInfo
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks.patch_data import patch_data
from wsiseg.tasks.pseudo_label import PseudoLabelJob, PseudoLabelReport, pseudo_label
from wsiseg.tasks.pseudo_label_objects import ObjectLabelReport
from wsiseg.tasks.train_data import fingerprints
from wsiseg.tasks.train_job import CONFIG, TrainConfig
from wsiseg.tiling.reading import open_patches

if TYPE_CHECKING:
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


def test_a_model_of_objects_is_believed_as_its_own_run_says_and_no_stranger(
    tmp_path: Path, make_patch_store: MakePatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.full((1, SIDE, SIDE, 3), 220, np.uint8)
    store = make_patch_store(tmp_path / "free.zarr", images, mpp=0.499).path
    model, settings = tmp_path / "models" / "cells", tmp_path / CONFIG
    shutil.copytree(locate("nuclei-he"), model)
    monkeypatch.chdir(tmp_path)

    def layer(checkpoint: str) -> str:
        made = pseudo_label(PseudoLabelJob(stores=(store,), checkpoint=Path(checkpoint), device="cpu"))
        assert isinstance(made, ObjectLabelReport)
        return made.layer

    usual = layer("nuclei-he")
    for strange in (b'{"model_type": "vit"}', b"not json", b"[1]", b"\xff"):
        settings.write_bytes(strange)
        assert layer("nuclei-he") == layer(str(model)) == usual
    own = {"method": "label-efficient", "options": {"pseudo": {"min_score": 0.9, "later_min_score": 0.9}}}
    settings.write_text(json.dumps(own))

    # That a run lies around says nothing of a shipped model; of one in its folders it does.
    assert layer("nuclei-he") == usual
    assert layer(str(model)) != usual


def test_what_is_no_run_is_told_whatever_lies_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / CONFIG).write_text("not json")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)

    for name, told in (("nuclei", "this is no run of wsiseg train"), ("folder", "not valid JSON")):
        with pytest.raises(DataError, match=told):
            pseudo_label(PseudoLabelJob(stores=(), checkpoint=Path(name)))


def test_a_lowest_score_does_not_hide_that_there_is_no_model(tmp_path: Path, run: Path) -> None:
    def asked(checkpoint: Path) -> PseudoLabelJob:
        return PseudoLabelJob(stores=(), checkpoint=checkpoint, min_score=0.3)

    with pytest.raises(DataError, match="nosuch: this is no run of wsiseg train"):
        pseudo_label(asked(tmp_path / "nosuch"))
    with pytest.raises(ConfigError, match="a classifier knows nothing of --min-score"):
        pseudo_label(asked(run))
    # A run that finds objects, but has no model yet, is no classifier either.
    save(TrainConfig(method="supervised"), run / CONFIG)
    with pytest.raises(ConfigError, match="the method supervised makes no pseudo-labels"):
        pseudo_label(asked(run))
