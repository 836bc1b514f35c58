"""Making a label map of whole objects out of one that pixels have voted for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from skimage.measure import label

if TYPE_CHECKING:
    from numpy.typing import NDArray


def tidied(labels: NDArray[np.int32], *, min_area_px: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return connected objects without holes, numbered 1 … n in the order of their ids, and those ids.

    Of each object the largest part stays, where pixels count as connected by their sides.
    Holes, which are parts of the background or of other objects with one object all around,
    are filled if they are no larger than that object; the border of the array closes no hole.

    Parameters
    ----------
    labels
        int32 (H, W), 0 background.
    min_area_px
        Objects with fewer pixels are dropped.

    Returns
    -------
    tuple
        int32 (H, W), and the old id of each object, int64 (n,).
    """
    # Background is a value like any other here: its parts are the candidates for holes.
    parts: NDArray[np.int64] = label(labels, background=-1, connectivity=1)  # type: ignore[no-untyped-call]
    count = int(parts.max(initial=0)) + 1
    value = np.zeros(count, dtype=np.int64)
    value[parts] = labels
    area = np.bincount(parts.ravel(), minlength=count)
    # The last of equal entries is the one that is kept: the largest part, the first in the array among equals.
    by_area = np.lexsort((-np.arange(count), area))
    largest = np.zeros(int(value.max(initial=0)) + 1, dtype=np.int64)
    largest[value[by_area]] = by_area
    is_main = (largest[value] == np.arange(count)) & (value > 0)

    around = _only_neighbour(parts, count)
    is_hole = ~is_main & (around > 0) & is_main[around] & (area <= area[around])
    owner = np.where(is_hole, value[around], np.where(is_main, value, 0))
    areas = np.bincount(owner, weights=area, minlength=len(largest))
    kept = areas >= min_area_px
    kept[0] = False
    number = (np.cumsum(kept) * kept).astype(np.int32)
    return number[owner][parts], np.flatnonzero(kept)


def mean_in_objects(values: NDArray[np.float32], labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the mean of `values` (H, W) in each object of a map with ids 1 … n, float32 (n,)."""
    at = np.flatnonzero(labels)
    index = labels.ravel()[at] - 1
    # Rounded to fixed point: the sum does not depend on where in the array the object lies.
    fixed = np.rint(values.ravel()[at].astype(np.float64) * 2**24)
    return (np.bincount(index, weights=fixed) / np.bincount(index) / 2**24).astype(np.float32)


def agreement(maps: NDArray[np.float32], shapes: NDArray[np.float32], labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return how far maps agree with those of the shapes of objects, float32 (n,).

    1 where they are equal, and 0 where they differ as much as if they were zero, or more (mean squares).

    Parameters
    ----------
    maps, shapes
        float32 (k, H, W).
    labels
        int32 (H, W), ids 1 … n without gaps.
    """
    off, all_of_it = (mean_in_objects(np.square(part).sum(axis=0), labels) for part in (maps - shapes, shapes))
    # Objects of one pixel have no shape.
    share = np.divide(off, all_of_it, out=np.ones_like(off), where=all_of_it > 0)
    return 1 - share.clip(0, 1)


def _only_neighbour(parts: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the one part (count,) that surrounds each part, or 0 if several parts or the border do."""
    low, high = np.full(count, count), np.zeros(count, dtype=np.int64)
    for a, b in ((parts[:, :-1], parts[:, 1:]), (parts[:-1], parts[1:])):
        differs = a != b
        one, other = a[differs], b[differs]
        for at, beside in ((one, other), (other, one)):
            np.minimum.at(low, at, beside)
            np.maximum.at(high, at, beside)
    only = np.where(low == high, high, 0)
    for edge in (parts[:1], parts[-1:], parts[:, :1], parts[:, -1:]):
        only[edge] = 0
    return only
