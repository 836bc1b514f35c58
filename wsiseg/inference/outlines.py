"""From rings of pixel corners to smooth outlines and their measures.

Smoothing first cuts every corner half a pixel before and behind it, which turns the
steps of a slanting border into a line, and then leaves out points that lie within a
tolerance of the line without them. Points where more than two regions meet stay where
they are, and the stretch between two of them is smoothed the same way whichever side
asks, so neighbours keep their common border.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import shapely

from wsiseg.inference.rings import ring_areas

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.inference.rings import Rings

# Cut corners overestimate a line by 0 % (along the grid) to 8 % (at 22.5 degrees); the mean over all
# directions is taken off. Proffitt and Rosen, "Metrication errors and coding efficiency of chain-encoding
# schemes for the representation of lines and edges", Computer Graphics and Image Processing 10, 1979.
_LENGTH_FACTOR: Final = np.pi / 8 * (1 + np.sqrt(2))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outline:
    """Rings of points.

    Parameters
    ----------
    points
        float64 (P, 2), (x, y) in canvas pixels; rings are not closed by a repeated point.
    is_node
        Whether a point is fixed, bool (P,).
    first
        Where each ring begins, int64 (R + 1,).
    """

    points: NDArray[np.float64]
    is_node: NDArray[np.bool_]
    first: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measures:
    """Shape of regions, one entry each, in canvas pixels.

    Parameters
    ----------
    area_px
        Number of pixels, holes left out.
    perimeter_px
        Length of the exterior, unbiased for borders without a preferred direction.
    circularity
        4 π area / perimeter², at most 1; the area counts holes as filled.
    eccentricity
        Of the ellipse with the same second moments: 0 for a disc, towards 1 for a line.
    """

    area_px: NDArray[np.int64]
    perimeter_px: NDArray[np.float64]
    circularity: NDArray[np.float64]
    eccentricity: NDArray[np.float64]


def exact(rings: Rings) -> Outline:
    """Return the outline along the sides of the pixels."""
    points = np.stack([rings.x, rings.y], axis=1).astype(np.float64)
    return Outline(points=points, is_node=rings.node, first=rings.first)


def smooth(rings: Rings, *, tolerance: float) -> Outline:
    """Return the outline without steps.

    Parameters
    ----------
    rings
        Traced with ``shares_borders`` where neighbours are to keep their common border.
    tolerance
        How far the result may stray from the cut corners, canvas pixels.
    """
    cut = _with_corners_cut(rings)
    thin = _thinned(cut, tolerance=tolerance)
    # What would shrink to a line stays as it was.
    before, after = ring_areas(cut.points[:, 0], cut.points[:, 1], cut.first), _areas_of_some(thin)
    keep_cut = (after * np.sign(before) <= 0.25 * np.abs(before)) | (np.diff(thin.first) < 3)  # noqa: PLR2004
    return _replaced(thin, cut, keep_cut) if keep_cut.any() else thin


def measure(rings: Rings) -> Measures:
    """Return the shape of each region."""
    exterior = rings.region[:-1]
    cut = _with_corners_cut(rings)
    after = _next(cut.first)
    steps = np.hypot(*(cut.points[after] - cut.points).T)
    perimeter = np.add.reduceat(steps, cut.first[:-1])[exterior] * _LENGTH_FACTOR
    filled = ring_areas(rings.x, rings.y, rings.first)[exterior]
    return Measures(
        area_px=rings.area_px,
        perimeter_px=perimeter,
        circularity=np.minimum(1.0, 4 * np.pi * filled / perimeter**2),
        eccentricity=_eccentricity(rings),
    )


def _eccentricity(rings: Rings) -> NDArray[np.float64]:
    # Moments of the area by Green's theorem, about the first corner of each region.
    corners = np.diff(rings.first[rings.region])
    begin = rings.first[rings.region[:-1]]
    x = (rings.x - np.repeat(rings.x[begin], corners)).astype(np.float64)
    y = (rings.y - np.repeat(rings.y[begin], corners)).astype(np.float64)
    after = _next(rings.first)
    xn, yn = x[after], y[after]
    cross = x * yn - xn * y

    def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.add.reduceat(values, begin))

    area = total(cross) / 2
    mean_x, mean_y = total(cross * (x + xn)) / (6 * area), total(cross * (y + yn)) / (6 * area)
    xx = total(cross * (x * x + x * xn + xn * xn)) / (12 * area) - mean_x**2
    yy = total(cross * (y * y + y * yn + yn * yn)) / (12 * area) - mean_y**2
    xy = total(cross * (2 * x * y + x * yn + xn * y + 2 * xn * yn)) / (24 * area) - mean_x * mean_y
    spread = np.hypot(xx - yy, 2 * xy)
    return np.sqrt(np.clip(2 * spread / (xx + yy + spread), 0, 1))


def _next(first: NDArray[np.int64]) -> NDArray[np.int64]:
    after = np.arange(1, int(first[-1]) + 1)
    after[first[1:] - 1] = first[:-1]
    return after


def _with_corners_cut(rings: Rings) -> Outline:
    corner = np.stack([rings.x, rings.y], axis=1).astype(np.float64)
    after = _next(rings.first)
    run = corner[after] - corner
    length = np.abs(run).sum(axis=1)
    out = 0.5 * run / length[:, None]
    into, length_in = np.empty_like(out), np.empty_like(length)
    into[after], length_in[after] = out, length
    before_is_node = np.empty_like(rings.node)
    before_is_node[after] = rings.node
    pair = np.stack([corner - into, corner + out], axis=1)
    pair[rings.node] = corner[rings.node][:, None]
    # On a run of one pixel both cuts are the same point; it is kept once.
    has_first = ~rings.node & ((length_in > 1) | before_is_node)
    keep = np.stack([has_first, np.ones_like(has_first)], axis=1)
    ring = np.repeat(np.arange(len(rings.first) - 1), np.diff(rings.first))
    count = np.bincount(ring, weights=keep.sum(axis=1), minlength=len(rings.first) - 1).astype(np.int64)
    return Outline(
        points=pair[keep],
        is_node=np.repeat(rings.node, 2).reshape(-1, 2)[keep],
        first=np.concatenate([[0], np.cumsum(count)]),
    )


def _thinned(outline: Outline, *, tolerance: float) -> Outline:
    turned, is_node = _from_canonical_start(outline)
    count = np.diff(outline.first)
    ring = np.repeat(np.arange(len(count)), count)
    # A stretch runs from one fixed point up to and including the next; a ring without any is one stretch.
    opens = is_node.copy()
    opens[outline.first[:-1]] = True
    begin = np.flatnonzero(opens)
    end = np.concatenate([begin[1:], [len(turned)]])
    is_last = np.concatenate([ring[begin[1:]] != ring[begin[:-1]], [True]])
    last = np.where(is_last, outline.first[ring[begin]], np.minimum(end, len(turned) - 1))
    inner = end - begin
    number = len(begin)
    stretch = np.repeat(np.arange(number), inner + 1)
    at = np.arange(len(stretch)) - np.repeat(np.arange(number), inner + 1)
    at[np.cumsum(inner + 1) - 1] = last
    points = turned[at]

    # The same stretch seen from its other side must be walked the same way.
    start = np.cumsum(inner + 1) - inner - 1
    stop = start + inner
    is_loop = (points[start] == points[stop]).all(axis=1)
    one, two = points[np.where(is_loop, start + 1, start)], points[np.where(is_loop, stop - 1, stop)]
    is_backward = (one[:, 1] > two[:, 1]) | ((one[:, 1] == two[:, 1]) & (one[:, 0] > two[:, 0]))
    points = _reversed_where(points, start, inner + 1, is_backward)
    lines = shapely.simplify(shapely.linestrings(points, indices=stretch), tolerance, preserve_topology=False)
    thin, of = shapely.get_coordinates(lines, return_index=True)
    left = np.bincount(of, minlength=number)
    starts = np.cumsum(left) - left
    thin = _reversed_where(thin, starts, left, is_backward)

    keep = np.ones(len(thin), dtype=np.bool_)
    keep[starts + left - 1] = False
    per_ring = np.bincount(ring[begin], weights=left - 1, minlength=len(count)).astype(np.int64)
    fixed = np.zeros(len(thin), dtype=np.bool_)
    fixed[starts] = is_node[begin]
    return Outline(points=thin[keep], is_node=fixed[keep], first=np.concatenate([[0], np.cumsum(per_ring)]))


def _from_canonical_start(outline: Outline) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return points and flags with every ring begun at a node, or else at its topmost, leftmost point."""
    begin, count = outline.first[:-1], np.diff(outline.first)
    x, y = np.rint(outline.points.T * 2).astype(np.int64)
    rank = (y * (int(x.max()) + 1) + x) + np.where(outline.is_node, 0, np.int64(1) << 61)
    is_least = rank == np.repeat(np.minimum.reduceat(rank, begin), count)
    ring = np.repeat(np.arange(len(count)), count)
    # A node may be passed twice by one ring; the first passage counts.
    least = np.flatnonzero(is_least)
    least = least[np.concatenate([[True], ring[least[1:]] != ring[least[:-1]]])]
    within = np.arange(len(x)) - np.repeat(begin, count)
    turned = (within + np.repeat(least - begin, count)) % np.repeat(count, count) + np.repeat(begin, count)
    return outline.points[turned], outline.is_node[turned]


