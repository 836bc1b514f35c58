"""Image labels come back as they were written, from one store or several, and layers appear whole."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr

from wsiseg.errors import StoreError
from wsiseg.labels import IGNORE, LabelMap
from wsiseg.stores.image_labels import ImageLayerInfo
from wsiseg.stores.patch_set import PatchSet
from wsiseg.stores.patch_store import PatchStore
from wsiseg.white import WhiteRule

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.conftest import MakePatchStore

TISSUES = ImageLayerInfo(labels=LabelMap.from_names(("tumour", "stroma"), background=False), white=WhiteRule())
VALUES = np.array([[1, 0], [0, 1], [IGNORE, 0]], np.uint8)


@pytest.fixture
def store(tmp_path: Path, make_patch_store: MakePatchStore) -> PatchStore:
    return make_patch_store(tmp_path / "a.zarr", images(3))


def images(count: int) -> NDArray[np.uint8]:
    return np.zeros((count, 8, 8, 3), np.uint8)


def test_what_was_written_comes_back(store: PatchStore) -> None:
    assert store.image_layers == {}

    store.add_image_layer("tissue", TISSUES, VALUES)

    again = PatchStore.open(store.path)
    assert again.image_layers == {"tissue": TISSUES}
    assert again.layers == {}
    np.testing.assert_array_equal(again.read_image_labels("tissue", [2, 0, 0]), VALUES[[2, 0, 0]])
    assert again.read_image_labels("tissue", []).shape == (0, 2)


def test_plain_zarr_reads_them(store: PatchStore) -> None:
    store.add_image_layer("tissue", TISSUES, VALUES)

    array = zarr.open_group(store.path, mode="r")["image_labels/tissue"]

    assert isinstance(array, zarr.Array)
    np.testing.assert_array_equal(np.asarray(array), VALUES)
    assert array.fill_value == IGNORE


def test_a_layer_is_replaced_only_if_that_is_wanted(store: PatchStore) -> None:
    one = ImageLayerInfo(labels=LabelMap.from_names(("fat",)))
    store.add_image_layer("tissue", TISSUES, VALUES)

    with pytest.raises(StoreError, match="already"):
        store.add_image_layer("tissue", one, VALUES[:, :1])
    assert store.image_layers["tissue"] == TISSUES

    store.add_image_layer("tissue", one, VALUES[:, :1], overwrite=True)
    assert store.image_layers["tissue"] == one
    np.testing.assert_array_equal(store.read_image_labels("tissue", [1]), [[0]])


def test_what_does_not_fit_is_refused(store: PatchStore) -> None:
    with pytest.raises(ValueError, match="2 rows do not fit 3 patches"):
        store.add_image_layer("tissue", TISSUES, VALUES[:2])
    with pytest.raises(ValueError, match="columns need classes"):
        store.add_image_layer("tissue", TISSUES, VALUES[:, :1])
    with pytest.raises(ValueError, match="0, 1 or 255"):
        store.add_image_layer("tissue", TISSUES, VALUES + 1)
    with pytest.raises(StoreError, match="name of a layer"):
        store.add_image_layer("../x", TISSUES, VALUES)
    with pytest.raises(StoreError, match="no layer 'tissue' of image labels"):
        store.read_image_labels("tissue", [0])
    assert store.image_layers == {}


@pytest.mark.parametrize("damage", ["labels", "white", "chunk"])
def test_damage_is_told(store: PatchStore, damage: str) -> None:
    store.add_image_layer("tissue", TISSUES, VALUES)
    folder = store.path / "image_labels" / "tissue"
    if damage == "chunk":
        (folder / "c" / "0" / "0").write_bytes(b"nonsense")
        with pytest.raises(StoreError, match="damaged"):
            store.read_image_labels("tissue", [0])
        return
    metadata = json.loads((folder / "zarr.json").read_text())
    metadata["attributes"][damage] = 3
    (folder / "zarr.json").write_text(json.dumps(metadata))

    with pytest.raises(StoreError, match="no valid label map"):
        _ = store.image_layers


def test_several_stores_read_like_one(tmp_path: Path, store: PatchStore, make_patch_store: MakePatchStore) -> None:
    plain = make_patch_store(tmp_path / "b.zarr", images(2))
    store.add_image_layer("tissue", TISSUES, VALUES)
    patches = PatchSet([plain, store])

    assert patches.image_layers == {"tissue": TISSUES}
    np.testing.assert_array_equal(
        patches.read_image_labels("tissue", [4, 0, 2]), [VALUES[2], [IGNORE, IGNORE], VALUES[0]]
    )
    with pytest.raises(StoreError, match="no store has a layer 'other'"):
        patches.read_image_labels("other", [0])

    patches.add_image_layer("more", TISSUES, np.array([[0, 1]] * 4 + [[1, 1]]))
    np.testing.assert_array_equal(store.read_image_labels("more", [2]), [[1, 1]])
    np.testing.assert_array_equal(patches.read_image_labels("more", [4, 1]), [[1, 1], [0, 1]])
    with pytest.raises(ValueError, match="4 rows do not fit 5 patches"):
        patches.add_image_layer("less", TISSUES, np.zeros((4, 2), np.uint8))


def test_stores_of_other_classes_or_white_do_not_go_together(
    tmp_path: Path, store: PatchStore, make_patch_store: MakePatchStore
) -> None:
    other = make_patch_store(tmp_path / "b.zarr", images(3))
    store.add_image_layer("tissue", TISSUES, VALUES)
    other.add_image_layer("tissue", ImageLayerInfo(labels=TISSUES.labels), VALUES)

    with pytest.raises(StoreError, match="the layer 'tissue' has other classes"):
        PatchSet([store, other])


def test_colours_do_not_keep_stores_apart_and_the_first_count(
    tmp_path: Path, store: PatchStore, make_patch_store: MakePatchStore
) -> None:
    other = make_patch_store(tmp_path / "b.zarr", images(3))
    store.add_image_layer("tissue", TISSUES, VALUES)
    colours = dict.fromkeys(TISSUES.labels.names, (1, 2, 3))
    recoloured = LabelMap.from_names(TISSUES.labels.names, background=False, colours=colours)
    other.add_image_layer("tissue", replace(TISSUES, labels=recoloured), VALUES)

    assert recoloured != TISSUES.labels
    assert PatchSet([store, other]).image_layers == {"tissue": TISSUES}
    assert PatchSet([other, store]).image_layers["tissue"].labels == recoloured
