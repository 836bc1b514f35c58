"""Outlines are exact: they enclose the pixels of their region and no others, whatever the band height."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from wsiseg.geometry import Size
from wsiseg.inference.contours import trace
from wsiseg.inference.outlines import exact, measure, smooth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.inference.outlines import Outline
    from wsiseg.inference.rings import Rings

masks = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3))


def _traced(mask: NDArray[np.uint8], *, band_rows: int | None = None, shares_borders: bool = False) -> list[Rings]:
    size = Size(mask.shape[1], mask.shape[0])
    return list(trace(lambda window: mask[window.slices], size, shares_borders=shares_borders, band_rows=band_rows))


def _polygons(rings: Rings, outline: Outline) -> list[shapely.Polygon]:
    polygons = []
    for region in range(len(rings)):
        loops = [
            outline.points[outline.first[ring] : outline.first[ring + 1]]
            for ring in range(rings.region[region], rings.region[region + 1])
        ]
        polygons.append(shapely.Polygon(loops[0], loops[1:]))
    return polygons


def _described(parts: list[Rings]) -> list[tuple[int, int, str]]:
    return [
        (int(value), int(pixel), polygon.wkt)
        for rings in parts
        for value, pixel, polygon in zip(rings.value, rings.pixel, _polygons(rings, exact(rings)), strict=True)
    ]


@settings(max_examples=200)
@given(masks)
def test_the_polygons_of_a_mask_draw_the_mask(mask: NDArray[np.uint8]) -> None:
    drawn = np.zeros_like(mask)
    rows, columns = np.indices(mask.shape)
    for rings in _traced(mask):
        for value, area, polygon in zip(rings.value, rings.area_px, _polygons(rings, exact(rings)), strict=True):
            inside = shapely.contains_xy(polygon, columns + 0.5, rows + 0.5)
            assert polygon.is_valid
            assert polygon.area == area == inside.sum()
            assert not drawn[inside].any()
            drawn[inside] = value

    np.testing.assert_array_equal(drawn, mask)


@settings(max_examples=100)
@given(masks)
def test_each_region_is_a_set_of_pixels_that_touch_by_their_sides(mask: NDArray[np.uint8]) -> None:
    expected = []
    for value in np.unique(mask[mask > 0]):
        parts, count = ndimage.label(mask == value)
        expected += [(int(value), int(np.flatnonzero(parts == part + 1)[0])) for part in range(count)]

    found = [pair for rings in _traced(mask) for pair in zip(rings.value.tolist(), rings.pixel.tolist(), strict=True)]

    assert sorted(found) == sorted(expected)


@settings(max_examples=100)
@given(masks, st.integers(1, 6), st.booleans())
def test_the_height_of_the_bands_changes_nothing(
    mask: NDArray[np.uint8],
    band_rows: int,
    shares_borders: bool,  # noqa: FBT001 - drawn by Hypothesis
) -> None:
    whole = _traced(mask, shares_borders=shares_borders)
    banded = _traced(mask, shares_borders=shares_borders, band_rows=band_rows)

    assert _described(banded) == _described(whole)


@settings(max_examples=100)
@given(hnp.arrays(np.uint8, (12, 12), elements=st.integers(1, 3)))
def test_smoothed_neighbours_keep_their_common_border(mask: NDArray[np.uint8]) -> None:
    mask = np.kron(mask, np.ones((4, 4), dtype=np.uint8))
    (rings,) = _traced(mask, shares_borders=True)

    polygons = _polygons(rings, smooth(rings, tolerance=0.4))
    whole = shapely.union_all(polygons)

    # Only the corners of the canvas are cut off; between neighbours there is neither gap nor overlap.
    assert all(polygon.is_valid for polygon in polygons)
    assert sum(polygon.area for polygon in polygons) == whole.area
    assert mask.size - whole.area <= 4 * 0.125
    assert len(shapely.get_parts(whole)) == 1


@settings(max_examples=50)
@given(st.floats(6, 20), st.floats(0, 1), st.floats(0, 1))
def test_a_disc_is_measured_as_a_disc(radius: float, x: float, y: float) -> None:
    rows, columns = np.indices((48, 48)) + 0.5
    disc = ((columns - 24 - x) ** 2 + (rows - 24 - y) ** 2 < radius**2).astype(np.uint8)
    (rings,) = _traced(disc)

    measures = measure(rings)
    (outline,) = _polygons(rings, smooth(rings, tolerance=0.4))

    assert measures.area_px[0] == disc.sum()
    # Discs of 7 to 9 px whose centre is that of a pixel or a corner are worst, 5.6 % too long; two of 565 exceed 5 %.
    assert abs(measures.perimeter_px[0] / (2 * np.pi * radius) - 1) < 0.06
    assert measures.circularity[0] > 0.91
    assert measures.eccentricity[0] < 0.4
    assert abs(outline.area / disc.sum() - 1) < 0.03


def test_eccentricity_is_that_of_the_ellipse_with_the_same_moments() -> None:
    bar = np.zeros((8, 14), dtype=np.uint8)
    bar[2:5, 1:13] = 1
    bar[3, 4] = 2  # a hole
    (rings,) = _traced(bar)
    rows, columns = np.nonzero(bar == 1)
    # A pixel is a square, not a point: its own second moment is 1/12.
    moments = np.cov(np.stack([columns, rows]), bias=True) + np.eye(2) / 12
    small, large = np.linalg.eigvalsh(moments)

    eccentricity = measure(rings).eccentricity[rings.value == 1]

    np.testing.assert_allclose(eccentricity, np.sqrt(1 - small / large))


def test_an_outline_that_touches_itself_at_a_corner_becomes_an_exterior_and_a_hole() -> None:
    mask = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=np.uint8)
    (rings,) = _traced(mask)

    (polygon,) = _polygons(rings, exact(rings))

    assert polygon.is_valid
    assert (polygon.area, len(polygon.interiors)) == (7, 1)
