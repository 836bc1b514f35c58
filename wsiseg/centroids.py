"""How far each pixel of an object lies from its centroid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def ways_to_centroids(labels: NDArray[np.integer]) -> NDArray[np.float32]:
    """Return how many pixels down and to the right the centroid of each pixel's object lies.

    Parameters
    ----------
    labels
        Integer (H, W): positive ids are objects, in any order and with gaps.

    Returns
    -------
    NDArray[np.float32]
        (2, H, W): dy and dx, 0 outside of objects.
    """
    ways = np.zeros((2, *labels.shape), dtype=np.float32)
    rows, columns = np.nonzero(labels > 0)
    if len(rows):
        _, index = np.unique(labels[rows, columns], return_inverse=True)
        areas = np.bincount(index)
        for way, at in zip(ways, (rows, columns), strict=True):
            way[rows, columns] = (np.bincount(index, weights=at) / areas)[index] - at
    return ways
