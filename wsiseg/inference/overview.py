"""Small views of a large slide and its labels, read piece by piece."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from wsiseg.errors import UnreadableError
from wsiseg.geometry import Canvas, Scale, Size, Window
from wsiseg.inference.contours import trace
from wsiseg.inference.outlines import smooth
from wsiseg.inference.polygons import OBJECT_TOLERANCE_PX
from wsiseg.slides.reading import best_level, read_readable

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from wsiseg.objects import Objects
    from wsiseg.slides.base import Slide

_SOURCE_PX: Final = 4096
_SAMPLES: Final = 4
# Rows and columns of labels that are read at once.
_BLOCK_PX: Final = (1024, 8192)
_UNREADABLE: Final = 225
# What cannot be read is narrowed down to pieces of this many pixels.
SMALLEST_PX: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Loops:
    """Closed lines to draw: points (N, 2) of each, canvas pixels, and the label value it runs around."""

    points: list[NDArray[np.float64]]
    values: NDArray[np.int64]


def reduced(canvas: Canvas, factor: int) -> Canvas:
    """Return the canvas whose pixels are `factor` x `factor` pixels of `canvas`."""
    size = Size(-(-canvas.size.width // factor), -(-canvas.size.height // factor))
    return Canvas(size, Scale(canvas.scale.downsample * factor), None if canvas.mpp is None else canvas.mpp * factor)


def read_pixels(slide: Slide, canvas: Canvas, window: Window) -> NDArray[np.uint8]:
    """Return RGB (H, W, 3) of a window, in pieces of bounded size; what cannot be read is light grey.

    What cannot be read is narrowed down to pieces of a few pixels.
    """
    level = slide.info.levels[best_level(slide.info, canvas.scale.downsample)]
    side = max(1, min(1024, int(_SOURCE_PX * level.downsample / canvas.scale.downsample)))
    pixels = np.full((window.height, window.width, 3), _UNREADABLE, dtype=np.uint8)
    for top in range(window.y, window.bottom, side):
        for left in range(window.x, window.right, side):
            piece = Window(left, top, side, side).intersection(window)
            for part, patch in read_readable(slide, canvas, piece, smallest_px=SMALLEST_PX):
                if not isinstance(patch, UnreadableError):
                    pixels[part.within(window).slices] = patch
    return pixels


def reduce_classes(
    read: Callable[[Window], NDArray[np.unsignedinteger]], canvas: Canvas, factor: int
) -> NDArray[np.uint8]:
    """Return the commonest class under each pixel of the reduced canvas, uint8 (H, W)."""
    small = reduced(canvas, factor).size
    result = np.zeros((small.height, small.width), dtype=np.uint8)
    rows, columns = (max(1, side // factor) for side in _BLOCK_PX)
    for top in range(0, small.height, rows):
        for left in range(0, small.width, columns):
            block = Window(left, top, columns, rows).clipped(small)
            fine = Window(left * factor, top * factor, block.width * factor, block.height * factor)
            there = fine.clipped(canvas.size)
            # Pixels beyond the canvas repeat its edge, so that they do not outvote what is there.
            values = np.pad(
                read(there), ((0, fine.height - there.height), (0, fine.width - there.width)), mode="edge"
            ).reshape(block.height, factor, block.width, factor)
            result[block.slices] = _commonest(values)
    return result


def _commonest(values: NDArray[np.unsignedinteger]) -> NDArray[np.uint8]:
    """Return the commonest of some samples of each cell, (rows, factor, columns, factor) to (rows, columns)."""
    step = -(-values.shape[1] // _SAMPLES)
    samples = values[:, ::step, :, ::step]
    result = np.zeros((samples.shape[0], samples.shape[2]), dtype=np.uint8)
    most = np.zeros_like(result)
    for value in np.flatnonzero(np.bincount(samples.ravel())):
        votes = np.zeros_like(most)
        # Added sample by sample: numpy is slow where its innermost axis is short.
        for row, column in np.ndindex(samples.shape[1], samples.shape[3]):
            votes += samples[:, row, :, column] == value
        result[votes > most] = value
        most = np.maximum(votes, most)
    return result


def density(objects: Objects, canvas: Canvas, factor: int, *, blur_px: float) -> NDArray[np.float64]:
    """Return objects per reduced pixel, smoothed, (H, W)."""
    small = reduced(canvas, factor).size
    column = np.clip((objects.cx / factor).astype(np.int64), 0, small.width - 1)
    row = np.clip((objects.cy / factor).astype(np.int64), 0, small.height - 1)
    counts = np.bincount(row * small.width + column, minlength=small.area).reshape(small.height, small.width)
    smoothed: NDArray[np.float64] = ndimage.gaussian_filter(counts.astype(np.float64), blur_px)
    return smoothed


def telling_windows(
    objects: Objects | None, classes: NDArray[np.uint8], canvas: Canvas, factor: int, side: int
) -> list[tuple[str, Window]]:
    """Return up to two windows of `side` canvas pixels worth a close look, and why.

    Parameters
    ----------
    objects
        With them, the windows with the most and with as many objects as a typical one has around it are chosen;
        else those with the longest borders between classes.
    classes
        From `reduce_classes`.
    canvas, factor
        Of `classes`.
    side
        Of the windows.
    """
    half = max(1, side // 2)
    shape = (max(2, -(-canvas.size.height // half)), max(2, -(-canvas.size.width // half)))
    if objects is not None:
        row, column = np.asarray(objects.cy) / half, np.asarray(objects.cx) / half
        names = ("densest field", "typical field")
    else:
        is_border = np.zeros(classes.shape, dtype=np.bool_)
        is_border[:, 1:] |= classes[:, 1:] != classes[:, :-1]
        is_border[1:] |= classes[1:] != classes[:-1]
        row, column = (np.asarray(np.nonzero(is_border)) + 0.5) * factor / half
        names = ("most mixed field", "another mixed field")
    cells = np.zeros(shape, dtype=np.int64)
    np.add.at(
        cells,
        (np.clip(row.astype(np.int64), 0, shape[0] - 1), np.clip(column.astype(np.int64), 0, shape[1] - 1)),
        1,
    )
    fields = (cells[:-1, :-1] + cells[1:, :-1] + cells[:-1, 1:] + cells[1:, 1:]).astype(np.float64)
    first = np.unravel_index(int(fields.argmax()), fields.shape)
    windows = [(names[0], _field(first, half, canvas, side))]
    # The second must not show the same place again.
    rows, columns = np.indices(fields.shape)
    rest = (fields > 0) & ((np.abs(rows - first[0]) > 1) | (np.abs(columns - first[1]) > 1))
    if rest.any():
        counts = np.sort(fields[rest])
        # Half of all objects lie in fields with fewer; half of the fields are edges with a few objects each.
        middle = counts[np.searchsorted(np.cumsum(counts), counts.sum() / 2)]
        wanted = float(middle if objects is not None else counts[-1])
        distance = np.where(rest, np.abs(fields - wanted), np.inf)
        second = np.unravel_index(int(distance.argmin()), fields.shape)
        windows.append((names[1], _field(second, half, canvas, side)))
    return windows


def outlines_in(read: Callable[[Window], NDArray[np.unsignedinteger]], window: Window) -> Loops:
    """Return the smoothed outlines of the labels in a window, in canvas pixels."""
    points: list[NDArray[np.float64]] = []
    values: list[NDArray[np.int64]] = []
    for rings in trace(
        lambda part: read(Window(part.x + window.x, part.y + window.y, part.width, part.height)),
        window.size,
        shares_borders=False,
    ):
        outline = smooth(rings, tolerance=OBJECT_TOLERANCE_PX)
        closed = np.split(outline.points + (window.x, window.y), outline.first[1:-1])  # noqa: RUF005 - a sum of vectors
        points += [np.concatenate([loop, loop[:1]]) for loop in closed]
        values.append(np.repeat(rings.value, np.diff(rings.region)))
    return Loops(points=points, values=np.concatenate(values) if values else np.empty(0, dtype=np.int64))


def _field(cell: tuple[np.intp, ...], half: int, canvas: Canvas, side: int) -> Window:
    """Return the window that begins at a cell, moved so that it lies on the canvas as far as it fits."""
    left = max(0, min(int(cell[1]) * half, canvas.size.width - side))
    top = max(0, min(int(cell[0]) * half, canvas.size.height - side))
    return Window(left, top, side, side).clipped(canvas.size)
