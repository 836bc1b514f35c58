"""Features are made once, chunk by chunk, and say what they were made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wsiseg.errors import DataError, StoppedError, StoreError
from wsiseg.progress import SILENT
from wsiseg.selection.appearance import appearance
from wsiseg.selection.encoders import ImageEncoder
from wsiseg.selection.features import PoolFeatures, encode, fingerprint_of, look_at, quadrants_of
from wsiseg.stopping import Stop
from wsiseg.stores.feature_store import FeatureMeta, FeatureStore
from wsiseg.stores.patch_set import PatchSet

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePatchStore

COUNT, SIDE = 11, 16


class Means(nn.Module):
    """Mean and largest value of each channel."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat((images.mean(dim=(2, 3)), images.amax(dim=(2, 3))), dim=1)


class Counting(Means):
    """Counts the images that it gets, and asks for a stop when it has had enough."""

    def __init__(self, *, stop: Stop | None = None, enough: int = 0) -> None:
        super().__init__()
        self.seen, self.stop, self.enough = 0, stop, enough

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        if self.stop is not None and self.seen > self.enough:
            self.stop.request("a test wants it")
        return super().forward(images)


@pytest.fixture
def patches(tmp_path: Path, make_patch_store: MakePatchStore) -> PatchSet:
    images = np.random.default_rng(0).integers(256, size=(COUNT, SIDE, SIDE, 3), dtype=np.uint8)
    return PatchSet([make_patch_store(tmp_path / f"{part}.zarr", images[part::2]) for part in (0, 1)])


def meta(encoder: ImageEncoder, patches: PatchSet, *, chunk: int = 4, name: str = "means") -> FeatureMeta:
    return FeatureMeta(
        count=len(patches),
        dimensions=encoder.dimensions,
        chunk=chunk,
        encoder=name,
        preproc="unit",
        precision="float32",
        weights=encoder.fingerprint(),
        patches=fingerprint_of(patches),
    )


def run(
    patches: PatchSet, net: nn.Module, store: FeatureStore, *, batch_size: int = 3, stop: Stop | None = None
) -> int:
    return encode(
        patches,
        ImageEncoder(net),
        store,
        device=torch.device("cpu"),
        batch_size=batch_size,
        workers=0,
        progress=SILENT,
        stop=stop or Stop(),
    )


