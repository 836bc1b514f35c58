"""Around damage little is lost, and what is lost as a whole is given up soon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from wsiseg.geometry import Canvas, Scale, Size, Window
from wsiseg.inference import holes
from wsiseg.inference.holes import read_around_holes, union
from wsiseg.slides.array import ArraySlide
from wsiseg.slides.reading import read_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.slides.base import Slide

SIDE = 1024
CANVAS = Canvas(Size(SIDE, SIDE), Scale(1.0), 0.5)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Window]:
    """Return a list that gets every window that is read."""
    windows: list[Window] = []

    def noting(slide: Slide, canvas: Canvas, window: Window) -> NDArray[np.uint8]:
        windows.append(window)
        return read_window(slide, canvas, window)

    monkeypatch.setattr(holes, "read_window", noting)
    return windows


def black_slide(*broken: Window) -> ArraySlide:
    return ArraySlide(np.zeros((SIDE, SIDE, 3), dtype=np.uint8), broken=broken)


def test_a_window_that_is_lost_as_a_whole_costs_few_reads(reads: list[Window]) -> None:
    pixels, lost = read_around_holes(black_slide(CANVAS.window), CANVAS, CANVAS.window)

    assert lost == [CANVAS.window]
    assert len(reads) <= 26
    assert (pixels == 255).all()


@pytest.mark.parametrize(("x", "y"), [(0, 0), (150, 620), (333, 333), (704, 704)])
def test_of_a_lost_window_a_readable_part_is_kept(x: int, y: int) -> None:
    # All but a square of 320 px.
    broken = (
        Window.from_edges(0, 0, SIDE, y),
        Window.from_edges(0, y + 320, SIDE, SIDE),
        Window.from_edges(0, y, x, y + 320),
        Window.from_edges(x + 320, y, SIDE, y + 320),
    )
    slide = black_slide(*(window for window in broken if not window.is_empty))

    pixels, lost = read_around_holes(slide, CANVAS, CANVAS.window)

    is_read = ~union(lost, CANVAS.window)
    assert is_read[y + 64 : y + 256, x + 64 : x + 256].all()
    assert (pixels[is_read] == 0).all()


def test_around_small_damage_only_blocks_of_64_px_are_lost(reads: list[Window]) -> None:
    _, lost = read_around_holes(black_slide(Window(500, 700, 3, 3)), CANVAS, CANVAS.window)

    assert lost == [Window(448, 640, 64, 64)]
    assert len(reads) < 30
