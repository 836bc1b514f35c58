"""Votes of pixels become whole objects."""

from __future__ import annotations

import numpy as np
import pytest

from wsiseg.heads.base import Instances
from wsiseg.heads.tidying import mean_in_objects, tidied


def test_the_largest_part_stays_and_strays_go() -> None:
    labels = np.array([[5, 5, 0, 0], [5, 0, 0, 5], [0, 0, 7, 0], [0, 0, 7, 7]], dtype=np.int32)

    tidy, ids = tidied(labels, min_area_px=1)

    assert tidy.tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 2, 0], [0, 0, 2, 2]]
    assert ids.tolist() == [5, 7]
    assert tidy.dtype == np.int32


def test_holes_and_enclosed_strays_are_filled_but_not_notches_and_neighbours() -> None:
    labels = np.ones((7, 9), dtype=np.int32)
    labels[0], labels[-1], labels[:, 0], labels[:, -1] = 0, 0, 0, 0
    labels[2, 2] = 0
    labels[4, 2] = 2
    labels[1, 5] = 0
    labels[3:6, 7] = 2

    tidy, _ = tidied(labels, min_area_px=1)

    assert tidy[2, 2] == tidy[4, 2] == 1
    assert tidy[1, 5] == 0
    assert (tidy[3:6, 7] == 2).all()


def test_the_border_closes_no_hole_and_large_holes_stay() -> None:
    labels = np.ones((9, 9), dtype=np.int32)
    labels[1:8, 1:8] = 0
    labels[0, 4:6] = 2
    labels[0, 8] = 0

    tidy, _ = tidied(labels, min_area_px=1)

    assert tidy[0, 8] == 0
    assert (tidy[0, 4:6] == 2).all()
    assert not tidy[1:8, 1:8].any()


def test_small_objects_go_and_an_empty_map_stays_empty() -> None:
    labels = np.array([[3, 3, 0, 4]], dtype=np.int32)

    tidy, ids = tidied(labels, min_area_px=2)

    assert tidy.tolist() == [[1, 1, 0, 0]]
    assert ids.tolist() == [3]
    assert tidied(np.zeros((3, 0), dtype=np.int32), min_area_px=1)[0].shape == (3, 0)


def test_means_are_taken_in_each_object() -> None:
    values = np.array([[1, 2, 4, 100]], dtype=np.float32)

    assert mean_in_objects(values, np.array([[1, 1, 2, 0]], dtype=np.int32)).tolist() == [1.5, 4]


def test_a_table_refuses_ids_with_gaps() -> None:
    labels = np.array([[1, 0, 3]], dtype=np.int32)

    with pytest.raises(ValueError, match=r"not 1 … 2"):
        Instances.from_labels(labels, np.ones(2, dtype=np.float32))
    with pytest.raises(ValueError, match=r"not 1 … 3"):
        Instances.from_labels(labels, np.ones(3, dtype=np.float32))
