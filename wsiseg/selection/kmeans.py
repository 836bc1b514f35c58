"""k-means for points that need not fit into memory.

Beginnings compete on points in memory (`compete`); the best goes on over all points, which are read in blocks, again
and again (`refine`). Sums are kept in float64, so that neither the blocks nor their number matter. Several sets of
points, each with centres of its own, share the reading.

A beginning that has settled on a sample, and exact passes over all points until it has settled there, too, stand in
for mini-batches [2] with a few exact passes after them: every point counts as often as the others, and no rate of
learning is to be chosen.

References
----------
.. [1] Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 1982.
.. [2] Sculley, "Web-Scale K-Means Clustering", WWW 2010.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
    # Points (n, D), and the set (n,) that each belongs to.
    Block = tuple[Vectors, NDArray[np.integer]]

# Relative change of the sum of squared distances at which centres have settled.
SETTLED: Final = 1e-4
MOST_PASSES: Final = 300
_BLOCK: Final = 1024


def nearest(points: Vectors, centres: Vectors) -> tuple[NDArray[np.intp], Vectors]:
    """Return which centre (K, D) is nearest to each point (n, D), and the squared distance; of equals the first.

    Distances suffer where points lie far from the origin compared with their spread.
    """
    distances = _squared(points, centres)
    index = distances.argmin(axis=1)
    return index, np.take_along_axis(distances, index[:, None], axis=1)[:, 0]


def compete(points: Vectors, count: int, *, restarts: int, rng: np.random.Generator) -> Vectors:
    """Return the centres (K, D) of the best of several beginnings with points drawn at random.

    Parameters
    ----------
    points
        float32, (n, D), n ≥ K, around the origin.
    count
        K.
    restarts
        Number of beginnings; they share each pass.
    rng
        Draws the points.

    Raises
    ------
    ValueError
        If there are fewer points than centres.
    """
    if len(points) < count:
        raise ValueError(f"{len(points)} points for {count} centres")
    centres = np.stack([points[rng.choice(len(points), count, replace=False)] for _ in range(restarts)])
    inertia = np.full(restarts, np.inf)
    moving = np.arange(restarts)
    for _ in range(MOST_PASSES):
        tally = _Tally(len(moving), count, points.shape[1])
        for first in range(0, len(points), _BLOCK):
            block = points[first : first + _BLOCK]
            distances = _squared(block, centres[moving].reshape(-1, points.shape[1]))
            distances = distances.reshape(len(block), len(moving), count)
            index = distances.argmin(axis=2)
            least = np.take_along_axis(distances, index[..., None], axis=2)[..., 0]
            tally.add(block, index, least, slice(None))
        centres[moving] = tally.centres(centres[moving])
        has_settled = inertia[moving] - tally.inertia <= SETTLED * tally.inertia
        inertia[moving] = tally.inertia
        moving = moving[~has_settled]
        if len(moving) == 0:
            break
    best: Vectors = centres[inertia.argmin()]
    return best


def refine(read: Callable[[], Iterator[Block]], centres: Vectors) -> Vectors:
    """Return centres that have settled among all points.

    An empty cluster gets the point of its set that is farthest from its centre.

    Parameters
    ----------
    read
        Gives all points block by block, each time it is called: float32, (n, D), around the origin, and the set that
        each belongs to.
    centres
        float32, (G, K, D), of each set those that it begins with.
    """
    inertia = np.full(len(centres), np.inf)
    for _ in range(MOST_PASSES):
        tally = _Tally(*centres.shape)
        for points, sets in read():
            for group in np.unique(sets).tolist():
                own = points[sets == group] if len(centres) > 1 else points
                index, distance = nearest(own, centres[group])
                tally.add(own, index[:, None], distance[:, None], slice(group, group + 1))
        centres = tally.centres(centres)
        has_settled = inertia - tally.inertia <= SETTLED * tally.inertia
        inertia = tally.inertia
        if has_settled.all():
            break
    return centres


class _Tally:
    """What one pass over the points finds out, for each of S sets of K centres."""

    def __init__(self, sets: int, count: int, dimensions: int) -> None:
        self.inertia = np.zeros(sets)
        self._sums = np.zeros((sets, count, dimensions))
        self._counts = np.zeros((sets, count))
        self._farthest = np.zeros(sets, dtype=np.float32)
        self._outliers = np.zeros((sets, dimensions), dtype=np.float32)

    def add(self, points: Vectors, index: NDArray[np.intp], distance: Vectors, sets: slice) -> None:
        """Add points (n, D) whose nearest centre and squared distance is known for some sets, (n, s)."""
        hot = np.zeros((*index.shape, self._counts.shape[1]), dtype=np.float32)
        np.put_along_axis(hot, index[..., None], 1, axis=2)
        sums = hot.reshape(len(points), -1).T @ points
        self._sums[sets] += sums.reshape(self._sums[sets].shape)
        self._counts[sets] += hot.sum(axis=0)
        self.inertia[sets] += distance.sum(axis=0, dtype=np.float64)
        far = distance.argmax(axis=0)
        reached = distance[far, np.arange(len(far))]
        is_farther = reached > self._farthest[sets]
        self._farthest[sets] = np.where(is_farther, reached, self._farthest[sets])
        self._outliers[sets] = np.where(is_farther[:, None], points[far], self._outliers[sets])

    def centres(self, before: Vectors) -> Vectors:
        """Return the means, and for the first empty cluster of a set its outlier."""
        is_empty = self._counts == 0
        means = self._sums / np.maximum(self._counts, 1)[..., None]
        centres: Vectors = np.where(is_empty[..., None], before, means).astype(np.float32)
        for group in np.flatnonzero(is_empty.any(axis=1) & (self._farthest > 0)).tolist():
            centres[group, is_empty[group].argmax()] = self._outliers[group]
        return centres


def _squared(points: Vectors, centres: Vectors) -> Vectors:
    """Return the squared distances (n, K)."""
    lengths = np.einsum("nd,nd->n", points, points)[:, None] + np.einsum("kd,kd->k", centres, centres)
    distances: Vectors = np.maximum(lengths - 2 * (points @ centres.T), 0)
    return distances
