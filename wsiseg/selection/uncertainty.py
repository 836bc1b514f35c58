"""Uncertainty sampling: the patches of which a trained model is least sure, kept apart from one another.

References
----------
.. [1] Settles, "Active Learning Literature Survey", University of Wisconsin-Madison, 2009 (entropy as uncertainty). How
   patches are kept apart is wsiseg's own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.geometry import Window
from wsiseg.selection.groups import Choice, Group
from wsiseg.selection.pool import covered_px

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.stores.mask_store import MaskStore

_MOST: Final = 255
# Where all are equally certain, what lies apart still comes first.
_LEAST: Final = 1e-6


def mean_uncertainty(prediction: MaskStore, boxes: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the mean entropy of what was predicted in boxes, 0 (certain) … 1 (all classes equally likely), (n,).

    Parameters
    ----------
    prediction
        Of the slide that the boxes lie on. Where it found no tissue, or could read nothing, it is certain.
    boxes
        Left, top, right and bottom in pixels of its canvas, (n, 4); edges are rounded. What lies beyond the canvas does
        not count.

    Raises
    ------
    StoreError
        If the prediction is damaged.
    """
    size = prediction.canvas.size
    edges = np.rint(boxes).astype(np.int64).clip(0, (size.width, size.height) * 2)
    found = np.zeros(len(boxes), dtype=np.float32)
    rows, owners = np.unique(edges[:, [1, 3]], axis=0, return_inverse=True)
    # Patches of one row lie in the same shards.
    for number, (top, bottom) in enumerate(rows.tolist()):
        own = np.flatnonzero(owners.ravel() == number)
        left, right = edges[own, 0], edges[own, 2]
        strip = Window.from_edges(int(left.min()), top, int(right.max()), bottom)
        if strip.is_empty:
            continue
        columns = prediction.read("uncertainty", strip).sum(axis=0, dtype=np.int64)
        sums = np.concatenate(([0], columns.cumsum()))
        area = np.maximum(1, (right - left) * (bottom - top))
        found[own] = (sums[right - strip.x] - sums[left - strip.x]) / (_MOST * area)
    return found


def by_uncertainty(boxes: NDArray[np.int64], uncertainty: NDArray[np.float32], count: int) -> Choice:
    """Return the most uncertain patches, far from one another, each with the patches around it.

    The first is the most uncertain one. Each that follows has the largest product of its uncertainty and of its
    distance from those before on the same image, as a part of the diameter of a disc so large that `count` of them have
    the area of the pool; what lies farther away counts as 1.

    Parameters
    ----------
    boxes
        Number of the image, left, top, right and bottom of each patch of the pool, (n, 5).
    uncertainty
        Of each, 0 … 1, (n,).
    count
        Patches to choose, at most n.

    Returns
    -------
    Choice
        A group for each chosen patch: those of its image to which it is the nearest chosen one, the most uncertain
        first after it. Patches of other images belong to none.
    """
    image, centres = boxes[:, 0], (boxes[:, 1:3] + boxes[:, 3:5]) / 2
    diameter = 2 * np.sqrt(_area(boxes) / (np.pi * count))
    weights = uncertainty.astype(np.float64) + _LEAST
    nearest, cluster = np.full(len(boxes), np.inf), np.full(len(boxes), -1, dtype=np.int32)
    chosen: list[int] = []
    for number in range(count):
        gains = weights * np.minimum(1, nearest / diameter)
        gains[chosen] = -1
        place = int(gains.argmax())
        chosen.append(place)
        distance = np.where(image == image[place], np.linalg.norm(centres - centres[place], axis=1), np.inf)
        cluster[distance < nearest] = number
        nearest = np.minimum(nearest, distance)
    # One of several at the same place would belong to the first of them.
    cluster[chosen] = np.arange(count)
    groups = []
    for number, place in enumerate(chosen):
        members = np.flatnonzero(cluster == number)
        order = members[np.lexsort((members, -uncertainty[members], members != place))]
        scores = {"uncertainty": uncertainty[order].astype(np.float64)}
        groups.append(Group(number=number, members=len(members), places=order, scores=scores))
    return Choice(groups=tuple(groups), cluster=cluster)


def _area(boxes: NDArray[np.int64]) -> float:
    """Return the pixels under boxes (n, 5), each counted once."""
    images = [boxes[boxes[:, 0] == number, 1:] for number in np.unique(boxes[:, 0])]
    return math.fsum(covered_px(own, [1.0] * len(own)) for own in images)