def _reversed_where(
    points: NDArray[np.float64], start: NDArray[np.int64], count: NDArray[np.int64], mask: NDArray[np.bool_]
) -> NDArray[np.float64]:
    within = np.arange(len(points)) - np.repeat(start, count)
    flipped = np.repeat(start + count - 1, count) - within
    return points[np.where(np.repeat(mask, count), flipped, np.arange(len(points)))]


def _areas_of_some(outline: Outline) -> NDArray[np.float64]:
    """Return signed areas, 0 for rings that have lost all points."""
    areas = np.zeros(len(outline.first) - 1)
    some = np.diff(outline.first) > 0
    if some.any():
        first = np.concatenate([outline.first[:-1][some], outline.first[-1:]])
        areas[some] = ring_areas(outline.points[:, 0], outline.points[:, 1], first)
    return areas


def _replaced(outline: Outline, other: Outline, mask: NDArray[np.bool_]) -> Outline:
    """Return the rings of `outline`, or those of `other` where `mask` is set."""
    count = np.where(mask, np.diff(other.first), np.diff(outline.first))
    both = np.concatenate([outline.points, other.points])
    flags = np.concatenate([outline.is_node, other.is_node])
    start = np.where(mask, other.first[:-1] + len(outline.points), outline.first[:-1])
    first = np.concatenate([[0], np.cumsum(count)])
    at = np.arange(int(first[-1])) + np.repeat(start - first[:-1], count)
    return Outline(points=both[at], is_node=flags[at], first=first)
