"""Patches that get pseudo-labels show nothing that is annotated, and each kind has its share of the draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from wsiseg.errors import DataError
from wsiseg.stores.patch_meta import PatchGrid
from wsiseg.stores.patch_set import PatchSet
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks.train_data import training_data
from wsiseg.tasks.train_job import TrainConfig
from wsiseg.tasks.train_pool import kinds_of, weighted

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePatchStore
    from wsiseg.tasks.train_pool import Kinds

SIDE = 8
CONFIG = TrainConfig(val_fraction=0)


@pytest.fixture
def folder(tmp_path: Path, make_patch_store: MakePatchStore) -> Path:
    """Return stores of two annotated and of three synthetic patches, and of some of the same images without labels."""
    images, labels = np.zeros((5, SIDE, SIDE, 3), np.uint8), np.ones((5, SIDE, SIDE), np.int32)
    make_patch_store(tmp_path / "real.zarr", images[:2], labels[:2], kind="instances", parents=["a", "b"])
    make_patch_store(
        tmp_path / "made.zarr", images[:3], labels[:3], kind="instances", parents=["a"] * 3, origin="synthetic"
    )
    make_patch_store(tmp_path / "free.zarr", images, parents=["a", "a", "a", "c", "c"])
    return tmp_path


def opened(folder: Path, *places: tuple[int, int]) -> list[PatchSet]:
    """Return the stores, the patches without labels at some places."""
    stores = [PatchStore.open(folder / name) for name in ("real.zarr", "made.zarr", "free.zarr")]
    for at, place in enumerate(places):
        stores[2].windows[at] = place
    return [PatchSet([store]) for store in stores]


def kinds(stores: list[PatchSet], config: TrainConfig = CONFIG) -> Kinds:
    return kinds_of(stores, training_data(stores, None, config, takes_unlabelled=True))


def test_no_annotated_pixel_is_in_the_pool(folder: Path) -> None:
    found = kinds(opened(folder, (0, 0), (SIDE - 1, 1 - SIDE), (SIDE, 0)))

    ((_, source),) = found.pool
    # The third only touches the annotated patch, and the others are of another image.
    assert source.indices.tolist() == [2, 3, 4]
    assert [one.indices.tolist() for one in found.real] == [[0, 1]]
    assert [one.indices.tolist() for one in found.synthetic] == [[0, 1, 2]]


@pytest.mark.parametrize("downsample", [1.0, 0.3, 1.9936, 2.5, 7.3])
def test_patches_that_touch_do_not_overlap_at_any_resolution(folder: Path, downsample: float) -> None:
    steps = range(3)
    found = []
    for offset in (SIDE, SIDE - 1):
        stores = opened(folder, *((offset + SIDE * step, 0) for step in steps))
        for store in (stores[0].stores[0], stores[2].stores[0]):
            grid = PatchGrid(patch_px=SIDE, stride_px=SIDE, downsample=downsample, canvas=(400, 400))
            store.meta = store.meta.model_copy(update={"grid": grid})
            store.positions = np.rint(store.windows * downsample).astype(np.int64)
        ((_, source),) = kinds([PatchSet(one.stores) for one in stores]).pool
        found.append(source.indices.tolist())

    assert found == [[0, 1, 2, 3, 4], [1, 2, 3, 4]]


def test_labels_that_are_held_back_leave_their_patches_in_the_pool(folder: Path) -> None:
    (folder / "names.txt").write_text("b\n")

    found = kinds(opened(folder), TrainConfig(val_fraction=0, labelled=str(folder / "names.txt")))

    assert [(len(source.indices), source.layer) for _, source in found.pool] == [(1, ""), (5, "")]
    assert found.synthetic == []


def test_pseudo_labels_make_no_labelled_store(folder: Path) -> None:
    free = PatchStore.open(folder / "free.zarr")
    free.add_layer(
        "run-1-student-1", "instances", PatchStore.open(folder / "real.zarr").layers["truth"].labels, made_by="run-1"
    )

    assert str(kinds(opened(folder))) == "2 annotated and 3 synthetic patches, 2 without labels"


def test_each_kind_has_its_share(folder: Path) -> None:
    found = kinds(opened(folder))

    weights = [source.weight for source in weighted((found.real, 0.25), ([*found.synthetic, *found.synthetic], 0.75))]

    assert weights == [0.25, 0.375, 0.375]


def test_something_must_be_without_labels(folder: Path) -> None:
    with pytest.raises(DataError, match="no patch without labels"):
        kinds(opened(folder)[:2])


def test_something_must_be_annotated(folder: Path) -> None:
    with pytest.raises(DataError, match="no annotated patch is left"):
        kinds(opened(folder)[1:])
