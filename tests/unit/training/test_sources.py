"""Crops keep image and labels together, padding is ignored, and splits keep images whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from wsiseg.errors import DataError
from wsiseg.training.sources import Patch, Source, random_crop
from wsiseg.training.splits import split_patches

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePatchStore
    from wsiseg.stores.patch_store import PatchStore


def numbered(height: int, width: int) -> Patch:
    """Return a patch whose labels and colours both tell where a pixel lies."""
    y, x = np.mgrid[:height, :width]
    return Patch(
        image=np.stack([y, x, np.zeros_like(y)], axis=2).astype(np.uint8),
        labels=(y * 1000 + x).astype(np.int32),
        valid=np.ones((height, width), bool),
    )


@pytest.mark.parametrize("scale", [1.0, 0.7, 1.6])
def test_pixels_keep_their_labels(scale: float) -> None:
    rng = np.random.default_rng(0)

    for _ in range(20):
        crop = random_crop(numbered(100, 90), crop_px=40, scale=scale, rng=rng)

        assert crop.image.shape == (40, 40, 3)
        rows, columns = crop.labels // 1000, crop.labels % 1000
        assert crop.valid.all()
        assert np.abs(rows - crop.image[..., 0]).max() <= 1
        assert np.abs(columns - crop.image[..., 1]).max() <= 1


@pytest.mark.parametrize("scale", [1.0, 1.3])
def test_what_lies_beyond_a_patch_is_ignored(scale: float) -> None:
    crop = random_crop(numbered(30, 100), crop_px=40, scale=scale, rng=np.random.default_rng(1))

    assert crop.labels.shape == (40, 40)
    assert crop.valid.sum() == pytest.approx(30 * 40 / scale, rel=0.08)
    assert (crop.image[..., 0] < 30).all()


def test_every_place_of_a_patch_is_drawn() -> None:
    rng = np.random.default_rng(0)
    seen = np.zeros(64 * 64, bool)

    for _ in range(400):
        labels = random_crop(numbered(64, 64), crop_px=16, scale=1.0, rng=rng).labels
        seen[(labels // 1000) * 64 + labels % 1000] = True

    assert seen.mean() > 0.95
    assert seen.reshape(64, 64)[:, -1].any()
    assert seen.reshape(64, 64)[-1].any()


def test_reading_leaves_padding_out_and_marks_what_is_ignored(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    images = np.zeros((2, 20, 20, 3), np.uint8)
    classes = np.ones((2, 20, 20), np.uint8)
    classes[:, :5] = 255
    ids = np.full((2, 20, 20), 7, np.int32)
    ids[:, :5] = -1
    extents = np.array([[20, 20], [12, 10]], np.int32)
    store = make_patch_store(tmp_path / "c.zarr", images, classes, extents=extents)
    other = make_patch_store(tmp_path / "i.zarr", images, ids, kind="instances", extents=extents)

    by_class = Source(patches=store, layer="truth", indices=np.arange(2)).read(1)
    by_instance = Source(patches=other, layer="truth", indices=np.arange(2)).read(1)

    assert by_class.labels.shape == by_instance.labels.shape == (10, 12)
    np.testing.assert_array_equal(by_class.valid, by_instance.valid)
    assert by_class.valid.sum() == 60
    assert set(np.unique(by_instance.labels)) == {0, 7}


def test_a_source_of_another_resolution_is_resampled(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    store = make_patch_store(tmp_path / "s.zarr", np.zeros((1, 40, 60, 3), np.uint8), np.ones((1, 40, 60), np.uint8))
    source = Source(patches=store, layer="truth", indices=np.arange(1), mpp=1.0)

    assert source.scale == 2
    assert source.whole(0).labels.shape == (20, 30)
    assert source.areas().tolist() == [600]


def test_images_stay_on_one_side_also_across_stores(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    images, labels = np.zeros((8, 4, 4, 3), np.uint8), np.zeros((8, 4, 4), np.uint8)
    parents = [f"p{n // 2}" for n in range(8)]
    stores = [make_patch_store(tmp_path / f"{n}.zarr", images, labels, parents=parents) for n in range(2)]

    splits = split_patches(stores, "truth", val_fraction=0.25, seed=3)

    held = {str(store.groups[n]) for store, (_, val) in zip(stores, splits, strict=True) for n in val}
    kept = {str(store.groups[n]) for store, (train, _) in zip(stores, splits, strict=True) for n in train}
    assert len(held) == 1
    assert held | kept == {"p0", "p1", "p2", "p3"}
    assert not held & kept
    assert len(splits[0][0]) == 6


def test_marks_in_the_store_decide(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    images, labels = np.zeros((5, 4, 4, 3), np.uint8), np.zeros((5, 4, 4), np.uint8)
    marks = ["train", "val", "test", "unlabelled", ""]
    store = make_patch_store(tmp_path / "s.zarr", images, labels, splits=marks)

    [(train, val)] = split_patches([store], "truth", val_fraction=0.5, seed=0)

    assert (train.tolist(), val.tolist()) == ([0, 4], [1])


@pytest.mark.parametrize("mark", ["val", "test"])
@pytest.mark.parametrize("beside", [["val"], []], ids=["marked", "drawn"])
def test_of_patients_who_judge_nothing_is_learnt(
    tmp_path: Path, make_patch_store: MakePatchStore, caplog: pytest.LogCaptureFixture, mark: str, beside: list[str]
) -> None:
    def make(name: str, parents: list[str], splits: list[str]) -> PatchStore:
        images, labels = np.zeros((len(parents), 4, 4, 3), np.uint8), np.zeros((len(parents), 4, 4), np.uint8)
        return make_patch_store(tmp_path / name, images, labels, parents=parents, splits=splits)

    others = [f"q{n}" for n in range(4)]
    shared = make("a.zarr", ["p", "p", *others], ["train", mark, *beside, *["train"] * (4 - len(beside))])
    more = make("b.zarr", ["p", "r"], ["train", ""])

    splits = split_patches([shared, more], "truth", val_fraction=0.25, seed=0)

    learnt, judges = (
        {str(store.groups[at]) for store, pair in zip((shared, more), splits, strict=True) for at in pair[side]}
        for side in (0, 1)
    )
    assert learnt | judges | {"p"} == {"p", "r", *others}
    assert not learnt & (judges | {"p"})
    assert ("p" in judges) == (mark == "val")
    assert "2 labelled patches are left out, as others of their patients" in caplog.text


def test_validation_is_not_of_patients_who_are_tested(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    images, labels = np.zeros((4, 4, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8)
    parents, splits = ["p", "p", "q", "r"], ["val", "test", "val", "train"]
    store = make_patch_store(tmp_path / "a.zarr", images, labels, parents=parents, splits=splits)
    alone = make_patch_store(tmp_path / "b.zarr", images, labels, parents=["p"] * 4, splits=["test", *["train"] * 3])

    assert [part.tolist() for part in split_patches([store], "truth", val_fraction=0.2, seed=0)[0]] == [[3], [2]]
    # Nothing is held out here: all is of a patient who is tested.
    with pytest.raises(DataError, match=r"that are tested or held out\. If these are to be parted, .* --split TABLE"):
        split_patches([alone], "truth", val_fraction=0.2, seed=0)


def test_what_cannot_be_split_is_refused(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    images, labels = np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4), np.uint8)
    one = make_patch_store(tmp_path / "a.zarr", images, labels, parents=["p", "p"])
    test = make_patch_store(tmp_path / "b.zarr", images, labels, splits=["test", "test"])
    val = make_patch_store(tmp_path / "c.zarr", images, labels, splits=["val", "val"])

    with pytest.raises(DataError, match="come from one image"):
        split_patches([one], "truth", val_fraction=0.2, seed=0)
    with pytest.raises(DataError, match="no patch has labels"):
        split_patches([test], "truth", val_fraction=0.2, seed=0)
    with pytest.raises(DataError, match="that are tested or held out"):
        split_patches([val], "truth", val_fraction=0.2, seed=0)
    assert split_patches([one], "truth", val_fraction=0, seed=0)[0][0].tolist() == [0, 1]
