"""From label pixels to closed rings of pixel corners, one band of rows at a time.

Every side of a pixel that parts it from another label is a directed edge with its
own pixel to the right. The edge that follows it is decided by the two pixels ahead
alone, so all edges of a band are linked at once with array operations. Pixels of one
label belong together through their sides only (4-connected); where they merely meet
at a corner the outline stays with its own pixel.

A ring that leaves a band is kept open and continued by the next one. The rings are
therefore those of the whole canvas, whatever the height of the bands, and memory
holds one band and the outlines of the regions that reach into the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.geometry import Size, Window
from wsiseg.inference.chains import Chains, components, link
from wsiseg.inference.rings import NODE, SADDLE, Rings, whole_regions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

_BAND_PX: Final = 1 << 24


def trace(
    read: Callable[[Window], NDArray[np.integer]],
    size: Size,
    *,
    shares_borders: bool,
    band_rows: int | None = None,
) -> Iterator[Rings]:
    """Yield the outlines of all regions of equal, non-zero label.

    Parameters
    ----------
    read
        Gives the labels in a window of full width, unsigned integer (H, W).
    size
        Of the canvas.
    shares_borders
        Whether straight borders also get a corner where a third label touches them, so that
        the outlines of neighbours can be simplified alike.
    band_rows
        Rows to hold at once; by default as many as make about 16 million pixels.

    Yields
    ------
    Rings
        Regions that have become whole, at most once per band.
    """
    rows = band_rows or max(64, min(1024, 1 << (_BAND_PX // size.width).bit_length() - 1))
    tracer = _Tracer(size.width)
    # One row stays behind until the row below it is known; reading it twice would decode its chunk twice.
    held = np.zeros((1, size.width + 2), dtype=np.uint32)
    for top in range(0, size.height, rows):
        bottom = min(top + rows, size.height)
        is_last = bottom == size.height
        band = np.zeros((len(held) + bottom - top + is_last, size.width + 2), dtype=np.uint32)
        band[: len(held)] = held
        if bottom > top:
            band[len(held) : len(held) + bottom - top, 1:-1] = read(Window(0, top, size.width, bottom - top))
        held = band[-2:].copy()
        finished = tracer.add(band, top=max(0, top - 1), shares_borders=shares_borders)
        if finished is not None:
            yield finished


@dataclass(slots=True, kw_only=True, eq=False)
class _Closed:
    """Closed rings whose region is not whole yet."""

    group: NDArray[np.int64]
    chains: Chains


class _Tracer:
    """Takes bands from top to bottom and gives back the regions that have become whole."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._open = Chains.empty()
        self._group = np.empty(0, dtype=np.int64)
        self._closed: list[_Closed] = []

    def add(self, band: NDArray[np.uint32], *, top: int, shares_borders: bool) -> Rings | None:
        """Take rows of labels, framed by one known pixel on each side; `top` is the first row inside the frame."""
        if band.shape[0] <= 2:  # noqa: PLR2004 - nothing but frame
            return None
        runs, left, right = _runs(band, top=top, shares_borders=shares_borders)
        pieces = Chains.concat([self._open, runs])
        chain, is_closed, order, bounds = link(pieces.start, pieces.then)
        chains = pieces.threaded(order, bounds)

        # Regions: a horizontal run of pixels ties the outline on its left to the one on its right,
        # and what was known to belong together still does.
        known = int(self._group.max(initial=-1)) + 1
        number = len(is_closed)
        old = len(self._open.start)
        tie_a = np.concatenate([chain[old + left], chain[:old]])
        tie_b = np.concatenate([chain[old + right], number + self._group])
        group = components(tie_a, tie_b, number + known)
        is_open_group = np.zeros(len(group), dtype=np.bool_)
        is_open_group[group[:number][~is_closed]] = True

        for block in self._closed:
            block.group = group[number + block.group]
        self._closed.append(_Closed(group=group[:number][is_closed], chains=chains.where(is_closed)))
        self._open = chains.where(~is_closed)
        # Numbers of groups are kept small: only those that are open remain.
        renumber = np.cumsum(is_open_group) - 1
        self._group = renumber[group[:number][~is_closed]]

        done_groups, done_chains = [], []
        for block in self._closed:
            is_done = ~is_open_group[block.group]
            if is_done.any():
                done_groups.append(block.group[is_done])
                done_chains.append(block.chains.where(is_done))
                block.group, block.chains = block.group[~is_done], block.chains.where(~is_done)
            block.group = renumber[block.group]
        self._closed = [block for block in self._closed if len(block.group)]
        if not done_groups:
            return None
        return whole_regions(Chains.concat(done_chains), np.concatenate(done_groups), self._width)


