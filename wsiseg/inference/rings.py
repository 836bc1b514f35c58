"""Outlines of whole regions in canonical order and form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.inference.chains import order_lists, ragged, starts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.inference.chains import Chains

NODE: Final = 1  # more than two labels, or one label twice, meet at this corner
SADDLE: Final = 2  # the outline's own label also lies across this corner


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rings:
    """The outlines of some whole regions.

    Each region is one exterior ring followed by its holes. Regions come in the order of
    their lowest row and then of their first pixel, so the order is one for all band heights.
    Every ring begins at its topmost, leftmost corner and has its region to the right:
    exteriors run clockwise on the screen, holes the other way round.

    Parameters
    ----------
    x, y
        Corners of pixels, int64 (V,), canvas pixels; rings are not closed by a repeated corner.
    node
        Whether a corner is a fixed point where more than two outlines meet, bool (V,).
    first
        Where each ring begins, int64 (R + 1,); the last entry is V.
    region
        Where the rings of each region begin, int64 (N + 1,); the last entry is R.
    value
        Label of each region, int64 (N,).
    pixel
        Row-major index of each region's first pixel on the canvas, int64 (N,).
    """

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    node: NDArray[np.bool_]
    first: NDArray[np.int64]
    region: NDArray[np.int64]
    value: NDArray[np.int64]
    pixel: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.value)

    @property
    def area_px(self) -> NDArray[np.int64]:
        """Return the number of pixels of each region."""
        areas = ring_areas(self.x, self.y, self.first)
        return np.rint(np.add.reduceat(areas, self.region[:-1])).astype(np.int64)

    def take(self, regions: NDArray[np.intp] | NDArray[np.int64]) -> Rings:
        """Return some regions in the order asked for."""
        rings_each = np.diff(self.region)[regions]
        rings = ragged(self.region[:-1][regions], rings_each)
        corners_each = np.diff(self.first)[rings]
        corners = ragged(self.first[:-1][rings], corners_each)
        return Rings(
            x=self.x[corners],
            y=self.y[corners],
            node=self.node[corners],
            first=np.concatenate([[0], np.cumsum(corners_each)]),
            region=np.concatenate([[0], np.cumsum(rings_each)]),
            value=self.value[regions],
            pixel=self.pixel[regions],
        )

    def followed_by(self, other: Rings) -> Rings:
        """Return the regions of both, these first."""
        return Rings(
            x=np.concatenate([self.x, other.x]),
            y=np.concatenate([self.y, other.y]),
            node=np.concatenate([self.node, other.node]),
            first=np.concatenate([self.first, other.first[1:] + self.first[-1]]),
            region=np.concatenate([self.region, other.region[1:] + self.region[-1]]),
            value=np.concatenate([self.value, other.value]),
            pixel=np.concatenate([self.pixel, other.pixel]),
        )


def whole_regions(rings: Chains, group: NDArray[np.int64], width: int) -> Rings:
    """Return closed chains as regions.

    Parameters
    ----------
    rings
        Closed, in the order in which edges follow each other.
    group
        Which region each ring belongs to, any distinct numbers, int64 (R,).
    width
        Of the canvas.
    """
    x, y = rings.x.astype(np.int64), rings.y.astype(np.int64)
    ring = np.repeat(np.arange(len(group)), rings.count)
    first = np.concatenate([[0], np.cumsum(rings.count)])
    order, bounds = _untouched(x, y, rings.flag, ring, first)
    x, y, flag = x[order], y[order], rings.flag[order]
    group, value = group[ring[order[bounds[:-1]]]], rings.value[ring[order[bounds[:-1]]]]
    begin, count = bounds[:-1], np.diff(bounds)

    area = ring_areas(x, y, bounds)
    corner = y * (width + 1) + x
    lowest = np.minimum.reduceat(corner, begin)
    is_first = corner == np.repeat(lowest, count)
    shift = np.flatnonzero(is_first) - begin

    groups, of_group = np.unique(group, return_inverse=True)
    is_exterior = area > 0
    exterior = np.zeros(len(groups), dtype=np.int64)
    exterior[of_group[is_exterior]] = np.flatnonzero(is_exterior)
    bottom = np.maximum.reduceat(y, begin)[exterior]
    by_region = np.lexsort((lowest, ~is_exterior, lowest[exterior][of_group], bottom[of_group]))

    count, shift, begin = count[by_region], shift[by_region], begin[by_region]
    within = np.arange(int(count.sum())) - np.repeat(starts_of(count), count)
    turned = (within + np.repeat(shift, count)) % np.repeat(count, count) + np.repeat(begin, count)
    starts = np.flatnonzero(is_exterior[by_region])
    head = by_region[starts]
    row, column = np.divmod(lowest[head], width + 1)
    return Rings(
        x=x[turned],
        y=y[turned],
        node=(flag[turned] & NODE) > 0,
        first=np.concatenate([[0], np.cumsum(count)]),
        region=np.concatenate([starts, [len(count)]]),
        value=value[head],
        pixel=row * width + column,
    )


def _untouched(
    x: NDArray[np.int64],
    y: NDArray[np.int64],
    flag: NDArray[np.uint8],
    ring: NDArray[np.int64],
    first: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rings that touch themselves at a corner, as valid polygons must not.

    Such a ring never crosses itself, so changing over at every touching point leaves
    simple rings: an exterior and holes that meet it in single points.
    """
    saddle = np.flatnonzero(flag & SADDLE)
    saddle = saddle[np.lexsort((x[saddle], y[saddle], ring[saddle]))]
    a, b = saddle[:-1], saddle[1:]
    is_pair = (ring[a] == ring[b]) & (x[a] == x[b]) & (y[a] == y[b])
    if not is_pair.any():
        return np.arange(len(x)), first
    before = np.arange(len(x)) - 1
    before[first[:-1]] = first[1:] - 1
    after = np.empty(len(x), dtype=np.int64)
    after[before] = np.arange(len(x))
    a, b = a[is_pair], b[is_pair]
    after[a], after[b] = after[b], after[a]
    before[after] = np.arange(len(x))
    _, _, order, bounds = order_lists(before)
    return order, bounds


def ring_areas(
    x: NDArray[np.int64] | NDArray[np.float64], y: NDArray[np.int64] | NDArray[np.float64], first: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the signed area of rings, positive for exteriors; `first` as in `Rings`."""
    if len(first) == 1:
        return np.empty(0)
    after = np.arange(1, len(x) + 1)
    after[first[1:] - 1] = first[:-1]
    # About each ring's own corner: products of large coordinates would lose digits.
    x, y = x - np.repeat(x[first[:-1]], np.diff(first)), y - np.repeat(y[first[:-1]], np.diff(first))
    return np.add.reduceat(x * y[after] - x[after] * y, first[:-1]) / 2
