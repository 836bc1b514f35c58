"""Damaged places: as little as possible is lost around what a slide cannot give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.errors import UnreadableError
from wsiseg.geometry import Window
from wsiseg.slides.reading import read_window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wsiseg.geometry import Canvas
    from wsiseg.slides.base import Slide

# A window of this side that cannot be read is given up; smaller ones would be tried too often.
_SMALLEST_PX: Final = 64
# Of a window that cannot be read, a block of the smallest size is tried every so many of its sides.
_PROBE_EVERY: Final = 4
# Labels so close to pixels that are missing depend on them too much to be told.
_MARGIN_PX: Final = 16


def read_around_holes(slide: Slide, canvas: Canvas, window: Window) -> tuple[NDArray[np.uint8], list[Window]]:
    """Return the pixels of a window, and the parts of it that cannot be read.

    What cannot be read as a whole is read in quarters, down to 64 px. If no block of 64 px, of which one is tried at
    least every 256 px, can be read, all is given up: 26 reads, not 341, for a window of 1024 px on a lost slide. Within
    a window that is lost otherwise, readable parts narrower than 320 px may be given up with it.

    Parameters
    ----------
    slide, canvas, window
        As for `read_window`.

    Returns
    -------
    tuple[NDArray[np.uint8], list[Window]]
        RGB (H, W, 3), the slide's background in the holes; and the holes, in canvas pixels.
    """
    pixels = np.empty((window.height, window.width, 3), dtype=np.uint8)
    pixels[:] = slide.info.background
    holes = []
    parts = [window]
    while parts:
        part = parts.pop()
        try:
            pixels[part.within(window).slices] = read_window(slide, canvas, part)
        except UnreadableError:
            if max(part.width, part.height) <= _SMALLEST_PX or _is_lost(slide, canvas, part):
                holes.append(part)
            else:
                parts += _quarters(part)
    return pixels, holes


def not_analysed(holes: Sequence[Window], core: Window) -> list[Window]:
    """Return what holes take of a cell: they and a margin of 16 px, whose labels depend on them.

    Parameters
    ----------
    holes
        All of those in the cell's tile.
    core
        The cell.
    """
    grown = [hole.grown(_MARGIN_PX).intersection(core) for hole in holes]
    lost = [part for part in grown if not part.is_empty]
    return [core] if union(lost, core).all() else lost


def union(parts: Sequence[Window], window: Window) -> NDArray[np.bool_]:
    """Return which pixels of `window` lie in any of `parts`, (H, W)."""
    mask = np.zeros((window.height, window.width), dtype=np.bool_)
    for part in parts:
        inside = part.intersection(window)
        if not inside.is_empty:
            mask[inside.within(window).slices] = True
    return mask


def _is_lost(slide: Slide, canvas: Canvas, window: Window) -> bool:
    """Tell whether no probe can be read; small windows are not probed, as it would cost more than it spares."""
    if max(window.width, window.height) <= _PROBE_EVERY * _SMALLEST_PX:
        return False
    for y in _probes(window.height):
        for x in _probes(window.width):
            block = Window(window.x + x, window.y + y, _SMALLEST_PX, _SMALLEST_PX).intersection(window)
            try:
                read_window(slide, canvas, block)
            except UnreadableError:
                continue
            return False
    return True


def _probes(length: int) -> list[int]:
    """Return where probes begin: at both ends, and evenly between."""
    last = max(0, length - _SMALLEST_PX)
    steps = -(-length // (_PROBE_EVERY * _SMALLEST_PX))
    return sorted({last * step // steps for step in range(steps + 1)})


def _quarters(window: Window) -> list[Window]:
    x, y = window.x + (window.width + 1) // 2, window.y + (window.height + 1) // 2
    quarters = (
        Window.from_edges(window.x, window.y, x, y),
        Window.from_edges(x, window.y, window.right, y),
        Window.from_edges(window.x, y, x, window.bottom),
        Window.from_edges(x, y, window.right, window.bottom),
    )
    return [quarter for quarter in quarters if not quarter.is_empty]