def test_features_are_those_of_each_patch_and_its_quadrants(tmp_path: Path, patches: PatchSet) -> None:
    store = FeatureStore.prepare(tmp_path / "f.zarr", meta(ImageEncoder(Means()), patches))

    assert run(patches, Means(), store) == COUNT

    rows = np.arange(COUNT)
    images = patches.read_images(rows)
    colours = images / 255
    expected = np.concatenate((colours.mean(axis=(1, 2)), colours.max(axis=(1, 2))), axis=1)
    np.testing.assert_allclose(store.read("patches", rows), expected, atol=1e-3)
    lower_left = colours[:, SIDE // 2 :, : SIDE // 2]
    np.testing.assert_allclose(store.read("quadrants", rows)[:, 2, :3], lower_left.mean(axis=(1, 2)), atol=1e-3)
    np.testing.assert_allclose(store.read("appearance", rows), appearance(images))
    np.testing.assert_array_equal(store.read("patches", rows[::-1]), store.read("patches", rows)[::-1])


def test_smaller_images_are_looked_at_without_their_padding(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    images = np.random.default_rng(0).integers(256, size=(5, SIDE, SIDE, 3), dtype=np.uint8)
    extents = np.array([[SIDE, SIDE], [10, 8], [SIDE, SIDE], [10, 8], [8, 8]], np.int32)
    patches = PatchSet([make_patch_store(tmp_path / "p.zarr", images, extents=extents)])
    store = FeatureStore.prepare(tmp_path / "f.zarr", meta(ImageEncoder(Means()), patches))

    run(patches, Means(), store)

    looks = look_at(patches, workers=1, progress=SILENT, stop=Stop())
    np.testing.assert_array_equal(store.read("appearance", np.arange(5)), looks)
    for index, (width, height) in enumerate(extents.tolist()):
        own = images[index, :height, :width]
        found = store.read("patches", np.array([index]))[0]
        np.testing.assert_allclose(found[:3], own.mean(axis=(0, 1)) / 255, atol=1e-3)
        np.testing.assert_allclose(looks[index], appearance(own[None])[0])
        last = store.read("quadrants", np.array([index]))[0, 3]
        np.testing.assert_allclose(last[:3], own[-(height // 2) :, -(width // 2) :].mean(axis=(0, 1)) / 255, atol=1e-3)


def test_zarr_reads_what_is_written(tmp_path: Path, patches: PatchSet) -> None:
    import zarr

    store = FeatureStore.prepare(tmp_path / "f.zarr", meta(ImageEncoder(Means()), patches))
    run(patches, Means(), store)

    group = zarr.open_group(tmp_path / "f.zarr", mode="r")
    for kind in ("patches", "quadrants", "appearance"):
        np.testing.assert_array_equal(np.asarray(group[kind]), store.read(kind, np.arange(COUNT)))


def test_work_goes_on_with_the_chunks_that_are_missing(tmp_path: Path, patches: PatchSet) -> None:
    about = meta(ImageEncoder(Means()), patches)
    stop = Stop()
    store = FeatureStore.prepare(tmp_path / "f.zarr", about)
    with pytest.raises(StoppedError):
        # In the middle of the second chunk.
        run(patches, Counting(stop=stop, enough=5 * 4 + 5), store, stop=stop)
    counting = Counting()

    again = FeatureStore.prepare(tmp_path / "f.zarr", about)
    made = run(patches, counting, again)

    assert made == COUNT - 4
    # One try when it is made, then each patch and its quadrants.
    assert counting.seen == 1 + 5 * (COUNT - 4)
    assert run(patches, Means(), again) == 0
    whole = FeatureStore.prepare(tmp_path / "whole.zarr", about)
    run(patches, Means(), whole, batch_size=5)
    for kind in ("patches", "quadrants", "appearance"):
        np.testing.assert_array_equal(again.read(kind, np.arange(COUNT)), whole.read(kind, np.arange(COUNT)))


def test_features_of_others_are_refused_unless_they_may_be_replaced(tmp_path: Path, patches: PatchSet) -> None:
    about = meta(ImageEncoder(Means()), patches)
    run(patches, Means(), FeatureStore.prepare(tmp_path / "f.zarr", about))
    of_others = meta(ImageEncoder(Means()), PatchSet(patches.stores[:1]))

    with pytest.raises(StoreError, match="features of other patches"):
        FeatureStore.prepare(tmp_path / "f.zarr", of_others)
    with pytest.raises(StoreError, match=r"features of means \(unit, float32\), not those"):
        FeatureStore.prepare(tmp_path / "f.zarr", about.model_copy(update={"encoder": "other"}))
    with pytest.raises(StoreError, match=r"features of means \(unit, float32\), not those"):
        FeatureStore.prepare(tmp_path / "f.zarr", about.model_copy(update={"precision": "bfloat16"}))
    replaced = FeatureStore.prepare(tmp_path / "f.zarr", of_others, overwrite=True)

    assert sum(map(len, replaced.missing())) == len(patches.stores[0])
    with pytest.raises(StoreError, match="not a store of features"):
        FeatureStore(patches.stores[0].path)


def test_what_holds_no_features_is_never_replaced(tmp_path: Path, patches: PatchSet) -> None:
    about = meta(ImageEncoder(Means()), patches)
    (tmp_path / "mine").mkdir()
    FeatureStore.prepare(tmp_path / "mine", about)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "features.csv").touch()
    (tmp_path / "file").touch()

    for path in (tmp_path / "theirs", tmp_path / "file", patches.stores[0].path):
        for overwrite in (False, True):
            with pytest.raises(StoreError, match="what is there holds no features"):
                FeatureStore.prepare(path, about, overwrite=overwrite)

    assert (tmp_path / "theirs" / "features.csv").exists()
    assert len(FeatureStore(tmp_path / "mine")) == COUNT


def test_damaged_and_missing_chunks_are_told(tmp_path: Path, patches: PatchSet) -> None:
    store = FeatureStore.prepare(tmp_path / "f.zarr", meta(ImageEncoder(Means()), patches))
    with pytest.raises(StoreError, match="not there or damaged"):
        store.read("patches", np.array([0]))
    run(patches, Means(), store)
    path = tmp_path / "f.zarr" / "quadrants" / "c" / "1" / "0" / "0"
    path.write_bytes(path.read_bytes()[:20])

    with pytest.raises(StoreError, match="Delete the file"):
        store.read("quadrants", np.array([5]))


def test_what_is_no_number_is_not_stored(tmp_path: Path, patches: PatchSet) -> None:
    class Broken(Means):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) / 0

    store = FeatureStore.prepare(tmp_path / "f.zarr", meta(ImageEncoder(Means()), patches))

    with pytest.raises(DataError, match="no usable features"):
        run(patches, Broken(), store)
    assert len(store.missing()) == 3


def test_quadrants_are_the_corners_whatever_the_size() -> None:
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(1, 5, 7, 3)

    (found,) = quadrants_of(image)

    assert found.shape == (4, 2, 3, 3)
    for part, corner in zip(
        found, (image[0, :2, :3], image[0, :2, 4:], image[0, 3:, :3], image[0, 3:, 4:]), strict=True
    ):
        np.testing.assert_array_equal(part, corner)


@pytest.mark.parametrize("memory_bytes", [0, None])
def test_a_part_of_the_patches_is_read_in_blocks(
    tmp_path: Path, patches: PatchSet, monkeypatch: pytest.MonkeyPatch, memory_bytes: int | None
) -> None:
    monkeypatch.setattr("wsiseg.selection.features.BLOCK", 3)
    store = FeatureStore.prepare(tmp_path / "f.zarr", meta(ImageEncoder(Means()), patches))
    run(patches, Means(), store)
    kept = np.array([0, 1, 3, 4, 7, 8, 10])

    features = PoolFeatures(store, kept, memory_bytes=memory_bytes)
    blocks = list(features.blocks("patches"))

    assert [places.stop - places.start for places, _ in blocks] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), store.read("patches", kept))
