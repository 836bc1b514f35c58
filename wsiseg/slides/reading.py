"""Reading a window of a canvas from whatever level serves it best."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from wsiseg.errors import UnreadableError
from wsiseg.geometry import Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from wsiseg.geometry import Canvas
    from wsiseg.slides.base import Slide, SlideInfo

# Grids that drift apart by less than this up to the far edge are taken for one.
TOLERANCE_PX = 0.01
# A block is read whole if that takes in no more pixels than this many times those asked for.
MAX_GAPS = 1.1


def best_level(info: SlideInfo, downsample: float) -> int:
    """Return the coarsest level that is no coarser than `downsample` level-0 pixels per pixel."""
    # A level 0.1 % too coarse is an encoder's rounding (4.0003 for 4), not a loss of detail.
    fits = [index for index, level in enumerate(info.levels) if level.downsample <= downsample * 1.001]
    return max(fits, key=lambda index: info.levels[index].downsample, default=0)


def exact_level(info: SlideInfo, canvas: Canvas) -> int | None:
    """Return the level whose pixels are those of the canvas, or None where they must be resampled."""
    index = best_level(info, canvas.scale.downsample)
    factor = canvas.scale.downsample / info.levels[index].downsample
    return index if abs(factor - 1) * max(canvas.size.width, canvas.size.height) < TOLERANCE_PX else None


def read_window(slide: Slide, canvas: Canvas, window: Window) -> NDArray[np.uint8]:
    """Return the pixels of `window` on `canvas`.

    A canvas pixel is the area-weighted mean of the level pixels under it, fractions of
    pixels included, so its value depends on its own place alone: windows that overlap
    agree where they do. A canvas finer than level 0 is interpolated linearly.

    Parameters
    ----------
    slide
        Where the pixels come from.
    canvas
        The grid, as made by `Canvas.over`.
    window
        In canvas pixels; may reach beyond the canvas.

    Returns
    -------
    NDArray[np.uint8]
        RGB, (window.height, window.width, 3), padded with the slide's background.

    Raises
    ------
    UnreadableError
        If stored pixels under the window cannot be decoded.
    """
    exact = exact_level(slide.info, canvas)
    if exact is not None:
        return slide.read_level(exact, window)
    index = best_level(slide.info, canvas.scale.downsample)
    factor = canvas.scale.downsample / slide.info.levels[index].downsample
    side = round(factor)
    if side > 1 and abs(factor - side) * max(canvas.size.width, canvas.size.height) < TOLERANCE_PX:
        blocks = Window(window.x * side, window.y * side, window.width * side, window.height * side)
        return _block_mean(slide.read_level(index, blocks), side)
    margin = 0 if factor >= 1 else 1
    source = Window.from_edges(
        math.floor(window.x * factor) - margin,
        math.floor(window.y * factor) - margin,
        math.ceil(window.right * factor) + margin,
        math.ceil(window.bottom * factor) + margin,
    )
    pixels = slide.read_level(index, source).astype(np.float32)
    resample = _area_mean if factor >= 1 else _linear
    pixels = resample(pixels, first=window.y, count=window.height, factor=factor, origin=source.y)
    # Whole lines are gathered several times faster where they lie in one piece.
    pixels = np.ascontiguousarray(pixels.swapaxes(0, 1))
    pixels = resample(pixels, first=window.x, count=window.width, factor=factor, origin=source.x)
    return np.rint(pixels.swapaxes(0, 1)).clip(0, 255).astype(np.uint8)


def read_windows(slide: Slide, canvas: Canvas, windows: Sequence[Window]) -> list[NDArray[np.uint8] | UnreadableError]:
    """Return the pixels of windows that lie close together, read and resampled once where they overlap.

    Windows of a block of 8 by 8 or so, half of each overlapping its neighbours, take a third of the time that
    reading them one by one takes. Where the block cannot be read, its windows are read singly, so that
    only those that touch damaged pixels are lost.

    Parameters
    ----------
    slide, canvas
        As for `read_window`.
    windows
        In canvas pixels.

    Returns
    -------
    list[NDArray[np.uint8] | UnreadableError]
        As `read_window` gives them, in the order of `windows`, or what went wrong. The arrays may be
        views of the same memory: copy before you write.
    """
    if not windows:
        return []
    left, top = min(window.x for window in windows), min(window.y for window in windows)
    right = max(window.x + window.width for window in windows)
    bottom = max(window.y + window.height for window in windows)
    asked = sum(window.width * window.height for window in windows)
    if len(windows) > 1 and (right - left) * (bottom - top) <= asked * MAX_GAPS:
        try:
            block = read_window(slide, canvas, Window.from_edges(left, top, right, bottom))
        except UnreadableError:
            pass
        else:
            return [
                block[window.y - top : window.y - top + window.height, window.x - left : window.x - left + window.width]
                for window in windows
            ]
    return [_read_or_error(slide, canvas, window) for window in windows]


def read_readable(
    slide: Slide, canvas: Canvas, window: Window, *, smallest_px: int
) -> Iterator[tuple[Window, NDArray[np.uint8] | UnreadableError]]:
    """Yield parts of a window that partition it, each with its pixels or what went wrong.

    Parameters
    ----------
    slide, canvas, window
        As for `read_window`.
    smallest_px
        A part that cannot be read is quartered unless it is no longer than this.
    """
    parts = [window]
    while parts:
        part = parts.pop()
        pixels = _read_or_error(slide, canvas, part)
        if isinstance(pixels, UnreadableError) and max(part.width, part.height) > smallest_px:
            parts += _quarters(part)
        else:
            yield part, pixels


def _quarters(window: Window) -> list[Window]:
    middle_x, middle_y = window.x + -(-window.width // 2), window.y + -(-window.height // 2)
    parts = [
        Window.from_edges(left, top, right, bottom)
        for top, bottom in ((window.y, middle_y), (middle_y, window.bottom))
        for left, right in ((window.x, middle_x), (middle_x, window.right))
    ]
    return [part for part in parts if not part.is_empty]


def _read_or_error(slide: Slide, canvas: Canvas, window: Window) -> NDArray[np.uint8] | UnreadableError:
    try:
        return read_window(slide, canvas, window)
    except UnreadableError as error:
        return error


def _block_mean(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return the means of blocks of `side` by `side` pixels, (H, W, 3) to (H / side, W / side, 3)."""
    height, width = pixels.shape[0] // side, pixels.shape[1] // side
    # 255 * 16 * 16 is the largest sum that 16 bits hold.
    rows = np.zeros((height, width * side * 3), dtype=np.uint16 if side <= 16 else np.uint32)  # noqa: PLR2004
    for row in range(side):
        rows += pixels.reshape(height, side, -1)[:, row]
    rows = rows.reshape(height, width, side * 3)
    result = np.empty((height, width, 3), dtype=np.uint8)
    # Colour by colour: numpy is slow where its innermost axis holds three values only.
    for colour in range(3):
        total = rows[:, :, colour].copy()
        for column in range(1, side):
            total += rows[:, :, colour + 3 * column]
        total += side * side // 2
        total //= side * side
        result[:, :, colour] = total
    return result