# Sides of a pixel in the order of a right turn; their outlines run east, south, west and north.
_TOP, _RIGHT, _BOTTOM, _LEFT = range(4)


def _runs(
    band: NDArray[np.uint32], *, top: int, shares_borders: bool
) -> tuple[Chains, NDArray[np.int64], NDArray[np.int64]]:
    """Return the straight pieces of all outlines in a band, and which of them face each other.

    The second and third array name, for every horizontal run of equal pixels, the piece on
    its left and the piece on its right.
    """
    parts, run_of, total = [], [], 0
    for side in (_TOP, _RIGHT, _BOTTOM, _LEFT):
        chains, runs = _runs_of_side(band, side, top=top, shares_borders=shares_borders)
        parts.append(chains)
        run_of.append(runs + total)
        total += len(chains.start)
    # Edges are listed row by row, so the left and the right end of a run have the same place.
    left, right = np.divmod(np.unique(run_of[_LEFT] * total + run_of[_RIGHT]), max(total, 1))
    return Chains.concat(parts), left, right


def _runs_of_side(
    band: NDArray[np.uint32], side: int, *, top: int, shares_borders: bool
) -> tuple[Chains, NDArray[np.int64]]:
    """Return the pieces along one side of the pixels, and the piece of each edge, row by row."""
    stride = band.shape[1]
    forward, outward = (1, stride, -1, -stride)[side], (-stride, 1, stride, -1)[side]
    flat = band.reshape(-1)
    inner = flat[stride:-stride]
    at = np.flatnonzero((inner != flat[stride + outward : len(flat) - stride + outward]) & (inner != 0)) + stride
    order = np.arange(len(at))
    if side in (_RIGHT, _LEFT):
        # Down the columns; narrow integers are sorted by radix.
        order = np.argsort((at % stride).astype(np.uint16 if stride <= 1 << 16 else np.uint32), kind="stable")
    if side in (_BOTTOM, _LEFT):
        order = order[::-1]
    at = at[order]

    own, ahead, across, beside = flat[at], flat[at + forward], flat[at + forward + outward], flat[at + outward]
    turns_right = ahead != own
    turns_left = ~turns_right & (across == own)
    is_saddle = turns_right & (across == own)
    is_node = turns_right & ((ahead != beside) | (across != beside))
    ends = turns_right | turns_left
    if shares_borders:
        is_node |= ~ends & (across != beside)
        ends |= is_node
    has_corner = ends.copy()
    # Cut where the band ends; this is no corner.
    if side == _RIGHT:
        ends |= at >= len(flat) - 2 * stride
    elif side == _LEFT:
        ends |= at < 2 * stride

    run_of = np.empty(len(at), dtype=np.int64)
    run_of[order] = np.cumsum(ends) - ends
    end = np.flatnonzero(ends)
    begin = np.concatenate([[0], end[:-1] + 1]) if len(end) else end
    last, right, left, corner = at[end], turns_right[end], turns_left[end], has_corner[end]
    next_at = last + np.where(right, 0, forward + np.where(left, outward, 0))
    next_side = (side + right.astype(np.int64) - left) % 4
    row, column = np.divmod(last[corner], stride)
    chains = Chains(
        start=_pixel(at[begin], stride, top) * 4 + side,
        then=_pixel(next_at, stride, top) * 4 + next_side,
        value=own[end].astype(np.int64),
        count=corner.astype(np.int64),
        x=(column - 1 + (side in (_TOP, _RIGHT))).astype(np.int32),
        y=(row - 1 + top + (side in (_RIGHT, _BOTTOM))).astype(np.int32),
        flag=(NODE * is_node[end] + SADDLE * is_saddle[end])[corner].astype(np.uint8),
    )
    return chains, run_of


def _pixel(at: NDArray[np.int64], stride: int, top: int) -> NDArray[np.int64]:
    """Return the canvas index of pixels of a framed band, row by row."""
    row, column = np.divmod(at, stride)
    return (row - 1 + top) * (stride - 2) + column - 1
