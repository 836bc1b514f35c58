"""A pixel's value depends on its own place, not on the window that it was read through."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.geometry import Canvas, Size, Window
from wsiseg.slides.array import ArraySlide
from wsiseg.slides.reading import best_level, read_window

PIXELS = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
SLIDE = ArraySlide(PIXELS, mpp=0.25, downsamples=(2, 4))


@given(st.floats(0.1, 3.0), st.data())
def test_windows_agree_where_they_overlap(mpp: float, data: st.DataObject) -> None:
    canvas = Canvas.over(SLIDE.info.size, slide_mpp=0.25, mpp=mpp)
    whole = read_window(SLIDE, canvas, canvas.window)
    x = data.draw(st.integers(0, canvas.size.width - 1))
    y = data.draw(st.integers(0, canvas.size.height - 1))
    window = Window(x, y, data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30)))

    part = read_window(SLIDE, canvas, window)

    inside = window.clipped(canvas.size)
    np.testing.assert_array_equal(part[inside.within(window).slices], whole[inside.slices])


def test_an_integer_downsample_is_a_block_mean() -> None:
    canvas = Canvas.over(Size(120, 90), slide_mpp=0.25, mpp=0.75)

    result = read_window(ArraySlide(PIXELS, mpp=0.25), canvas, canvas.window)

    blocks = PIXELS.reshape(30, 3, 40, 3, 3).mean((1, 3))
    np.testing.assert_allclose(result, blocks, atol=0.51)


@pytest.mark.parametrize(
    ("downsample", "level"), [(1.0, 0), (1.9, 0), (2.0, 1), (3.9, 1), (4.0, 2), (50.0, 2), (0.5, 0)]
)
def test_the_level_is_the_coarsest_that_is_fine_enough(downsample: float, level: int) -> None:
    assert best_level(SLIDE.info, downsample) == level


def test_outside_the_slide_lies_its_background() -> None:
    slide = ArraySlide(PIXELS, background=(10, 20, 30))
    canvas = Canvas.over(slide.info.size, slide_mpp=None, mpp=None)

    result = read_window(slide, canvas, Window(118, -2, 4, 4))

    assert (result[:2] == (10, 20, 30)).all()
    np.testing.assert_array_equal(result[2:, :2], PIXELS[:2, 118:])
