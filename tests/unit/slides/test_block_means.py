"""Whole-number downsamples are exact block means, at any size of block."""

from __future__ import annotations

import numpy as np
import pytest

from wsiseg.geometry import Canvas, Window
from wsiseg.slides.array import ArraySlide
from wsiseg.slides.reading import read_window


@pytest.mark.parametrize("side", [2, 3, 16, 17, 24])
@pytest.mark.parametrize("brightest", [1, 256])
def test_means_are_rounded_and_never_overflow(side: int, brightest: int) -> None:
    pixels = 255 - np.random.default_rng(side).integers(0, brightest, (side * 4, side * 5, 3), dtype=np.uint8)
    slide = ArraySlide(pixels, mpp=0.25)
    canvas = Canvas.over(slide.info.size, slide_mpp=0.25, mpp=0.25 * side)

    result = read_window(slide, canvas, Window(0, 0, 5, 4))

    means = pixels.reshape(4, side, 5, side, 3).mean((1, 3))
    np.testing.assert_array_equal(result, np.floor(means + 0.5))
    np.testing.assert_array_equal(read_window(slide, canvas, Window(2, 1, 2, 2)), result[1:3, 2:4])
