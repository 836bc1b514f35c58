"""Drawn areas have the pixels whose centres they hold; boxes become windows as `Scale` says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.annotations.scanlines import Scanlines
from wsiseg.geometry import Region, Scale, Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = Window(3, 2, 14, 11)
# Centres of pixels lie at halves; an outline through one may take it or leave it.
place = st.integers(-8, 80).map(lambda quarter: quarter / 4 + 0.1)
hull = (
    st.lists(st.tuples(place, place), min_size=3, max_size=8)
    .map(lambda points: shapely.MultiPoint(points).convex_hull)
    .filter(lambda area: area.area > 1)
)
# A box within the window's reach, odd numbers of level-0 pixels included.
region = st.builds(Region, st.integers(-9, 40), st.integers(-9, 40), st.integers(1, 30), st.integers(1, 30))
downsample = st.sampled_from([1.0, 2.0, 4.0, 0.5, 3.968, 1.0 / 3]) | st.floats(0.4, 8)


def box(place: Region) -> shapely.Polygon:
    return shapely.box(place.x, place.y, place.right, place.bottom)


def covered(window: Window, inner: Window) -> NDArray[np.bool_]:
    found = np.zeros((window.height, window.width), dtype=np.bool_)
    found[window.intersection(inner).within(window).slices] = True
    return found


@settings(max_examples=100)
@given(st.lists(st.tuples(hull, hull), min_size=1, max_size=4), st.sampled_from([1.0, 2.0, 0.5]))
def test_a_pixel_belongs_to_the_last_area_that_holds_its_centre(
    pairs: list[tuple[shapely.Polygon, shapely.Polygon]], downsample: float
) -> None:
    # With holes, in parts, and empty where the second hull holds the first.
    areas = [shapely.difference(one, other) for one, other in pairs]
    y, x = (np.mgrid[WINDOW.slices] + 0.5) * downsample
    expected = np.zeros(x.shape, dtype=np.int32)
    unclear = np.zeros(x.shape, dtype=np.bool_)
    for number, area in enumerate(areas, start=1):
        expected[shapely.contains_xy(area, x, y)] = number
        unclear |= shapely.dwithin(shapely.points(x, y), shapely.boundary(area), 1e-6)

    drawn = Scanlines(areas, Scale(downsample)).draw(WINDOW)

    np.testing.assert_array_equal(drawn.top[~unclear], expected[~unclear])
    assert set(np.unique(drawn.top)) - {0} <= set(drawn.areas.tolist())


@settings(max_examples=200)
@given(region, downsample)
def test_a_box_becomes_the_window_that_scale_gives(place: Region, downsample: float) -> None:
    scale = Scale(downsample)

    drawn = Scanlines([box(place)], scale).draw(WINDOW)

    np.testing.assert_array_equal(drawn.top == 1, covered(WINDOW, scale.window(place)))


@settings(max_examples=50)
@given(st.lists(st.tuples(place, place), min_size=2, max_size=9, unique=True), downsample)
def test_of_areas_that_touch_exactly_one_has_each_pixel(points: list[tuple[float, float]], downsample: float) -> None:
    frame = shapely.box(-9, -9, 200, 200)
    parts = shapely.get_parts(shapely.voronoi_polygons(shapely.MultiPoint(points), extend_to=frame))
    scanlines = [Scanlines([part], Scale(downsample)) for part in parts]

    count = sum((one.draw(WINDOW).top for one in scanlines), np.zeros((WINDOW.height, WINDOW.width), np.int32))

    np.testing.assert_array_equal(count, 1)


@settings(max_examples=50)
@given(st.lists(hull, min_size=1, max_size=4), st.integers(1, 13), st.integers(1, 10))
def test_windows_side_by_side_hold_what_one_window_holds(areas: list[shapely.Polygon], width: int, height: int) -> None:
    scanlines = Scanlines(areas, Scale(1.3), origin=(2, 1))
    whole = scanlines.draw(WINDOW).top
    left, right = Window(3, 2, width, 11), Window(3 + width, 2, 14 - width, 11)
    above, below = Window(3, 2, 14, height), Window(3, 2 + height, 14, 11 - height)

    np.testing.assert_array_equal(np.hstack([scanlines.draw(left).top, scanlines.draw(right).top]), whole)
    np.testing.assert_array_equal(np.vstack([scanlines.draw(above).top, scanlines.draw(below).top]), whole)


def test_what_lies_below_others_is_told() -> None:
    areas = [shapely.box(0, 0, 6, 6), shapely.box(4, 4, 8, 8), shapely.box(5, 5, 5.2, 5.2), shapely.box(90, 90, 95, 95)]

    drawn = Scanlines(areas, Scale(1.0)).draw(Window(0, 0, 10, 10))

    # The third is too small to hold the centre of a pixel, and the last lies elsewhere.
    assert drawn.areas.tolist() == [1, 2]
    assert drawn.is_covered.tolist() == [True, False]
    assert (drawn.top == 1).sum() == 32


def test_nothing_can_be_drawn() -> None:
    drawn = Scanlines([], Scale(1.0)).draw(Window(0, 0, 3, 2))

    assert drawn.top.shape == (2, 3)
    assert not drawn.top.any()
    assert len(drawn.areas) == 0
