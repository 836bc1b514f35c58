"""Patches that get pseudo-labels show nothing that is annotated, and each kind has its share of the draws."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from wsiseg.errors import DataError
from wsiseg.labels import LabelMap
from wsiseg.stores.patch_meta import PatchGrid
from wsiseg.stores.patch_set import PatchSet
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks.train_data import training_data
from wsiseg.tasks.train_job import TrainConfig
from wsiseg.tasks.train_pool import drawn, for_student, for_teacher, kinds_of

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


def test_a_box_counts_once_and_takes_only_what_shows_it_from_the_pool(
    tmp_path: Path, make_patch_store: MakePatchStore
) -> None:
    # Seven by seven patches that overlap by half, and one of them drawn over: eight neighbours know a part of it.
    corners = [(x, y) for y in range(0, 7 * SIDE // 2, SIDE // 2) for x in range(0, 7 * SIDE // 2, SIDE // 2)]
    drawn = np.full((4 * SIDE, 4 * SIDE), -1, np.int32)
    left, top = corners[24]
    drawn[top : top + SIDE, left : left + SIDE] = 0
    labels = [drawn[y : y + SIDE, x : x + SIDE] for x, y in corners]
    images = np.zeros((49, SIDE, SIDE, 3), np.uint8)
    made = make_patch_store(tmp_path / "s.zarr", images, parents=["s"] * 49, positions=corners)
    is_known = np.array([(own >= 0).any() for own in labels])
    made.add_layer("truth", "instances", LabelMap.from_names(("background", "nucleus")))
    made.write_labels("truth", np.flatnonzero(is_known), [own for own in labels if (own >= 0).any()])
    assert is_known.sum() == 9

    found = kinds([PatchSet([PatchStore.open(tmp_path / "s.zarr")])])

    assert [source.indices.tolist() for source in found.real] == [[24]]
    ((_, source),) = found.pool
    assert source.indices.tolist() == np.flatnonzero(~is_known).tolist()


def test_what_no_other_patch_knows_is_learnt_from(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    labels = np.zeros((3, SIDE, SIDE), np.int32)
    # Of the first half is known, as the second knows, too; of the third a corner that lies nowhere else.
    labels[0, :, : SIDE // 2] = -1
    labels[2, :4] = labels[2, :, :4] = -1
    make_patch_store(
        tmp_path / "real.zarr", np.zeros((3, SIDE, SIDE, 3), np.uint8), labels, kind="instances", parents=["s"] * 3,
        positions=[(0, 0), (SIDE // 2, 0), (4, 7)],
    )  # fmt: skip
    make_patch_store(
        tmp_path / "free.zarr", np.zeros((2, SIDE, SIDE, 3), np.uint8), parents=["s"] * 2, positions=[(0, 8), (7, 8)]
    )

    found = kinds([PatchSet([PatchStore.open(tmp_path / name)]) for name in ("real.zarr", "free.zarr")])

    assert [source.indices.tolist() for source in found.real] == [[1, 2]]
    # The first patch without labels lies beside the corner, the other on it.
    assert [source.indices.tolist() for _, source in found.pool] == [[0]]


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
    twice = replace(found, synthetic=[*found.synthetic, *found.synthetic])

    of_teacher = [source.weight for source in for_teacher(twice, real=0.25)]
    given, count = for_student(found, (0.2, 0.5, 0.3), batch_size=10)

    assert of_teacher == [0.25, 0.375, 0.375]
    assert ([source.weight for source in given], count) == ([0.2, 0.5], 3)
    assert [source.patches.splits[0] == "synthetic" for source in given] == [False, True]


@pytest.mark.parametrize(("batch_size", "count"), [(2, 1), (5, 3), (8, 5), (10, 6)])
def test_without_synthetic_patches_the_others_share_a_batch(folder: Path, batch_size: int, count: int) -> None:
    found = replace(kinds(opened(folder)), synthetic=[])

    given, pseudo = for_student(found, (0.2, 0.5, 0.3), batch_size=batch_size)

    assert ([source.weight for source in given], pseudo) == ([0.2], count)
    assert [source.weight for source in for_teacher(found, real=0.25)] == [0.25]


def test_a_smaller_pool_is_a_part_of_a_larger_one(folder: Path) -> None:
    pool = kinds(opened(folder, (SIDE, 0))).pool
    everything = [(source.layer, index) for _, source in pool for index in source.indices]

    def chosen(count: int, seed: int) -> set[int]:
        return {index for _, source in drawn(pool, count, seed=seed) for index in source.indices.tolist()}

    found = [chosen(count, 3) for count in range(1, 6)]

    assert len(everything) == 3
    assert [len(one) for one in found] == [1, 2, 3, 3, 3]
    assert found[0] < found[1] < found[2]
    assert set.union(*(chosen(1, seed) for seed in range(9))) == found[2]


def test_something_must_be_without_labels(folder: Path) -> None:
    with pytest.raises(DataError, match="no patch without labels"):
        kinds(opened(folder)[:2])


def test_something_must_be_annotated(folder: Path) -> None:
    with pytest.raises(DataError, match="no annotated patch is left"):
        kinds(opened(folder)[1:])


def test_what_is_to_be_ignored_is_neither_learnt_from_nor_in_the_pool(folder: Path) -> None:
    stores = opened(folder, (0, 0), (SIDE // 2, 0), (SIDE, 0))
    PatchStore.open(folder / "real.zarr").write_labels("truth", [0], [np.full((SIDE, SIDE), -1)])

    found = kinds(stores)

    assert [one.indices.tolist() for one in found.real] == [[1]]
    ((_, source),) = found.pool
    assert source.indices.tolist() == [2, 3, 4]

    PatchStore.open(folder / "real.zarr").write_labels("truth", [1], [np.full((SIDE, SIDE), -1)])
    with pytest.raises(DataError, match="all annotated patches to train on are to be ignored whole"):
        kinds(stores)
