"""Score one structure of one volume or image: overlap, and the distances between surfaces.

A surface is what of a mask a cross of face neighbours wears away: the voxels with a neighbour, of six in a volume and
of four in an image, outside the mask or the array.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# In the order in which they are reported; the last three are distances.
SURFACE_SCORES: Final = ("dice", "jaccard", "hd95", "asd", "assd")
SURFACE_DISTANCES: Final = SURFACE_SCORES[2:]


def surface_scores(
    pred: NDArray[np.bool_], truth: NDArray[np.bool_], *, spacing: Sequence[float] | None = None
) -> dict[str, float]:
    """Return the scores of one mask.

    Parameters
    ----------
    pred, truth
        Masks of one shape and any number of axes.
    spacing
        From voxel to voxel along each axis, in the unit in which distances are to be given; None counts voxels.

    Returns
    -------
    dict[str, float]
        ``dice`` and ``jaccard``, 0 … 1; ``hd95``, the 95th percentile of all distances from either surface to the
        other, taken together; ``asd``, the mean distance from the predicted surface to the true one, which is another
        the other way round; ``assd``, the mean of the two means. Two empty masks agree: 1, 1 and distances of 0. Of one
        empty mask there are no distances: 0, 0 and NaN.

    References
    ----------
    .. [1] The definitions are those of the library medpy, with which volumes are usually scored.
    """
    sizes = int(pred.sum()), int(truth.sum())
    if not any(sizes):
        return dict(zip(SURFACE_SCORES, (1.0, 1.0, 0.0, 0.0, 0.0), strict=True))
    if not all(sizes):
        return dict(zip(SURFACE_SCORES, (0.0, 0.0, np.nan, np.nan, np.nan), strict=True))
    pred, truth = _within_common_box(pred, truth)
    shared = int((pred & truth).sum())
    there, back = _distances(pred, truth, spacing), _distances(truth, pred, spacing)
    scores = (
        2 * shared / sum(sizes),
        shared / (sum(sizes) - shared),
        np.percentile(np.concatenate((there, back)), 95),
        there.mean(),
        (there.mean() + back.mean()) / 2,
    )
    return {name: float(score) for name, score in zip(SURFACE_SCORES, scores, strict=True)}


def _within_common_box(pred: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], ...]:
    """Return the part of both that holds all of them: nothing outside has a part in any distance."""
    (box,) = ndimage.find_objects((pred | truth).astype(np.uint8))
    return pred[box], truth[box]


def _distances(
    mask: NDArray[np.bool_], other: NDArray[np.bool_], spacing: Sequence[float] | None
) -> NDArray[np.float64]:
    """Return the distance of each voxel on the surface of `mask` to the surface of the other."""
    distances: NDArray[np.float64] = ndimage.distance_transform_edt(~_surface(other), sampling=spacing)
    return distances[_surface(mask)]


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    surface: NDArray[np.bool_] = mask & ~ndimage.binary_erosion(mask)
    return surface
