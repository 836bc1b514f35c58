"""Drawing areas into label arrays, exactly and side by side.

A pixel belongs to an area if its centre lies inside, by the even-odd rule, so holes stay open. A centre on an edge
belongs to the side to which `Scale` rounds the edge: a box of level-0 pixels becomes the window that `Scale.window`
gives, and of areas that share an edge exactly one has each pixel along it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from wsiseg.annotations.features import polygons_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wsiseg.geometry import Scale, Window


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """Areas in a window.

    Parameters
    ----------
    top
        The uppermost area over each pixel, counted from 1, 0 where there is none; int32 (H, W).
    areas
        The areas that have a pixel in the window, counted from 1, sorted; int64 (n,).
    is_covered
        Whether an area above hides some of it, (n,).
    """

    top: NDArray[np.int32]
    areas: NDArray[np.int64]
    is_covered: NDArray[np.bool_]


class Scanlines:
    """Areas that can be drawn into any window of a canvas, later ones over earlier ones.

    Parameters
    ----------
    areas
        Polygons and multi-polygons, level-0 pixels.
    scale
        Level-0 pixels per canvas pixel.
    origin
        Level-0 pixel from which their coordinates count.

    Attributes
    ----------
    boxes
        Left, top, right and bottom of each area in canvas pixels, (N, 4).
    """

    def __init__(self, areas: Sequence[shapely.Geometry], scale: Scale, origin: tuple[int, int] = (0, 0)) -> None:
        polygons, owners = [], []
        for owner, area in enumerate(areas):
            own = polygons_of(area)
            polygons += own
            owners += [owner] * len(own)
        rings, polygon = shapely.get_rings(np.array(polygons, dtype=np.object_), return_index=True)
        points, ring = shapely.get_coordinates(rings, return_index=True)
        points = (points + np.asarray(origin, dtype=np.float64)) / scale.downsample
        follows = ring[1:] == ring[:-1]
        start, end = points[:-1][follows], points[1:][follows]
        # Upwards and downwards a side must give the same pixels, to the last bit.
        is_down = start[:, 1] <= end[:, 1]
        self._upper = np.where(is_down[:, None], start, end)
        self._lower = np.where(is_down[:, None], end, start)
        # To even, as `round` does in `Scale`.
        self._first = np.rint(self._upper[:, 1]).astype(np.int64)
        self._last = np.rint(self._lower[:, 1]).astype(np.int64)
        self._owner = np.array(owners, dtype=np.int64)[polygon[ring[1:][follows]]]
        # Sides of one area lie together; areas without any have none between two equal numbers.
        self._begin = np.searchsorted(self._owner, np.arange(len(areas) + 1))
        boxes = shapely.bounds(np.array(areas, dtype=np.object_)).reshape(-1, 4)
        self.boxes: NDArray[np.float64] = (boxes + np.tile(np.asarray(origin, dtype=np.float64), 2)) / scale.downsample
        self._tree = shapely.STRtree(shapely.box(*self.boxes.T))

    def __len__(self) -> int:
        return len(self.boxes)

    def draw(self, window: Window) -> Drawn:
        """Return what lies in a window."""
        near = np.sort(self._tree.query(shapely.box(window.x, window.y, window.right, window.bottom)))
        area, row, left, right = self._spans(near, window)
        length = right - left
        pixel = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length - row * window.width - left, length)
        top = np.zeros((window.height, window.width), dtype=np.int32)
        # Whatever the order of the spans, the last area is the highest number.
        np.maximum.at(top.reshape(-1), pixel, np.repeat(area + 1, length).astype(np.int32))
        wanted = np.bincount(area, weights=length, minlength=len(self)).astype(np.int64)
        seen = np.bincount(top.reshape(-1), minlength=len(self) + 1)[1:]
        areas = np.flatnonzero(wanted)
        return Drawn(top=top, areas=areas + 1, is_covered=seen[areas] < wanted[areas])

    def _spans(
        self, near: NDArray[np.intp], window: Window
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return area, row, first column and the column behind the last of each run of pixels in a window."""
        side = _ranges(self._begin[near], self._begin[near + 1])
        first = np.maximum(self._first[side], window.y)
        last = np.minimum(self._last[side], window.bottom)
        crosses = first < last
        side, first, last = side[crosses], first[crosses], last[crosses]
        row = _ranges(first, last)
        side = np.repeat(side, last - first)
        (upper_x, upper_y), (lower_x, lower_y) = self._upper[side].T, self._lower[side].T
        # A centre that rounding counts to a side may lie a hair beyond its end.
        share = np.clip((row + 0.5 - upper_y) / (lower_y - upper_y), 0, 1)
        column = np.rint(upper_x + share * (lower_x - upper_x)).astype(np.int64)
        column = np.clip(column, window.x, window.right) - window.x
        area, row = self._owner[side], row - window.y
        order = np.lexsort((column, row, area))
        # A closed outline crosses each row an even number of times.
        begin, end = order[::2], order[1::2]
        return area[begin], row[begin], column[begin], column[end]


def _ranges(begin: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the whole numbers from each begin up to its end, one range after the other."""
    length = end - begin
    ranges: NDArray[np.int64] = np.arange(length.sum()) + np.repeat(begin - np.cumsum(length) + length, length)
    return ranges
