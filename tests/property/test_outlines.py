"""Outlines become the pixels whose centres they enclose, and where they overlap the first has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wsiseg.geometry import Size
from wsiseg.ingestion.outlines import draw_outlines

SIZE = Size(14, 11)
IMAGE = shapely.box(0, 0, SIZE.width, SIZE.height)
# Centres of pixels lie at halves; an outline through one may take it or leave it.
place = st.integers(-8, 64).map(lambda quarter: quarter / 4 + 0.1)
outline = st.lists(st.tuples(place, place), min_size=3, max_size=8).filter(
    lambda points: shapely.MultiPoint(points).convex_hull.area > 1
)


@settings(max_examples=25)
@given(st.lists(outline, min_size=1, max_size=4))
def test_a_pixel_belongs_to_the_first_outline_around_its_centre(outlines: list[list[tuple[float, float]]]) -> None:
    hulls = [shapely.MultiPoint(points).convex_hull for points in outlines]
    # One beyond the image tells that it is another image.
    assume(all(hull.intersects(IMAGE) for hull in hulls))
    y, x = np.mgrid[: SIZE.height, : SIZE.width] + 0.5
    expected = np.zeros(x.shape, dtype=np.int32)
    unclear = np.zeros(x.shape, dtype=np.bool_)
    for number, hull in reversed(list(enumerate(hulls, start=1))):
        expected[shapely.contains_xy(hull, x, y)] = number
        unclear |= shapely.dwithin(shapely.points(x, y), hull.exterior, 1e-6)

    drawn = draw_outlines([shapely.get_coordinates(hull) for hull in hulls], SIZE, where=Path("x.xml"))

    np.testing.assert_array_equal(drawn[~unclear], expected[~unclear])
