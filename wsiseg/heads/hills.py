"""Pixels that point at nearly the same place, gathered to objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HILL_PX: Final = 2
_HILL_JUMPS: Final = 2
# How far apart the places can lie that the pixels of one object point at.
HILL_RADIUS_PX: Final = _HILL_PX * 2**_HILL_JUMPS


def gathered(
    start: NDArray[np.int64], end: NDArray[np.int64], width: int, size: int, *, reach_px: int
) -> NDArray[np.int32]:
    """Return which object each pixel belongs to, (N,), 1 … n in the order of their summits; 0 where it is too far away.

    Ends pile up in hills; each belongs to the summit that the steepest way up within windows of 5 × 5 pixels leads
    to, and the pixels of one summit are an object.

    Parameters
    ----------
    start, end
        Pixels, and those that they point at: row-major indices (N,).
    width, size
        Of the array; no end lies in its outermost columns.
    reach_px
        Farthest, along each axis, that a pixel may lie from its end.
    """
    hill = _hills(end, width, size)[end]
    far = np.maximum(abs(end // width - start // width), abs(end % width - start % width)) > reach_px
    hill[far] = -1
    is_summit = np.zeros(size + 1, dtype=np.bool_)
    is_summit[hill] = True
    is_summit[-1] = False
    summits = np.flatnonzero(is_summit)
    number = np.zeros(size + 1, dtype=np.int32)
    number[summits] = np.arange(1, len(summits) + 1)
    return number[hill]


def _hills(end: NDArray[np.int64], width: int, size: int) -> NDArray[np.int64]:
    """Return for each pixel with end points the summit they belong to, -1 if it is too far away; (size,)."""
    count = np.bincount(end, minlength=size)
    used = np.flatnonzero(count)
    margin = _HILL_PX * (width + 1)
    # Counted in windows of 3 × 3: end points circle about the centre.
    count = np.pad(count, margin)
    height_at = np.zeros_like(count)
    for step in (dy * width + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
        height_at[used + margin] += count[used + margin + step]
    best, highest = np.zeros_like(used), np.zeros_like(used)
    # In the order of indices and only if higher: ways up never lead in circles.
    for dy in range(-_HILL_PX, _HILL_PX + 1):
        for dx in range(-_HILL_PX, _HILL_PX + 1):
            there = used + (dy * width + dx)
            height = height_at[there + margin]
            is_higher = height > highest
            best = np.where(is_higher, there, best)
            highest = np.where(is_higher, height, highest)
    up = np.full(size, -1)
    up[used] = best
    for _ in range(_HILL_JUMPS):
        up[used] = up[up[used]]
    is_summit = up[up[used]] == up[used]
    up[used] = np.where(is_summit, up[used], -1)
    return up
