"""Synthetic patches are learnt from and never judge, whatever they are marked as."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from wsiseg.errors import DataError
from wsiseg.stores.patch_set import PatchSet
from wsiseg.tasks.train_data import judging_data
from wsiseg.training.labelled import part_labelled, without_labels
from wsiseg.training.splits import split_patches

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.conftest import MakePatchStore
    from wsiseg.stores.patch_store import PatchStore


def make(
    make_patch_store: MakePatchStore, path: Path, parents: Sequence[str], splits: Sequence[str] = (), **more: object
) -> PatchStore:
    count = len(parents)
    images, labels = np.zeros((count, 8, 8, 3), np.uint8), np.ones((count, 8, 8), np.uint8)
    return make_patch_store(path, images, labels, parents=parents, splits=splits, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("mark", ["val", "test"])
def test_no_mark_makes_synthetic_patches_judge(tmp_path: Path, make_patch_store: MakePatchStore, mark: str) -> None:
    real = make(make_patch_store, tmp_path / "real.zarr", ["a", "b", "c"], ["train", "val", "test"])
    made = make(make_patch_store, tmp_path / "made.zarr", ["a", "a"], [mark, mark], origin="synthetic")
    stores = [PatchSet([real]), PatchSet([made])]

    (train, val), (made_train, made_val) = split_patches(stores, "truth", val_fraction=0.5, seed=0)

    assert (train.tolist(), val.tolist()) == ([0], [1])
    assert (made_train.tolist(), made_val.tolist()) == ([0, 1], [])
    judges = judging_data(stores, "truth", None)
    assert [source.indices.tolist() for source in judges] == [[2], []]


@pytest.mark.parametrize("seed", range(5))
def test_what_was_made_from_held_out_images_is_left_out(
    tmp_path: Path, make_patch_store: MakePatchStore, seed: int
) -> None:
    names = ["a", "b", "c", "d"]
    real = make(make_patch_store, tmp_path / "real.zarr", names)
    made = make(
        make_patch_store, tmp_path / "made.zarr", [name for name in names for _ in range(50)], origin="synthetic"
    )
    stores = [PatchSet([real]), PatchSet([made])]

    (train, val), (made_train, made_val) = split_patches(stores, "truth", val_fraction=0.25, seed=seed)

    # Numbers of synthetic patches do not sway how many real ones are held out.
    assert (len(train), len(val), len(made_val)) == (3, 1, 0)
    assert set(made.groups[made_train]) == set(real.groups[train])
    assert len(made_train) == 150


def test_what_was_made_from_marked_images_is_left_out(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    real = make(make_patch_store, tmp_path / "real.zarr", ["a", "b", "c"], ["train", "val", "test"])
    made = make(make_patch_store, tmp_path / "made.zarr", ["a", "b", "c"], origin="synthetic")

    splits = split_patches([PatchSet([real, made])], "truth", val_fraction=0.5, seed=0)

    assert [part.tolist() for part in splits[0]] == [[0, 3], [1]]


def test_synthetic_patches_alone_can_be_learnt_from_but_not_validated_on(
    tmp_path: Path, make_patch_store: MakePatchStore
) -> None:
    made = PatchSet([make(make_patch_store, tmp_path / "made.zarr", ["a", "b"], origin="synthetic")])

    ((train, val),) = split_patches([made], "truth", val_fraction=0, seed=0)

    assert (train.tolist(), val.tolist()) == ([0, 1], [])
    with pytest.raises(DataError, match="synthetic"):
        split_patches([made], "truth", val_fraction=0.2, seed=0)


def test_synthetic_patches_do_not_stand_in_for_images_without_labels(
    tmp_path: Path, make_patch_store: MakePatchStore
) -> None:
    real = PatchSet([make(make_patch_store, tmp_path / "real.zarr", ["a", "b"])])
    made = PatchSet([make(make_patch_store, tmp_path / "made.zarr", ["a", "b"], origin="synthetic")])
    nothing = np.empty(0, np.int64)

    free = without_labels([real, made], [np.array([0]), nothing], [nothing, nothing])

    assert [indices.tolist() for indices in free] == [[1], []]


@pytest.mark.parametrize("seed", range(3))
def test_images_that_are_only_synthetic_are_not_drawn_as_labelled_ones(
    tmp_path: Path, make_patch_store: MakePatchStore, seed: int
) -> None:
    real = PatchSet([make(make_patch_store, tmp_path / "real.zarr", ["a", "b"])])
    made = PatchSet([make(make_patch_store, tmp_path / "made.zarr", ["a", "x", "y"], origin="synthetic")])

    (one, synthetic), chosen = part_labelled([real, made], [np.arange(2), np.arange(3)], "1", seed=seed)
    everything = part_labelled([real, made], [np.arange(2), np.arange(3)], "1.0", seed=seed)

    assert len(one) == 1
    assert [real.parents[one[0]]] == chosen
    assert synthetic.tolist() == ([0] if chosen == ["a"] else [])
    assert everything[1] == ["a", "b"]


@pytest.mark.parametrize(("wanted", "listed"), [("1", None), ("1.0", None), ("table.csv", ["a"])])
def test_nothing_is_drawn_of_synthetic_patches_alone(
    tmp_path: Path, make_patch_store: MakePatchStore, wanted: str, listed: list[str] | None
) -> None:
    made = PatchSet([make(make_patch_store, tmp_path / "made.zarr", ["a", "b"], origin="synthetic")])

    with pytest.raises(DataError, match=r"^--labelled: none of the labelled images to train on is real"):
        part_labelled([made], [np.arange(2)], wanted, seed=0, listed=listed)
