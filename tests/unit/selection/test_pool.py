"""What may be chosen is counted honestly, and what is left out says why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.selection.appearance import appearance
from wsiseg.selection.pool import PoolSettings, boxes_of, chosen_px, covered_px, filter_pool, sizes_of, tissue_px
from wsiseg.stores.patch_meta import PatchGrid, PatchMeta
from wsiseg.stores.patch_set import PatchSet
from wsiseg.stores.patch_store import PatchStore
from wsiseg.stores.patch_writer import PatchTable, PatchWriter, new_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.conftest import MakePatchStore

SPLITS = ("", "train", "val", "test", "unlabelled")
HE = np.array([[[200, 130, 190], [95, 50, 130]]], np.uint8)


def gridded(path: Path, *, images: int, side: int, patch: int, stride: int, split: str = "") -> PatchSet:
    """Return a store of positions only, of images of `side` px that are cut into patches, the last ones cut off."""
    edges = np.arange(0, max(1, side - patch + stride), stride)
    corners = np.stack(np.meshgrid(edges, edges), axis=-1).reshape(-1, 2)
    windows = np.tile(corners, (images, 1)).astype(np.int64)
    names = tuple(f"image{number}" for number in range(images))
    table = PatchTable(
        positions=windows,
        windows=windows,
        extents=np.clip(side - windows, 0, patch).astype(np.int32),
        tissue=np.ones(len(windows), np.float32),
        parent=np.repeat(np.arange(images), len(corners)).astype(np.int32),
        split=np.full(len(windows), SPLITS.index(split), np.uint8),
    )
    grid = PatchGrid(patch_px=patch, stride_px=stride, downsample=1.0, canvas=(side, side))
    meta = PatchMeta(codec="none", mpp=0.25, parents=names, groups=names, splits=SPLITS, fingerprint="f", grid=grid)
    with new_folder(path) as folder:
        PatchWriter(folder, meta, table, (patch, patch))
    return PatchSet([PatchStore.open(path)])


def test_six_patches_of_twelve_images_are_3_277_percent(tmp_path: Path) -> None:
    patches = gridded(tmp_path / "a.zarr", images=12, side=1000, patch=256, stride=128)

    assert tissue_px(patches) == 12 * 1000 * 1000
    # One of each of six images.
    chosen = [int(np.flatnonzero(patches.parents == name)[0]) for name in np.unique(patches.parents)[:6]]
    assert round(chosen_px(patches, chosen) / tissue_px(patches), 5) == 0.03277
    # Its neighbour shares half of the first.
    assert chosen_px(patches, [0, 1]) == 256 * (256 + 128)


def test_what_is_held_out_is_no_tissue_to_choose_from(tmp_path: Path) -> None:
    patches = gridded(tmp_path / "a.zarr", images=1, side=64, patch=32, stride=16, split="test")

    assert tissue_px(patches) == 0


boxes = st.tuples(
    st.integers(0, 12), st.integers(0, 12), st.integers(1, 9), st.integers(1, 9), st.sampled_from((0, 0.5, 1))
)


@given(st.lists(boxes, min_size=1, max_size=8))
def test_pixels_are_counted_once_however_many_patches_share_them(
    drawn: Sequence[tuple[int, int, int, int, float]],
) -> None:
    counts, sums = np.zeros((22, 22)), np.zeros((22, 22))
    for x, y, width, height, weight in drawn:
        counts[y : y + height, x : x + width] += 1
        sums[y : y + height, x : x + width] += weight
    corners = np.array([(x, y, x + width, y + height) for x, y, width, height, _ in drawn])

    found = covered_px(corners, np.array([weight for *_, weight in drawn]))

    np.testing.assert_allclose(found, np.sum(sums[counts > 0] / counts[counts > 0]))


def test_images_of_two_stores_with_one_name_are_two(tmp_path: Path) -> None:
    stores = [gridded(tmp_path / f"{name}.zarr", images=1, side=8, patch=8, stride=8).stores[0] for name in "ab"]

    assert len(set(boxes_of(PatchSet(stores))[:, 0].tolist())) == 2


def test_each_rule_counts_what_those_before_it_have_left(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    shape = (8, 16, 16, 3)
    extents = np.full((8, 2), 16, np.int32)
    extents[1] = (16, 9)
    parents = ["a", "b", "b", "c", "d", "e", "f", "g"]
    splits = ["test", *["train"] * 6, ""]
    images = np.full(shape, 200, np.uint8)
    store = make_patch_store(tmp_path / "a.zarr", images, splits=splits, extents=extents, parents=parents)
    looks = np.tile(np.array([[1.0, 0.2]], np.float32), (8, 1))
    looks[:2] = 0
    looks[3] = (0.4, 0)
    looks[4, 1] = 0.01
    looks[5, 1] = 0.99
    is_taken = np.zeros(8, np.bool_)
    is_taken[[0, 2]] = True

    report = filter_pool(PatchSet([store]), looks, PoolSettings(max_nuclei=0.9), is_taken=is_taken)

    assert report.indices.tolist() == [6, 7]
    assert report.removed == {
        "synthetic": 0,
        "held out": 1,
        "cut off by the edge": 1,
        "annotated": 1,
        "blank": 1,
        "without nuclei": 1,
        "dark all over": 1,
    }
    everything = PoolSettings(min_tissue=0, min_nuclei=0)
    assert filter_pool(PatchSet([store]), looks, everything, is_taken=is_taken).indices.tolist() == [3, 4, 5, 6, 7]
    sure = np.array([0.5, 0.5, 0.5, 0, 0.5, 0.5, 0, 0.1], np.float32)
    unsure = filter_pool(PatchSet([store]), looks, everything, is_taken=is_taken, uncertainty=sure)
    assert unsure.indices.tolist() == [4, 5, 7]
    assert unsure.removed["not predicted, or certain"] == 2


def test_only_what_ends_at_an_edge_is_cut_off(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    # Images of three sizes, one that was cut into a whole patch and the rest of it, and a slide of smaller patches.
    extents = np.array([[8, 8], [8, 6], [5, 5], [8, 8], [2, 8]], np.int32)
    images = make_patch_store(
        tmp_path / "a.zarr", np.zeros((5, 8, 8, 3), np.uint8), extents=extents, parents=["a", "b", "c", "d", "d"]
    )
    slide = gridded(tmp_path / "b.zarr", images=1, side=7, patch=4, stride=4).stores[0]
    patches = PatchSet([images, slide])
    looks = np.ones((len(patches), 2), np.float32)

    report = filter_pool(patches, looks, PoolSettings(), is_taken=np.zeros(len(patches), np.bool_))

    assert report.removed["cut off by the edge"] == 1 + 3
    assert report.indices.tolist() == [0, 1, 2, 3, 5]
    assert sizes_of(patches).tolist() == [[8, 8], [8, 6], [5, 5], [8, 8], [8, 8], *[[4, 4]] * 4]


def test_glass_eosin_and_nuclei_are_told_apart() -> None:
    glass = np.full((1, 32, 32, 3), 240, np.uint8)
    eosin = np.broadcast_to(HE[:, 0], (1, 32, 32, 3)).copy()
    cells = eosin.copy()
    cells[:, :16, :16] = HE[0, 1]

    found = appearance(np.concatenate([glass, eosin, cells]))

    np.testing.assert_allclose(found, np.array([[0, 0], [1, 0], [1, 0.25]]))


def test_synthetic_patches_are_never_chosen(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    store = make_patch_store(tmp_path / "a.zarr", np.zeros((3, 8, 8, 3), np.uint8), origin="synthetic")
    looks: NDArray[np.float32] = np.ones((3, 2), np.float32)

    report = filter_pool(PatchSet([store]), looks, PoolSettings(), is_taken=np.zeros(3, np.bool_))

    assert report.removed["synthetic"] == 3
    assert tissue_px(PatchSet([store])) == 0
