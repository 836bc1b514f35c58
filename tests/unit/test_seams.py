"""Seams are counted as they stand in the class map, whatever strips it is given in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.geometry import Canvas, Scale, Size, Window
from wsiseg.grid import Grid
from wsiseg.inference.measurements import count_classes
from wsiseg.inference.seams import SeamCounter, Seams, advice
from wsiseg.inference.walk import Walk

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.inference.blending import Blend

NONE = Seams(across=0, across_changes=0, inside=0, inside_changes=0)


def counted(classes: NDArray[np.uint8], core: int, analysed: NDArray[np.bool_], rows: int) -> Seams:
    """Return the seams of a class map that is given in strips of so many rows."""
    counter = SeamCounter(core, lambda window: analysed[window.slices])
    for top in range(0, len(classes), rows):
        window = Window(0, top, classes.shape[1], min(rows, len(classes) - top))
        counter.add(window, classes[window.slices])
    return counter.found


def one_by_one(classes: NDArray[np.uint8], core: int, analysed: NDArray[np.bool_]) -> Seams:
    """Return the same, pair by pair."""
    found = {"across": 0, "across_changes": 0, "inside": 0, "inside_changes": 0}
    height, width = classes.shape
    has_class = analysed & (classes < 254)
    for y, x in np.ndindex(height, width):
        for there, place in (((y, x + 1), x + 1), ((y + 1, x), y + 1)):
            if there[0] < height and there[1] < width and has_class[y, x] and has_class[there]:
                kind = "across" if place % core == 0 else "inside"
                found[kind] += 1
                found[f"{kind}_changes"] += int(classes[y, x] != classes[there])
    return Seams(**found)


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 12), st.integers(1, 9), st.integers(0, 99))
def test_any_strips_give_what_counting_pair_by_pair_gives(
    width: int, height: int, core: int, rows: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    classes = rng.choice(np.array([0, 1, 2, 253, 254, 255], dtype=np.uint8), (height, width))
    analysed = rng.random((height, width)) < 0.9

    assert counted(classes, core, analysed, rows) == one_by_one(classes, core, analysed)


def test_seams_are_counted_in_the_pass_that_measures() -> None:
    classes = np.random.default_rng(0).integers(0, 3, (50, 60)).astype(np.uint8)
    everywhere = np.ones(classes.shape, dtype=np.bool_)
    canvas = Canvas(Size(60, 50), Scale(1.0), None)
    reads: list[Window] = []
    counter = SeamCounter(7, lambda window: everywhere[window.slices])

    def read(window: Window) -> NDArray[np.uint8]:
        reads.append(window)
        return classes[window.slices]

    with_seams = count_classes(read, canvas, seams=counter)

    assert sum(window.size.area for window in reads) == classes.size
    np.testing.assert_array_equal(with_seams, count_classes(read, canvas))
    assert counter.found == one_by_one(classes, 7, everywhere)


def test_labels_that_know_nothing_of_tiles_change_as_often_anywhere() -> None:
    classes = np.random.default_rng(0).integers(0, 3, (400, 400)).astype(np.uint8)

    seams = counted(classes, 20, np.ones(classes.shape, dtype=np.bool_), 64)

    assert seams.ratio == pytest.approx(1, abs=0.02)
    assert not seams.are_visible


def test_one_label_to_a_tile_changes_at_seams_alone() -> None:
    classes = np.kron(np.indices((10, 10)).sum(axis=0) % 2, np.ones((20, 20))).astype(np.uint8)

    seams = counted(classes, 20, np.ones(classes.shape, dtype=np.bool_), 64)

    assert seams.told() == {"ratio": None, "across": 1.0, "inside": 0.0}
    assert seams.are_visible


def test_nothing_to_compare_is_unknown() -> None:
    assert NONE.told() == {"ratio": None, "across": None, "inside": None}
    assert not NONE.are_visible


@pytest.mark.parametrize(("changes", "is_told"), [(49, False), (50, True)])
def test_a_few_changes_may_be_chance(changes: int, *, is_told: bool) -> None:
    assert Seams(across=100, across_changes=changes, inside=1000, inside_changes=100).are_visible == is_told


@pytest.mark.parametrize(
    ("halo", "blend", "expected"),
    [
        (8, "none", "labels change 5.0 times as often across the borders of tiles as inside; pass --blend gaussian"),
        (8, "gaussian", "raise --overlap, up to 0.5"),
        (16, "hann", "overlap by half already"),
    ],
)
def test_what_is_said_mends_it(halo: int, blend: Blend, expected: str) -> None:
    size = Size(100, 100)
    walk = Walk(grid=Grid(size, Size(32, 32), halo), reach_px=0, margin_px=0, band_px=32)

    assert expected in advice(Seams(across=100, across_changes=50, inside=100, inside_changes=10), walk, blend)
    alone = advice(Seams(across=100, across_changes=50, inside=100, inside_changes=0), walk, blend)
    assert alone.startswith("labels change across the borders of tiles alone; ")
