"""A table of objects keeps every value, on disk as in memory, and refuses what is no table."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from wsiseg.errors import DataError
from wsiseg.objects import ROW, Objects

if TYPE_CHECKING:
    from pathlib import Path


def _two_objects() -> Objects:
    instances = np.zeros((6, 8), dtype=np.int32)
    instances[1:3, 2:6] = 7
    instances[5, 7] = 3
    return Objects.measured(instances, x=100, y=200)


def test_objects_are_measured_by_the_corner_convention() -> None:
    objects = _two_objects()

    assert objects.id.tolist() == [3, 7]
    assert objects.area_px.tolist() == [1, 8]
    assert (objects.cx.tolist(), objects.cy.tolist()) == ([107.5, 104.0], [205.5, 202.0])
    assert (objects.x0.tolist(), objects.x1.tolist()) == ([107, 102], [108, 106])
    assert (objects.y0.tolist(), objects.y1.tolist()) == ([205, 201], [206, 203])


def test_a_saved_table_comes_back_and_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    objects = _two_objects()
    objects.save(tmp_path / "a.npy")
    Objects.concat([objects[:1], objects[1:]]).save(tmp_path / "b.npy")

    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert Objects.load(tmp_path / "a.npy").to_rows().tobytes() == objects.to_rows().tobytes()


def test_tables_are_joined_without_a_third_copy() -> None:
    rows = np.zeros(50_000, dtype=ROW)
    rows["id"] = np.arange(1, len(rows) + 1)
    parts = [Objects.from_rows(part) for part in np.array_split(rows, 5)]

    tracemalloc.start()
    joined = Objects.concat(parts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert joined.to_rows().tobytes() == rows.tobytes()
    assert peak < 1.2 * rows.nbytes


def test_no_objects_are_a_table_too(tmp_path: Path) -> None:
    Objects.concat([]).save(tmp_path / "none.npy")

    assert len(Objects.load(tmp_path / "none.npy")) == 0
    assert len(Objects.measured(np.zeros((4, 4), dtype=np.int32))) == 0


@pytest.mark.parametrize("content", [b"", b"not an array", b"\x93NUMPY\x01\x00"])
def test_a_damaged_table_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "objects.npy").write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        Objects.load(tmp_path / "objects.npy")


def test_another_array_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", np.zeros(3))
    with pytest.raises(DataError, match="not a table of objects"):
        Objects.load(tmp_path / "other.npy")
    with pytest.raises(DataError, match="no such table"):
        Objects.load(tmp_path / "missing.npy")


def test_columns_of_unequal_length_are_a_programming_error() -> None:
    objects = _two_objects()
    with pytest.raises(ValueError, match="equally long"):
        Objects(**{name: getattr(objects, name) for name in Objects.__slots__ if name != "id"}, id=objects.id[:1])
