"""Score the outlines of whole objects by the object Hausdorff distance of the GlaS challenge, in pixels."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy import ndimage

from wsiseg.metrics.instances import strongest_per_object
from wsiseg.metrics.tally import Tally, quotient

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.metrics.overlaps import Overlaps


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HausdorffTally(Tally):
    """Sums over objects of area, and of area times distance to the counterpart.

    Attributes
    ----------
    pred_pixels, truth_pixels
        Foreground pixels.
    pred_distance, truth_distance
        Sums of area times Hausdorff distance in pixels.
    """

    pred_pixels: NDArray[np.float64]
    truth_pixels: NDArray[np.float64]
    pred_distance: NDArray[np.float64]
    truth_distance: NDArray[np.float64]

    def distance(self) -> NDArray[np.float64]:
        """Return the object Hausdorff distance in pixels; 0 where neither side holds an object.

        References
        ----------
        .. [1] Sirinukunwattana et al., "Gland segmentation in colon histology images: The GlaS challenge contest",
           Medical Image Analysis 2017.
        """
        sides = (
            quotient(self.pred_distance, self.pred_pixels, empty=np.nan),
            quotient(self.truth_distance, self.truth_pixels, empty=np.nan),
        )
        known = [np.where(np.isnan(side), other, side) for side, other in (sides, sides[::-1])]
        return np.nan_to_num((known[0] + known[1]) / 2)


def tally_hausdorff(pred: NDArray[np.integer], truth: NDArray[np.integer], overlaps: Overlaps) -> HausdorffTally:
    """Return the sums of one image.

    Each object, taken as the set of its pixels, is compared with the object of
    the other side that shares most pixels with it or, where none does, with
    the one that is nearest by Hausdorff distance. Where the other side is
    empty the image's diagonal stands in for the distance.

    Parameters
    ----------
    pred, truth
        Labels of one shape, 0 = background.
    overlaps
        Their table of intersections.
    """
    diagonal = hypot(*pred.shape)
    preds = _Objects.of(pred, overlaps.pred_labels)
    truths = _Objects.of(truth, overlaps.truth_labels)
    shared: dict[tuple[int, int], float] = {}

    def total(here: _Objects, there: _Objects, partner: NDArray[np.intp], areas: NDArray[np.int64]) -> float:
        found = 0.0
        for index, area in enumerate(areas):
            other = int(partner[index])
            if other < 0:
                distance = _nearest(here, index, there, farthest=diagonal)
            else:
                pair = (index, other) if here is preds else (other, index)
                if pair not in shared:
                    shared[pair] = _distance(here, index, there, other)
                distance = shared[pair]
            found += float(area) * distance
        return found

    pred_partner = _partners(overlaps.pred_index, overlaps.truth_index, overlaps.shared, overlaps.pred_areas.size)
    truth_partner = _partners(overlaps.truth_index, overlaps.pred_index, overlaps.shared, overlaps.truth_areas.size)
    return HausdorffTally(
        pred_pixels=np.asarray(overlaps.pred_areas.sum(), dtype=np.float64),
        truth_pixels=np.asarray(overlaps.truth_areas.sum(), dtype=np.float64),
        pred_distance=np.asarray(total(preds, truths, pred_partner, overlaps.pred_areas)),
        truth_distance=np.asarray(total(truths, preds, truth_partner, overlaps.truth_areas)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Objects:
    """The objects of a label image with their bounding boxes, (N, 4): y0, x0, y1, x1, half-open."""

    image: NDArray[np.integer]
    labels: NDArray[np.int64]
    boxes: NDArray[np.int64]

    @classmethod
    def of(cls, image: NDArray[np.integer], labels: NDArray[np.int64]) -> Self:
        rows, columns = np.nonzero(image)
        order = np.argsort(labels)
        index = order[np.searchsorted(labels, image[rows, columns], sorter=order)]
        boxes = np.empty((labels.size, 4), dtype=np.int64)
        boxes[:, :2], boxes[:, 2:] = np.iinfo(np.int64).max, 0
        for column, values in enumerate((rows, columns)):
            np.minimum.at(boxes[:, column], index, values)
            np.maximum.at(boxes[:, column + 2], index, values + 1)
        return cls(image, labels, boxes)

    def mask(self, index: int, box: NDArray[np.int64]) -> NDArray[np.bool_]:
        y0, x0, y1, x1 = box
        mask: NDArray[np.bool_] = self.image[y0:y1, x0:x1] == self.labels[index]
        return mask


def _partners(
    objects: NDArray[np.int64], others: NDArray[np.int64], shared: NDArray[np.int64], count: int
) -> NDArray[np.intp]:
    """Return for each object the other that shares most pixels, -1 where none does."""
    partner = np.full(count, -1, dtype=np.intp)
    rows = strongest_per_object(objects, shared)
    partner[objects[rows]] = others[rows]
    return partner


def _distance(here: _Objects, index: int, there: _Objects, other: int) -> float:
    """Return the Hausdorff distance of two objects."""
    one, two = here.boxes[index], there.boxes[other]
    box = np.concatenate((np.minimum(one[:2], two[:2]), np.maximum(one[2:], two[2:])))
    first, second = here.mask(index, box), there.mask(other, box)
    return max(_directed(first, second), _directed(second, first))


def _directed(points: NDArray[np.bool_], target: NDArray[np.bool_]) -> float:
    outside = points & ~target
    if not outside.any():
        return 0.0
    distances: NDArray[np.float64] = ndimage.distance_transform_edt(~target)
    return float(distances[outside].max())


def _nearest(here: _Objects, index: int, there: _Objects, *, farthest: float) -> float:
    """Return the distance to the nearest object of the other side, or `farthest` if there is none."""
    # Where a side of one box lies beyond the same side of the other, no distance can be smaller than the gap.
    bounds = np.abs(there.boxes - here.boxes[index]).max(axis=1)
    best = farthest
    for other in np.argsort(bounds, kind="stable"):
        if bounds[other] >= best:
            break
        best = min(best, _distance(here, index, there, int(other)))
    return best
