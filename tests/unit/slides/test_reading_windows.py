"""Windows read together are those read one by one."""

from __future__ import annotations

import numpy as np
import pytest

from wsiseg.errors import UnreadableError
from wsiseg.geometry import Canvas, Size, Window
from wsiseg.slides.array import ArraySlide
from wsiseg.slides.reading import read_window, read_windows

PIXELS = np.random.default_rng(0).integers(0, 256, (200, 240, 3), dtype=np.uint8)
NEAR = [Window(x, y, 32, 32) for y in range(-8, 60, 16) for x in range(-8, 90, 16)]
FAR = [Window(0, 0, 8, 8), Window(100, 90, 8, 8)]


@pytest.mark.parametrize("windows", [NEAR, FAR, NEAR[:1], []], ids=len)
@pytest.mark.parametrize("mpp", [0.5, 0.7, 0.3])
def test_together_or_alone_makes_no_difference(windows: list[Window], mpp: float) -> None:
    slide = ArraySlide(PIXELS, mpp=0.5, downsamples=(2,))
    canvas = Canvas.over(slide.info.size, slide_mpp=0.5, mpp=mpp)

    together = read_windows(slide, canvas, windows)

    assert len(together) == len(windows)
    for window, pixels in zip(windows, together, strict=True):
        assert isinstance(pixels, np.ndarray)
        np.testing.assert_array_equal(pixels, read_window(slide, canvas, window))


def test_only_windows_on_damage_are_lost() -> None:
    slide = ArraySlide(PIXELS, broken=[Window(40, 40, 4, 4)])
    canvas = Canvas.over(Size(240, 200), slide_mpp=None, mpp=None)
    damage = Window(40, 40, 4, 4)

    together = read_windows(slide, canvas, NEAR)

    for window, pixels in zip(NEAR, together, strict=True):
        assert isinstance(pixels, UnreadableError) is not window.intersection(damage).is_empty
