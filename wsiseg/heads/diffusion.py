"""Flows that lead every pixel of an object to its centre, for all objects of an image at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.sparse import csr_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEIGHBOURS: Final = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
_UP, _LEFT, _RIGHT, _DOWN = (_NEIGHBOURS.index(step) for step in ((-1, 0), (0, -1), (0, 1), (1, 0)))
# Objects whose width and height add up to half of this or less get all their rounds.
_ROUNDS: Final = 256


def centre_flows(label_map: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return flows of length 1 that lead to the middle of each object, 0 in the background.

    Heat flows from the pixel nearest to the centroid through the object and is lost beyond
    its border; the flow is the direction in which log(1 + heat) grows. An object of w × h
    pixels gets 2 (w + h + 2) rounds of heat; very large ones get fewer, but never less than
    w + h + 2, which is as many pixels as heat has to travel in all but the most winding shapes.

    Parameters
    ----------
    label_map
        int32 (H, W): object ids; 0 and less are background.

    Returns
    -------
    NDArray[np.float32]
        (2, H, W): dy, dx.

    References
    ----------
    .. [1] Stringer et al., "Cellpose: a generalist algorithm for cellular segmentation",
       Nature Methods 18, 2021.
    """
    height, width = label_map.shape
    flows = np.zeros((2, height, width), dtype=np.float32)
    rows, columns = np.nonzero(label_map > 0)
    if len(rows) == 0:
        return flows
    _, index = np.unique(label_map[rows, columns], return_inverse=True)
    objects = _measure(rows, columns, index)
    # Objects with many rounds first: those that still run are then always a prefix.
    rank = np.empty_like(objects.rounds)
    by_rounds = np.argsort(-objects.rounds, kind="stable")
    rank[by_rounds] = np.arange(len(rank))
    order = np.argsort(rank[index], kind="stable")
    rows, columns = rows[order], columns[order]
    place = np.empty_like(order)
    place[order] = np.arange(len(order))

    beside = _beside(label_map, rows, columns)
    heat = _heat(
        beside,
        sources=place[objects.source[by_rounds]],
        rounds=objects.rounds[by_rounds],
        ends=np.cumsum(objects.area[by_rounds]),
    )
    # One more entry for what lies outside.
    level = np.append(np.log1p(heat), np.float32(0))
    dy = level[beside[:, _DOWN]] - level[beside[:, _UP]]
    dx = level[beside[:, _RIGHT]] - level[beside[:, _LEFT]]
    length = np.hypot(dy, dx)
    length[length == 0] = 1
    flows[0, rows, columns] = dy / length
    flows[1, rows, columns] = dx / length
    return flows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Measured:
    """Number of pixels, index of the central pixel and rounds of heat of each object, int64 (n,)."""

    area: NDArray[np.int64]
    source: NDArray[np.int64]
    rounds: NDArray[np.int64]


def _measure(rows: NDArray[np.int64], columns: NDArray[np.int64], index: NDArray[np.int64]) -> _Measured:
    order = np.argsort(index, kind="stable")
    area = np.bincount(index)
    starts = np.cumsum(area) - area
    y, x = rows[order], columns[order]
    # Whole numbers, so that ties do not depend on where in the image an object lies.
    off_y = y * area[index[order]] - np.repeat(np.add.reduceat(y, starts), area)
    off_x = x * area[index[order]] - np.repeat(np.add.reduceat(x, starts), area)
    distance = off_y * off_y + off_x * off_x
    nearest = np.flatnonzero(distance == np.repeat(np.minimum.reduceat(distance, starts), area))
    source = order[nearest[np.searchsorted(nearest, starts)]]
    extent = 4 + sum(np.maximum.reduceat(at, starts) - np.minimum.reduceat(at, starts) for at in (y, x))
    return _Measured(area=area, source=source, rounds=np.minimum(2 * extent, np.maximum(_ROUNDS, extent)))


def _beside(label_map: NDArray[np.int32], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the places (N, 9) of the neighbours of each pixel in the list of pixels, -1 outside its object."""
    padded = np.pad(label_map, 1)
    width = padded.shape[1]
    labels = padded.ravel()
    at = (rows + 1) * width + columns + 1
    place = np.full(padded.size, -1, dtype=np.int32)
    place[at] = np.arange(len(at))
    neighbours = at[:, None] + np.array([dy * width + dx for dy, dx in _NEIGHBOURS])
    return np.where(labels[neighbours] == labels[at][:, None], place[neighbours], np.int32(-1))


def _heat(
    beside: NDArray[np.int32], *, sources: NDArray[np.int64], rounds: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the heat of each pixel; objects come one after the other, by falling number of rounds."""
    inside = beside >= 0
    indptr = np.concatenate(([0], np.cumsum(inside.sum(axis=1)))).astype(np.int32)
    indices = beside[inside]
    weights = np.full(len(indices), 1 / 9, dtype=np.float32)
    heat = np.zeros(len(beside), dtype=np.float32)
    done = 0
    for until in np.unique(rounds):
        running = int(np.searchsorted(-rounds, -until, side="right"))
        pixels = int(ends[running - 1])
        links = int(indptr[pixels])
        spread = csr_array((weights[:links], indices[:links], indptr[: pixels + 1]), shape=(pixels, pixels))
        sources, warm = sources[:running], heat[:pixels]
        for _ in range(until - done):
            warm[sources] += 1
            warm = np.asarray(spread @ warm)
        heat[:pixels] = warm
        done = until
    return heat
