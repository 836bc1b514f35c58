"""Boxes are half-open and the two frames meet in one place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.geometry import Canvas, Region, Scale, Size, Window

downsamples = st.floats(0.1, 64, allow_nan=False)
places = st.integers(-5000, 5000)


@given(downsamples, places, st.integers(1, 600), st.integers(1, 600))
def test_windows_that_touch_give_regions_that_touch(downsample: float, x: int, first: int, second: int) -> None:
    scale = Scale(downsample)

    left = scale.region(Window(x, 0, first, 10))
    right = scale.region(Window(x + first, 0, second, 10))

    assert left.right == right.x


@given(st.integers(1, 5000), st.integers(1, 5000), st.floats(0.1, 4), st.floats(0.1, 4))
def test_a_canvas_covers_its_slide_and_no_more_than_one_pixel_beyond(
    width: int, height: int, slide_mpp: float, mpp: float
) -> None:
    canvas = Canvas.over(Size(width, height), slide_mpp=slide_mpp, mpp=mpp)
    downsample = mpp / slide_mpp

    assert canvas.size.width * downsample >= width - 1e-6 * downsample
    assert canvas.size.width == 1 or (canvas.size.width - 1) * downsample < width
    assert canvas.size.height * downsample >= height - 1e-6 * downsample


def test_a_canvas_without_a_target_is_the_slide_itself() -> None:
    assert Canvas.over(Size(7, 5), slide_mpp=None, mpp=None) == Canvas(Size(7, 5), Scale(1.0), None)


def test_a_target_resolution_needs_the_slides_own() -> None:
    with pytest.raises(ValueError, match="target resolution"):
        Canvas.over(Size(7, 5), slide_mpp=None, mpp=0.5)


def test_boxes_that_do_not_meet_share_an_empty_box() -> None:
    assert Window(0, 0, 4, 4).intersection(Window(4, 0, 4, 4)).is_empty
    assert not Region(0, 0, 4, 4).intersection(Region(3, 3, 4, 4)).is_empty
