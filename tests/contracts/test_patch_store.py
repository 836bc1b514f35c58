"""A patch store gives back what was written, to us and to plain zarr-python, from any thread."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from zarr.registry import register_codec

from wsiseg.errors import StoreError
from wsiseg.labels import IGNORE, LabelMap
from wsiseg.stores.checksum import crc32c
from wsiseg.stores.image_labels import ImageLayerInfo
from wsiseg.stores.jpeg_codec import JpegCodec
from wsiseg.stores.patch_meta import CodecName, PatchMeta
from wsiseg.stores.patch_set import PatchSet
from wsiseg.stores.patch_store import PatchStore
from wsiseg.stores.patch_writer import PatchTable, PatchWriter, new_folder
from wsiseg.stores.patches import LayerInfo
from wsiseg.stores.shards import ShardedArray, per_shard

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LABELS = LabelMap.from_names(("background", "nucleus"))


def make_store(
    path: Path,
    images: NDArray[np.uint8],
    *,
    codec: CodecName = "zstd",
    mpp: float | None = 0.5,
    extents: NDArray[np.int32] | None = None,
) -> PatchStore:
    count, height, width = images.shape[:3]
    full = np.tile(np.array([[width, height]], dtype=np.int32), (count, 1))
    table = PatchTable(
        positions=np.stack([np.arange(count) * width, np.zeros(count, np.int64)], axis=1),
        windows=np.stack([np.arange(count) * width, np.zeros(count, np.int64)], axis=1),
        extents=full if extents is None else extents,
        tissue=np.ones(count, np.float32),
        parent=(np.arange(count) % 2).astype(np.int32),
        split=(np.arange(count) % 2).astype(np.uint8),
    )
    meta = PatchMeta(
        codec=codec,
        mpp=mpp,
        parents=("a", "b"),
        groups=("p1", "p1"),
        splits=("", "train"),
        fingerprint=path.name,
        provenance={"tool": "test"},
    )
    with new_folder(path) as folder:
        writer = PatchWriter(folder, meta, table, (height, width))
        for shard in range(writer.images.shard_count):
            writer.images.write_shard(shard, [writer.codec.encode(images[i]) for i in writer.images.shard_items(shard)])
    return PatchStore.open(path)


@pytest.fixture
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (11, 24, 32, 3)).astype(np.uint8)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsiseg.stores.shards.MAX_PER_SHARD", 4)


def test_patches_come_back_in_any_order(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    store = make_store(tmp_path / "s.zarr", images)

    assert len(store) == 11
    assert store.patch_px == 32
    assert store.mpp == 0.5
    assert store.parents[:3].tolist() == ["a", "b", "a"]
    assert store.groups[1] == "p1"
    assert store.splits[:2].tolist() == ["", "train"]
    np.testing.assert_array_equal(store.read_images([10, 0, 3, 3]), images[[10, 0, 3, 3]])
    assert store.read_images([]).shape == (0, 24, 32, 3)
    with pytest.raises(IndexError):
        store.read_images([11])


def test_plain_zarr_reads_everything(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    store = make_store(tmp_path / "s.zarr", images)
    store.add_layer("gt", "instances", LABELS)
    store.write_labels("gt", range(11), list(images[..., 0].astype(np.int32) * 300))

    group = zarr.open_group(tmp_path / "s.zarr", mode="r")

    np.testing.assert_array_equal(np.asarray(group["images"]), images)
    np.testing.assert_array_equal(np.asarray(group["positions"]), store.positions)
    np.testing.assert_array_equal(np.asarray(group["tissue"]), store.tissue)
    np.testing.assert_array_equal(np.asarray(group["labels/gt"]), store.read_labels("gt", range(11)))
    assert np.asarray(group["thumbnail"]).shape == (0, 0, 3)
    assert dict(group["labels/gt"].attrs)["kind"] == "instances"
    attributes: Any = group.attrs["wsiseg"]
    assert attributes["schema_version"] == 1


def test_what_plain_zarr_writes_we_read(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    store = make_store(tmp_path / "s.zarr", images)
    group = zarr.open_group(tmp_path / "s.zarr", mode="a")
    array = group["images"]
    assert isinstance(array, zarr.Array)

    array[5] = 7

    assert (store.read_images([5]) == 7).all()
    np.testing.assert_array_equal(store.read_images([4, 6]), images[[4, 6]])


def test_plain_zarr_reads_jpeg_patches(tmp_path: Path) -> None:
    register_codec("imagecodecs_jpeg", JpegCodec)
    smooth = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None] * 4, (5, 24, 32, 3)).copy()
    store = make_store(tmp_path / "s.zarr", smooth, codec="jpeg")

    array = zarr.open_array(tmp_path / "s.zarr" / "images", mode="r")

    np.testing.assert_array_equal(np.asarray(array), store.read_images(range(5)))
    assert np.abs(store.read_images(range(5)).astype(int) - smooth).max() < 12
    copy = zarr.create_array(tmp_path / "c", shape=(2, 24, 32, 3), chunks=(1, 24, 32, 3), dtype="uint8",
                             serializer=JpegCodec(level=95), compressors=None)  # fmt: skip
    copy[0] = smooth[0]
    assert np.abs(np.asarray(copy[0]).astype(int) - smooth[0]).max() < 12


def test_labels_are_unlabelled_until_written(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    store = make_store(tmp_path / "s.zarr", images)
    store.add_layer("tissue", "classes", LABELS)

    store.write_labels("tissue", [9, 2], [np.ones((24, 32), np.uint8), np.zeros((24, 32), np.uint8)])

    assert store.layers == {"tissue": LayerInfo(kind="classes", labels=LABELS)}
    assert np.flatnonzero(store.is_labelled("tissue")).tolist() == [2, 9]
    labels = store.read_labels("tissue", [0, 2, 9])
    assert labels.dtype == np.uint8
    assert labels[:, 0, 0].tolist() == [IGNORE, 0, 1]
    with pytest.raises(StoreError, match="already"):
        store.add_layer("tissue", "classes", LABELS)
    with pytest.raises(StoreError, match="no layer 'other'"):
        store.read_labels("other", [0])
    with pytest.raises(StoreError, match="name of a layer"):
        store.add_layer("../x", "classes", LABELS)
    with pytest.raises(ValueError, match="do not fit"):
        store.write_labels("tissue", [0], [np.zeros((3, 3), np.uint8)])


def test_confidence_is_kept_like_classes(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    store = make_store(tmp_path / "s.zarr", images)
    store.add_layer("tissue-confidence", "confidence", LABELS)
    store.write_labels("tissue-confidence", [3], [np.full((24, 32), 80, np.uint8)])

    again = PatchStore.open(store.path)
    assert again.layers == {"tissue-confidence": LayerInfo(kind="confidence", labels=LABELS)}
    assert again.read_labels("tissue-confidence", [2, 3])[:, 0, 0].tolist() == [IGNORE, 80]


def test_a_layer_of_another_kind_is_told(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    store = make_store(tmp_path / "s.zarr", images)
    store.add_layer("tissue", "classes", LABELS)
    metadata = store.path / "labels" / "tissue" / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"classes"', '"depths"'))

    with pytest.raises(StoreError, match="no valid label map"):
        _ = PatchStore.open(store.path).layers


def test_an_open_store_sees_labels_that_are_replaced(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    writer = make_store(tmp_path / "s.zarr", images)
    writer.add_layer("gt", "instances", LABELS)
    writer.write_labels("gt", [1], [np.full((24, 32), 5, np.int32)])
    reader = PatchStore.open(tmp_path / "s.zarr")
    assert reader.read_labels("gt", [1])[0, 0, 0] == 5

    writer.write_labels("gt", [0, 1], [images[0, ..., 0].astype(np.int32), np.full((24, 32), 6, np.int32)])

    assert reader.read_labels("gt", [1])[0, 0, 0] == 6


def test_padding_is_background(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    extents = np.tile(np.array([[20, 10]], np.int32), (11, 1))

    patch = make_store(tmp_path / "s.zarr", images, extents=extents).read_images([4])[0]

    np.testing.assert_array_equal(patch[:10, :20], images[4, :10, :20])
    assert (patch[10:] == 255).all()
    assert (patch[:, 20:] == 255).all()


def test_threads_read_what_one_thread_reads(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    store = make_store(tmp_path / "s.zarr", images)
    batches = [np.random.default_rng(seed).integers(0, 11, 6) for seed in range(40)]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(store.read_images, batches))

    for batch, result in zip(batches, results, strict=True):
        np.testing.assert_array_equal(result, images[batch])


def test_an_empty_store_is_a_store(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", np.zeros((0, 24, 32, 3), np.uint8))

    assert len(store) == 0
    assert store.parents.shape == (0,)
    assert store.read_images([]).shape == (0, 24, 32, 3)
    assert np.asarray(zarr.open_group(tmp_path / "s.zarr", mode="r")["images"]).shape == (0, 24, 32, 3)


def test_several_stores_read_like_one(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    first = make_store(tmp_path / "a.zarr", images[:5])
    second = make_store(tmp_path / "b.zarr", images[5:, :16, :16])
    first.add_layer("gt", "instances", LABELS)
    patches = PatchSet.open([tmp_path / "a.zarr", tmp_path / "b.zarr"])

    patches.write_labels("gt", [1], [np.full((24, 32), 3, np.int32)])

    assert len(patches) == 11
    assert patches.image_shape == (24, 32)
    assert patches.patch_px == 32
    assert patches.mpp == pytest.approx(0.5)
    np.testing.assert_array_equal(patches.read_images([7, 0])[0, :16, :16], second.read_images([2])[0])
    assert (patches.read_images([7])[0, 16:] == 255).all()
    np.testing.assert_array_equal(patches.read_images([7, 0])[1], images[0])
    assert patches.extents[7].tolist() == [16, 16]
    assert np.flatnonzero(patches.is_labelled("gt")).tolist() == [1]
    assert patches.read_labels("gt", [1, 9])[:, 0, 0].tolist() == [3, 0]
    assert patches.fingerprint == PatchSet([second, first]).fingerprint
    with pytest.raises(StoreError, match="no store has a layer"):
        patches.read_labels("other", [0])
    with pytest.raises(IndexError):
        patches.read_images([11])


def test_stores_that_do_not_go_together_are_refused(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    first = make_store(tmp_path / "a.zarr", images)
    second = make_store(tmp_path / "b.zarr", images, mpp=0.25)
    first.add_layer("gt", "instances", LABELS)
    second.add_layer("gt", "classes", LABELS)

    with pytest.raises(StoreError, match="other classes"):
        PatchSet([first, second])
    with pytest.raises(StoreError, match="no patch store"):
        PatchSet([])
    (tmp_path / "b.zarr" / "labels" / "gt" / "zarr.json").unlink()
    with pytest.raises(StoreError, match="different resolutions"):
        _ = PatchSet([first, second]).mpp


def test_another_schema_version_is_refused_with_a_remedy(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    path = make_store(tmp_path / "s.zarr", images).path
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["attributes"]["wsiseg"]["schema_version"] = 99
    (path / "zarr.json").write_text(json.dumps(metadata))

    with pytest.raises(StoreError, match=r"schema version 99.*--overwrite"):
        PatchStore.open(path)


@pytest.mark.parametrize("damage", ["gone", "empty", "text", "other", "attributes", "length", "array"])
def test_what_is_no_store_is_refused(tmp_path: Path, images: NDArray[np.uint8], damage: str) -> None:
    path = make_store(tmp_path / "s.zarr", images).path
    metadata = json.loads((path / "zarr.json").read_text())
    if damage == "gone":
        path = tmp_path / "nothing.zarr"
    elif damage == "empty":
        (path / "zarr.json").unlink()
    elif damage == "text":
        (path / "zarr.json").write_text("nonsense")
    elif damage == "other":
        (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    elif damage == "attributes":
        del metadata["attributes"]["wsiseg"]["codec"]
        (path / "zarr.json").write_text(json.dumps(metadata))
    elif damage == "length":
        shape = json.loads((path / "images" / "zarr.json").read_text())
        shape["shape"][0] = 3
        (path / "images" / "zarr.json").write_text(json.dumps(shape))
    else:
        (path / "positions" / "c" / "0" / "0").write_bytes(b"nonsense")

    with pytest.raises(StoreError):
        PatchStore.open(path)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_shards_are_told(tmp_path: Path, images: NDArray[np.uint8], damage: str) -> None:
    store = make_store(tmp_path / "s.zarr", images)
    shard = store.path / "images" / "c" / "0" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    if damage == "cut":
        del data[-10:]
    else:
        data[:8] = bytes(8)
    shard.write_bytes(bytes(data))

    with pytest.raises(StoreError, match=r"damaged"):
        store.read_images([0])


def test_a_failed_writer_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"

    with pytest.raises(FileNotFoundError), new_folder(path) as folder:
        (folder / "missing" / "file").write_text("half")

    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_removed(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    (tmp_path / ".s.zarr.part" / "images").mkdir(parents=True)

    make_store(tmp_path / "s.zarr", images)

    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]


def test_positions_alone_need_a_slide(tmp_path: Path) -> None:
    (tmp_path / "x.zarr").mkdir()
    store = make_store(tmp_path / "s.zarr", np.zeros((1, 8, 8, 3), np.uint8))
    metadata = json.loads((store.path / "zarr.json").read_text())
    metadata["attributes"]["wsiseg"]["codec"] = "none"
    metadata["attributes"]["wsiseg"]["grid"] = {"patch_px": 8, "stride_px": 8, "downsample": 1.0, "canvas": [8, 8]}
    (store.path / "zarr.json").write_text(json.dumps(metadata))

    with pytest.raises(StoreError, match="positions only"):
        PatchStore.open(store.path).read_images([0])


def test_a_layer_of_foreign_layout_is_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a", shape=(4, 8, 8), chunks=(2, 8, 8), dtype="uint8")

    with pytest.raises(StoreError, match="not stored as patches"):
        ShardedArray(tmp_path / "a")


def test_shards_hold_a_power_of_two_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsiseg.stores.shards.MAX_PER_SHARD", 256)

    assert per_shard(256 * 256 * 3) == 128
    assert per_shard(1) == 256
    assert per_shard(2**30) == 1
    assert crc32c(b"123456789") == 0xE3069283


def test_labels_that_are_lost_with_the_store_before_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    store = make_store(tmp_path / "s.zarr", images)
    store.add_layer("gt", "instances", LABELS)
    store.add_image_layer("drawn", ImageLayerInfo(labels=LABELS), np.ones((2, 2), np.uint8))

    again = make_store(tmp_path / "s.zarr", images)

    assert again.layers == {}
    (record,) = caplog.records
    assert record.getMessage().endswith("made anew, without the labels that it had: image_labels/drawn, labels/gt")