def _area_mean(
    values: NDArray[np.float32], *, first: int, count: int, factor: float, origin: int
) -> NDArray[np.float32]:
    """Return means along axis 0 over [i, i + 1) * factor for `count` pixels i from `first` on."""
    edges = np.clip(np.arange(first, first + count + 1) * factor - origin, 0, len(values))
    # A few taps per output pixel: a gather for each beats running sums, whose rounding would
    # depend on where the window begins.
    low = np.floor(edges[:-1] + 1e-9).astype(np.intp)
    at = low[:, None] + np.arange(math.ceil(factor) + 1)
    weights = np.clip(np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at), 0, 1).astype(np.float32)
    weights /= weights.sum(axis=1, keepdims=True)
    lines = values.reshape(len(values), -1)
    result = np.zeros((count, lines.shape[1]), dtype=np.float32)
    line = np.empty_like(result)
    for tap in range(at.shape[1]):
        np.take(lines, at[:, tap], axis=0, out=line, mode="clip")
        line *= weights[:, tap, None]
        result += line
    return result.reshape(count, *values.shape[1:])


def _linear(values: NDArray[np.float32], *, first: int, count: int, factor: float, origin: int) -> NDArray[np.float32]:
    """Return values interpolated along axis 0 at the centres of `count` pixels from `first` on."""
    centres = (np.arange(first, first + count) + 0.5) * factor - 0.5 - origin
    low = np.clip(np.floor(centres).astype(np.intp), 0, len(values) - 2)
    share = (centres - low).astype(np.float32)[:, None, None]
    result: NDArray[np.float32] = values[low] * (1 - share) + values[low + 1] * share
    return result
