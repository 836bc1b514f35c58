"""A mask store keeps what is written, says what it means, and refuses what it does not know."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05 import Image

from wsiseg.errors import StoreError
from wsiseg.geometry import Canvas, Scale, Size, Window
from wsiseg.labels import LabelMap
from wsiseg.stores.mask_store import MaskStore
from wsiseg.stores.pyramid import build_pyramid

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.stores.mask_layers import Layer

LABELS = LabelMap.from_names(("background", "tumour", "stroma"))


SIZE = Size(2500, 1300)


def make(path: Path, *, size: Size = SIZE, mpp: float | None = 0.5) -> MaskStore:
    canvas = Canvas(size, Scale(2.0), mpp)
    return MaskStore.create(
        path, canvas=canvas, labels=LABELS, layers=("classes", "instances", "uncertainty"), band_px=256
    )


def fill(store: MaskStore, instances: NDArray[np.uint32]) -> None:
    for band in range(store.bands):
        for column in range(-(-store.canvas.size.width // store.shard_px)):
            window = store.shard(band, column)
            store.write("instances", window, instances[window.slices])
            store.write("classes", window, (instances[window.slices] > 0).astype(np.uint8))


def _whole(size: Size) -> Window:
    return Window(0, 0, size.width, size.height)


def blobs(size: Size) -> NDArray[np.uint32]:
    ids = np.zeros((size.height, size.width), dtype=np.uint32)
    ids[300:340, 200:280] = 70_000
    ids[1250:1300, 2400:2500] = 3
    return ids


def test_what_is_written_is_read_back_after_opening_anew(tmp_path: Path) -> None:
    ids = blobs(SIZE)
    fill(make(tmp_path / "p.zarr"), ids)

    store = MaskStore.open(tmp_path / "p.zarr")

    np.testing.assert_array_equal(store.read("instances", store.canvas.window), ids)
    np.testing.assert_array_equal(store.read("classes", Window(190, 290, 100, 60)), ids[290:350, 190:290] > 0)
    assert store.read("instances", Window(0, 0, 5, 4)).dtype == np.uint32
    assert store.labels == LABELS
    assert store.canvas == Canvas(Size(2500, 1300), Scale(2.0), 0.5)


def test_reading_takes_no_more_memory_beside_its_result_from_wide_canvases(tmp_path: Path) -> None:
    beside = {}
    for shards in (1, 4):
        store = make(tmp_path / f"{shards}.zarr", size=Size(shards * 8192, 256))
        ids = np.ones((256, shards * 8192), dtype=np.uint32)
        store.write("instances", store.canvas.window, ids)
        store.read("instances", Window(0, 0, 1, 1))
        tracemalloc.start()
        values = store.read("instances", store.canvas.window)
        beside[shards] = tracemalloc.get_traced_memory()[1] - values.nbytes
        tracemalloc.stop()
        np.testing.assert_array_equal(values, ids)

    assert beside[4] < 1.3 * beside[1]


def test_background_shards_leave_no_file(tmp_path: Path) -> None:
    store = make(tmp_path / "p.zarr")
    fill(store, blobs(store.canvas.size))

    assert store.shard_path("instances", store.shard(1, 0)).exists()
    assert not store.shard_path("instances", store.shard(0, 0)).exists()


def test_the_pyramid_takes_every_other_pixel(tmp_path: Path) -> None:
    store = make(tmp_path / "p.zarr")
    ids = blobs(store.canvas.size)
    fill(store, ids)

    build_pyramid(store, workers=2)

    assert store.levels == 3
    for level in range(store.levels):
        size = store.level_size(level)
        coarse = store.read("instances", Window(0, 0, size.width, size.height), level=level)
        np.testing.assert_array_equal(coarse, ids[:: 2**level, :: 2**level])


@pytest.mark.parametrize(("names", "fill"), [(("background", "gland"), 0), (("tumour", "stroma"), 254)])
def test_nothing_written_is_no_class_at_any_resolution(tmp_path: Path, names: tuple[str, ...], fill: int) -> None:
    canvas = Canvas(SIZE, Scale(1.0), None)
    layers: tuple[Layer, ...] = ("classes", "uncertainty")
    labels = LabelMap.from_names(names)
    store = MaskStore.create(tmp_path / "p.zarr", canvas=canvas, labels=labels, layers=layers, band_px=256)
    values = np.full((256, SIZE.width), fill, dtype=np.uint8)
    store.write("classes", store.shard(0, 0), values)
    values[:, 3] = 1
    store.write("classes", store.shard(1, 0), values)

    build_pyramid(store, workers=1)

    assert [store.shard_path("classes", store.shard(band, 0)).exists() for band in range(3)] == [False, True, False]
    for level in range(store.levels):
        coarse = store.read("classes", _whole(store.level_size(level)), level=level)
        assert set(np.unique(coarse)) == ({fill, 1} if level == 0 else {fill})
    assert not store.read("uncertainty", canvas.window).any()
    label = json.loads((tmp_path / "p.zarr/labels/classes/zarr.json").read_text())["attributes"]["ome"]["image-label"]
    assert ({"label-value": 254, "class": "No class"} in label["properties"]) is (fill == 254)
    assert (254 in {colour["label-value"] for colour in label["colors"]}) is (fill == 254)


@pytest.mark.parametrize("mpp", [0.5, None])
def test_the_store_is_valid_ome_zarr(tmp_path: Path, mpp: float | None) -> None:
    make(tmp_path / "p.zarr", mpp=mpp)

    image = Image.from_zarr(zarr.open_group(tmp_path / "p.zarr", mode="r"))

    assert image.labels is not None
    assert image.labels.label_paths == ["classes", "instances"]
    axes = image.ome_attributes.multiscales[0].axes
    assert [axis.unit for axis in axes] == ["micrometer" if mpp else None] * 2
    label = json.loads((tmp_path / "p.zarr/labels/classes/zarr.json").read_text())["attributes"]["ome"]["image-label"]
    assert {"label-value": 1, "class": "tumour"} in label["properties"]
    assert {"label-value": 255, "class": "Not analysed"} in label["properties"]


@pytest.mark.parametrize(
    ("layers", "planes", "shown"),
    [
        (("classes", "uncertainty", "probability"), ["background", "tumour", "stroma"], [False, True, True]),
        (("classes", "uncertainty", "instances", "probability"), ["object"], [True]),
    ],
)
def test_probabilities_lie_beside_the_labels_as_an_image_with_a_named_channel_for_each_class(
    tmp_path: Path, layers: tuple[Layer, ...], planes: list[str], shown: list[bool]
) -> None:
    path, canvas = tmp_path / "p.zarr", Canvas(SIZE, Scale(1.0), 0.5)
    store = MaskStore.create(path, canvas=canvas, labels=LABELS, layers=layers, band_px=256)
    shape = (len(planes), SIZE.height, SIZE.width)
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    values[:, :256] = 0
    for band in range(store.bands):
        store.write("probability", store.shard(band, 0), values[..., *store.shard(band, 0).slices])
    build_pyramid(store, workers=1)

    store = MaskStore.open(path)
    part = Window(1, 250, 30, 20)
    np.testing.assert_array_equal(store.read("probability", part), values[..., *part.slices])
    for level in range(store.levels):
        coarse = store.read("probability", _whole(store.level_size(level)), level=level)
        np.testing.assert_array_equal(coarse, values[:, :: 2**level, :: 2**level])
    written = [store.shard_path("probability", store.shard(band, 0)) for band in range(store.bands)]
    assert [file.exists() for file in written] == [False, *[True] * (store.bands - 1)]
    image = Image.from_zarr(zarr.open_group(path / "probability", mode="r"))
    (pyramid,) = image.ome_attributes.multiscales
    assert [axis.name for axis in pyramid.axes] == ["c", "y", "x"]
    scales = [dataset.coordinateTransformations[0] for dataset in pyramid.datasets]
    assert [scale.model_dump()["scale"] for scale in scales[:2]] == [[1, 0.5, 0.5], [1, 1, 1]]
    channels = json.loads((path / "probability/zarr.json").read_text())["attributes"]["ome"]["omero"]["channels"]
    assert [(channel["label"], channel["active"]) for channel in channels] == list(zip(planes, shown, strict=True))
    colours = [bytes(label.colour).hex().upper() for label in LABELS.labels]
    assert [channel["color"] for channel in channels] == (colours if len(planes) > 1 else ["FFFFFF"])
    labels = Image.from_zarr(zarr.open_group(path, mode="r")).labels
    assert labels is not None
    assert "probability" not in labels.label_paths


def test_equal_contents_give_equal_bytes(tmp_path: Path) -> None:
    digests = []
    for name in ("a.zarr", "b.zarr"):
        store = make(tmp_path / name)
        fill(store, blobs(store.canvas.size))
        files = sorted(file for file in (tmp_path / name).rglob("*") if file.is_file())
        digests.append(
            [(str(file.relative_to(tmp_path / name)), hashlib.sha256(file.read_bytes()).digest()) for file in files]
        )

    assert digests[0] == digests[1]


def test_creating_twice_opens_the_first_unless_it_is_another(tmp_path: Path) -> None:
    fill(make(tmp_path / "p.zarr"), blobs(SIZE))

    assert make(tmp_path / "p.zarr").read("instances", Window(200, 300, 1, 1))[0, 0] == 70_000
    with pytest.raises(StoreError, match="another prediction"):
        make(tmp_path / "p.zarr", size=Size(10, 10))


def test_a_missing_or_foreign_or_newer_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no prediction"):
        MaskStore.open(tmp_path / "none.zarr")
    zarr.open_group(tmp_path / "foreign.zarr", mode="w")
    with pytest.raises(StoreError, match="schema version None"):
        MaskStore.open(tmp_path / "foreign.zarr")
    make(tmp_path / "newer.zarr")
    file = tmp_path / "newer.zarr/zarr.json"
    file.write_text(file.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(StoreError, match="schema version 99"):
        MaskStore.open(tmp_path / "newer.zarr")


def test_a_missing_layer_and_a_damaged_shard_are_errors(tmp_path: Path) -> None:
    canvas = Canvas(Size(600, 600), Scale(1.0), None)
    store = MaskStore.create(
        tmp_path / "p.zarr", canvas=canvas, labels=LABELS, layers=("classes", "uncertainty"), band_px=256
    )
    store.write("classes", store.shard(0, 0), np.ones((256, 600), dtype=np.uint8))
    shard = store.shard_path("classes", store.shard(0, 0))
    shard.write_bytes(shard.read_bytes()[:-20])

    with pytest.raises(StoreError, match="no layer instances"):
        store.read("instances", Window(0, 0, 10, 10))
    with pytest.raises(StoreError, match="damaged"):
        store.read("classes", Window(0, 0, 10, 10))


def test_a_tiny_canvas_works(tmp_path: Path) -> None:
    store = make(tmp_path / "p.zarr", size=Size(1, 1))
    store.write("classes", store.shard(0, 0), np.array([[2]], dtype=np.uint8))
    build_pyramid(store, workers=1)

    assert store.read("classes", Window(0, 0, 1, 1)).tolist() == [[2]]
