"""What is trained on is a layer of labels, and the only one need not be named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from wsiseg.errors import ConfigError, DataError
from wsiseg.labels import LabelMap
from wsiseg.stores.patch_set import PatchSet
from wsiseg.stores.patch_store import PatchStore
from wsiseg.stores.patches import confidence_layer
from wsiseg.tasks.train_data import common_layer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePatchStore


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
