"""A store of volumes gives back what was put in, whole and in parts, or says what is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.volume_makers import make_case
from wsiseg.errors import StoreError
from wsiseg.labels import LabelMap
from wsiseg.stores.patch_store import PatchStore
from wsiseg.stores.volume_store import (
    VolumeEntry,
    VolumeItem,
    VolumeMeta,
    VolumeStore,
    is_volume_store,
    write_volume_store,
)
from wsiseg.volumes import IntensityRule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHAPES = ((12, 70, 9), (5, 6, 7), (3, 3, 3))
CASES = [make_case(number, shape) for number, shape in enumerate(SHAPES)]
META = VolumeMeta(
    labels=LabelMap.from_names(("background", "head", "tail")), intensities=IntensityRule(clip=None), fingerprint="abc"
)


def items() -> Iterator[VolumeItem]:
    """Yield three volumes, of which the last has no labels."""
    for number, (voxels, labels) in enumerate(CASES):
        is_labelled = number < 2
        entry = VolumeEntry(
            name=f"case{number}",
            group=f"patient{number // 2}",
            split=("train", "val", "")[number],
            is_labelled=is_labelled,
            shape=SHAPES[number],
            start=(0, 1, 2),
            whole=(20, 80, 20),
            spacing_mm=(3.0, 1.0, 1.0),
        )
        yield VolumeItem(entry=entry, voxels=voxels, labels=labels if is_labelled else None)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> VolumeStore:
    path = tmp_path_factory.mktemp("stores") / "volumes.zarr"
    write_volume_store(path, META, items())
    return VolumeStore.open(path)


@pytest.mark.parametrize("index", range(3))
def test_the_least_intensity_is_that_of_the_whole_volume(store: VolumeStore, index: int) -> None:
    assert store.lowest(index) == store.lowest(index) == CASES[index][0].min()


def test_volumes_come_back_as_they_were(store: VolumeStore) -> None:
    for index, (voxels, labels) in enumerate(CASES):
        found = store.read_voxels(index)
        np.testing.assert_array_equal(found, voxels)
        assert found.dtype == np.float32
        if index < 2:
            np.testing.assert_array_equal(store.read_labels(index), labels)
            assert store.read_labels(index).dtype == np.uint8


@settings(max_examples=20)
@given(st.tuples(*(st.tuples(st.integers(0, side), st.integers(0, side)) for side in SHAPES[0])))
def test_any_box_is_a_part_of_the_whole(store: VolumeStore, ends: tuple[tuple[int, int], ...]) -> None:
    depth, height, width = (slice(min(pair), max(pair)) for pair in ends)
    box = (depth, height, width)

    np.testing.assert_array_equal(store.read_voxels(0, box), CASES[0][0][box])
    np.testing.assert_array_equal(store.read_labels(0, box), CASES[0][1][box])


def test_what_is_known_of_volumes_comes_back(store: VolumeStore) -> None:
    assert len(store) == 3
    assert store.meta == META.model_copy(update={"volumes": tuple(item.entry for item in items())})
    assert store.groups.tolist() == ["patient0", "patient0", "patient1"]
    assert store.splits.tolist() == ["train", "val", ""]
    assert store.is_labelled().tolist() == [True, True, False]


def test_a_volume_without_labels_has_none_to_read(store: VolumeStore) -> None:
    with pytest.raises(StoreError, match="case2 has no labels"):
        store.read_labels(2)


def test_nothing_is_left_of_a_store_that_was_not_finished(tmp_path: Path) -> None:
    def broken() -> Iterator[VolumeItem]:
        yield next(items())
        raise RuntimeError("the disk is on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        write_volume_store(tmp_path / "volumes.zarr", META, broken())

    assert list(tmp_path.iterdir()) == []


def test_the_two_kinds_of_stores_are_told_apart(store: VolumeStore, tmp_path: Path) -> None:
    assert is_volume_store(store.path)
    assert not is_volume_store(tmp_path)
    with pytest.raises(StoreError, match="not a patch store"):
        PatchStore.open(store.path)
    with pytest.raises(StoreError, match=r"no such store.*--layout volumes"):
        VolumeStore.open(tmp_path / "nothing.zarr")


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("kind", "patches", "not a store of volumes"),
        ("schema_version", 7, "schema version 7"),
        ("fingerprint", None, "attributes are damaged: fingerprint"),
    ],
)
def test_a_store_that_is_of_no_use_says_why(tmp_path: Path, key: str, value: object, told: str) -> None:
    write_volume_store(tmp_path / "volumes.zarr", META, items())
    about = tmp_path / "volumes.zarr" / "zarr.json"
    content = json.loads(about.read_text(encoding="utf-8"))
    content["attributes"]["wsiseg"][key] = value
    about.write_text(json.dumps(content), encoding="utf-8")

    with pytest.raises(StoreError, match=told):
        VolumeStore.open(tmp_path / "volumes.zarr")


def test_damaged_bytes_are_told(tmp_path: Path) -> None:
    write_volume_store(tmp_path / "volumes.zarr", META, items())
    chunk = tmp_path / "volumes.zarr" / "images" / "0" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:100])

    with pytest.raises(StoreError, match="images/0 is damaged"):
        VolumeStore.open(tmp_path / "volumes.zarr").read_voxels(0)
