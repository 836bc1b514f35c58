"""What is trained on is a layer of labels, the only one need not be named, and labels that say nothing are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from wsiseg.errors import ConfigError, DataError
from wsiseg.labels import IGNORE, LabelMap
from wsiseg.stores.patch_set import PatchSet
from wsiseg.stores.patch_store import PatchStore
from wsiseg.stores.patches import confidence_layer
from wsiseg.tasks.train_data import common_layer, judging_data, training_data
from wsiseg.tasks.train_job import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePatchStore
    from wsiseg.stores.patches import LayerKind


def test_confidence_is_no_layer_to_train_on(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    masks = np.zeros((2, 8, 8), np.uint8)
    made = make_patch_store(tmp_path / "s.zarr", np.zeros((2, 8, 8, 3), np.uint8), masks)
    made.add_layer(confidence_layer("truth"), "confidence", made.layers["truth"].labels)
    stores = [PatchSet([made])]

    assert common_layer(stores, None) == ("truth", made.layers["truth"])
    with pytest.raises(DataError, match=r"no layer 'truth-confidence'.*There are: truth$"):
        common_layer(stores, confidence_layer("truth"))


def test_pseudo_labels_are_trained_on_only_if_they_are_asked_for(
    tmp_path: Path, make_patch_store: MakePatchStore
) -> None:
    masks = np.zeros((2, 8, 8), np.uint8)
    made = make_patch_store(tmp_path / "s.zarr", np.zeros((2, 8, 8, 3), np.uint8), masks)
    labels = made.layers["truth"].labels
    made.add_layer("run-1234-b5", "classes", labels, made_by="run-1234")

    stores = [PatchSet([PatchStore.open(tmp_path / "s.zarr")])]
    assert common_layer(stores, None)[0] == "truth"
    assert common_layer(stores, "run-1234-b5")[1].made_by == "run-1234"

    made.add_layer("more", "classes", labels)
    stores = [PatchSet([PatchStore.open(tmp_path / "s.zarr")])]
    with pytest.raises(ConfigError, match=r"--layer with one of more, truth$"):
        common_layer(stores, None)


def test_pseudo_labels_alone_must_be_asked_for(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    made = make_patch_store(tmp_path / "s.zarr", np.zeros((2, 8, 8, 3), np.uint8))
    made.add_layer("run-1234-b5", "classes", LabelMap.from_names(("fat",)), made_by="run-1234")

    with pytest.raises(
        DataError, match=r"pseudo-labels only\. Give them labels, or pass --layer with one of run-1234-b5"
    ):
        common_layer([PatchSet([made])], None)


def test_stores_whose_classes_have_other_colours_go_together(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    stores = [make_patch_store(tmp_path / name, np.zeros((2, 8, 8, 3), np.uint8)) for name in ("a.zarr", "b.zarr")]
    plain, drawn = (LabelMap.from_names(("fat",), colours=colours) for colours in (None, {"fat": (1, 2, 3)}))
    for store, labels in zip(stores, (plain, drawn), strict=True):
        store.add_layer("mine", "classes", labels)

    name, info = common_layer([PatchSet([store]) for store in stores], None)

    assert (name, info.labels) == ("mine", plain)


@pytest.mark.parametrize("kind", ["instances", "classes"])
def test_patches_that_are_to_be_ignored_neither_judge_nor_teach(
    tmp_path: Path, make_patch_store: MakePatchStore, kind: LayerKind
) -> None:
    labels = np.ones((6, 8, 8), np.int32)
    labels[[1, 4]] = IGNORE if kind == "classes" else -1
    # Of the last one a pixel is known.
    labels[5] = labels[1]
    labels[5, 0, 0] = 1
    make_patch_store(tmp_path / "a.zarr", np.zeros((6, 8, 8, 3), np.uint8), labels, kind=kind, parents=list("aaabbb"))
    store = PatchSet([PatchStore.open(tmp_path / "a.zarr")])

    for seed in range(8):
        config = TrainConfig(val_fraction=0.5, split_seed=seed)
        data = training_data([store], None, config, takes_unlabelled=True)

        assert sorted([data.labelled[0].indices.tolist(), data.held_out[0].indices.tolist()]) == [[0, 2], [3, 5]]
        assert sorted(index for source in data.set_aside for index in source.indices) == [1, 4]
        assert data.unlabelled == []


def test_it_is_told_where_only_patches_to_be_ignored_are_left(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    labels = np.ones((2, 8, 8), np.int32)
    labels[1] = -1
    make_patch_store(
        tmp_path / "a.zarr", np.zeros((2, 8, 8, 3), np.uint8), labels, kind="instances", parents=["a", "b"]
    )
    store = PatchSet([PatchStore.open(tmp_path / "a.zarr")])

    told = set()
    for seed in range(8):
        with pytest.raises(DataError, match="are to be ignored whole") as error:
            training_data([store], None, TrainConfig(val_fraction=0.5, split_seed=seed), takes_unlabelled=False)
        told.add(str(error.value).partition(" are to be")[0])

    assert told == {"all annotated patches to train on", "all patches that are held out"}
    data = training_data([store], None, TrainConfig(val_fraction=0), takes_unlabelled=False)
    assert (data.labelled[0].indices.tolist(), data.held_out) == ([0], [])


@pytest.mark.parametrize("table", ["patch\na\nb\n", "a\nb\n"])
def test_patches_that_are_named_may_turn_out_to_be_ignored(
    tmp_path: Path, make_patch_store: MakePatchStore, table: str
) -> None:
    labels = np.ones((3, 8, 8), np.int32)
    labels[1:] = -1
    make_patch_store(
        tmp_path / "a.zarr", np.zeros((3, 8, 8, 3), np.uint8), labels, kind="instances", parents=list("abc")
    )
    store = PatchSet([PatchStore.open(tmp_path / "a.zarr")])
    both, ignored = tmp_path / "both.csv", tmp_path / "ignored.csv"
    both.write_text(table)
    ignored.write_text(table.replace("a\nb", "b"))

    data = training_data([store], None, TrainConfig(val_fraction=0, labelled=str(both)), takes_unlabelled=True)
    assert data.labelled[0].indices.tolist() == [0]
    # Whether one that is not named is to be ignored is not looked at.
    assert data.unlabelled[0].indices.tolist() == [2]
    with pytest.raises(DataError, match="all annotated patches to train on are to be ignored whole"):
        training_data([store], None, TrainConfig(val_fraction=0, labelled=str(ignored)), takes_unlabelled=False)


def test_patches_that_are_to_be_ignored_are_not_tested_by(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    labels = np.ones((3, 8, 8), np.int32)
    labels[1] = -1
    make_patch_store(
        tmp_path / "a.zarr",
        np.zeros((3, 8, 8, 3), np.uint8),
        labels,
        kind="instances",
        parents=list("abc"),
        splits=["test", "test", "train"],
    )

    (source,) = judging_data([PatchSet([PatchStore.open(tmp_path / "a.zarr")])], "truth", None)

    assert source.indices.tolist() == [0]
