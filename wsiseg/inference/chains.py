"""Pieces of outlines, and joining them by what follows what, without a loop over pieces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chains:
    """Pieces of outlines, one entry each; their corners lie one after the other.

    Parameters
    ----------
    start, then
        Key of a piece's first edge and of the edge that follows its last, int64 (N,).
    value
        Label the outline belongs to, int64 (N,).
    count
        Corners of each piece, int64 (N,); may be 0.
    x, y, flag
        The corners in canvas pixels and what meets there, (V,).
    """

    start: NDArray[np.int64]
    then: NDArray[np.int64]
    value: NDArray[np.int64]
    count: NDArray[np.int64]
    x: NDArray[np.int32]
    y: NDArray[np.int32]
    flag: NDArray[np.uint8]

    @classmethod
    def empty(cls) -> Chains:
        """Return no pieces."""
        none, corners = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32)
        return cls(
            start=none, then=none, value=none, count=none, x=corners, y=corners, flag=np.empty(0, dtype=np.uint8)
        )

    @classmethod
    def concat(cls, parts: list[Chains]) -> Chains:
        """Return the pieces of all parts."""
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__})

    def where(self, mask: NDArray[np.bool_]) -> Chains:
        """Return the pieces where `mask` is set."""
        corners = np.repeat(mask, self.count)
        return Chains(
            start=self.start[mask],
            then=self.then[mask],
            value=self.value[mask],
            count=self.count[mask],
            x=self.x[corners],
            y=self.y[corners],
            flag=self.flag[corners],
        )

    def threaded(self, order: NDArray[np.int64], bounds: NDArray[np.int64]) -> Chains:
        """Return longer pieces: the ones named by ``order[bounds[i]:bounds[i + 1]]`` become piece i."""
        heads, tails = order[bounds[:-1]], order[bounds[1:] - 1]
        corners = ragged(starts_of(self.count)[order], self.count[order])
        return Chains(
            start=self.start[heads],
            then=self.then[tails],
            value=self.value[heads],
            count=np.add.reduceat(self.count[order], bounds[:-1]) if len(heads) else self.count[:0],
            x=self.x[corners],
            y=self.y[corners],
            flag=self.flag[corners],
        )


def link(
    start: NDArray[np.int64], then: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Join pieces whose `then` is the `start` of another.

    Returns
    -------
    tuple
        The chain of each piece, whether each chain is closed, the pieces chain by chain in
        order, and where each chain begins in that list.
    """
    by_start = np.argsort(start)
    place = np.minimum(np.searchsorted(start, then, sorter=by_start), max(len(start) - 1, 0))
    follows = start[by_start[place]] == then if len(start) else np.empty(0, dtype=np.bool_)
    piece = np.flatnonzero(follows)
    before = np.full(len(start), -1, dtype=np.int64)
    before[by_start[place[piece]]] = piece
    return order_lists(before)


def order_lists(
    before: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Order linked lists given the predecessor of each item, -1 for none; closed ones are cut anywhere."""
    piece = np.flatnonzero(before >= 0)
    chain = components(piece, before[piece], len(before))
    number = int(chain.max(initial=-1)) + 1
    head = np.zeros(number, dtype=np.int64)
    head[chain] = np.arange(len(before))
    is_closed = np.ones(number, dtype=np.bool_)
    heads = np.flatnonzero(before < 0)
    head[chain[heads]] = heads
    is_closed[chain[heads]] = False

    # Ranks by pointer jumping: each round doubles how far an item sees.
    jump = before.copy()
    jump[head] = -1
    rank = (jump >= 0).astype(np.int64)
    active = np.flatnonzero(jump >= 0)
    while len(active):
        via = jump[active]
        ranks, jumps = rank[active] + rank[via], jump[via]
        rank[active], jump[active] = ranks, jumps
        active = active[jumps >= 0]
    bounds = np.concatenate([[0], np.cumsum(np.bincount(chain, minlength=number))])
    order = np.empty(len(before), dtype=np.int64)
    order[bounds[chain] + rank] = np.arange(len(before))
    return chain, is_closed, order, bounds


def components(a: NDArray[np.int64], b: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the connected part each of `count` nodes is in, given an edge from each `a` to its `b`."""
    if count == 0:
        return np.empty(0, dtype=np.int64)
    graph = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def starts_of(count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where pieces of such lengths begin."""
    return np.cumsum(count) - count


def ragged(start: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return start, start + 1, … start + count - 1 for each pair, one after the other."""
    return np.arange(int(count.sum())) + np.repeat(start - starts_of(count), count)
