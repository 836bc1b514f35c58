"""Score predicted objects against true ones: AJI, AJI+, Dice, F1, PQ, object F1 and object Dice.

Every score is a quotient of sums over objects. The sums of an image are kept
as an `InstanceTally`; adding tallies pools images, so per-image, pooled and
resampled scores all come from the same formulas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from wsiseg.metrics.tally import Tally, quotient

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.metrics.overlaps import Overlaps

IOU_THRESHOLDS: Final = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InstanceTally(Tally):
    """The sums from which instance scores are made.

    `matched` and `iou_sum` carry one more axis, for `IOU_THRESHOLDS`.

    Attributes
    ----------
    pred_objects, truth_objects
        Objects on either side.
    pred_pixels, truth_pixels, shared_pixels
        Foreground pixels on either side and on both.
    aji_shared, aji_union, aji_plus_shared, aji_plus_union
        Numerators and denominators of AJI and AJI+.
    detected
        True objects of which at least half lies in a predicted one that shares more with no other.
    matched, iou_sum
        Pairs whose IoU exceeds each threshold, and the sum of their IoUs.
    pred_dice, truth_dice
        Sum over objects of area times Dice with the object of the other side
        that shares most pixels.
    """

    pred_objects: NDArray[np.float64]
    truth_objects: NDArray[np.float64]
    pred_pixels: NDArray[np.float64]
    truth_pixels: NDArray[np.float64]
    shared_pixels: NDArray[np.float64]
    aji_shared: NDArray[np.float64]
    aji_union: NDArray[np.float64]
    aji_plus_shared: NDArray[np.float64]
    aji_plus_union: NDArray[np.float64]
    detected: NDArray[np.float64]
    matched: NDArray[np.float64]
    iou_sum: NDArray[np.float64]
    pred_dice: NDArray[np.float64]
    truth_dice: NDArray[np.float64]

    def scores(self) -> dict[str, NDArray[np.float64]]:
        """Return every score by name, each of shape S and in [0, 1].

        Where neither side holds an object there is nothing to get wrong, and
        the score is 1. Segmentation quality is NaN where nothing matched.

        References
        ----------
        .. [1] Kumar et al., "A Dataset and a Technique for Generalized Nuclear Segmentation for Computational
           Pathology", IEEE TMI 2017 (AJI).
        .. [2] Graham et al., "HoVer-Net", Medical Image Analysis 2019 (why one-to-one matching is fairer).
        .. [3] Kirillov et al., "Panoptic Segmentation", CVPR 2019 (PQ = SQ · DQ).
        .. [4] Sirinukunwattana et al., "Gland segmentation in colon histology images: The GlaS challenge contest",
           Medical Image Analysis 2017 (object Dice and object F1).
        """
        objects = self.pred_objects + self.truth_objects
        f1 = quotient(2 * self.matched, objects[..., None], empty=1.0)
        recognition = f1[..., 0]
        quality = quotient(self.iou_sum[..., 0], self.matched[..., 0], empty=np.nan)
        quality = np.where(objects == 0, 1.0, quality)
        sides = (
            quotient(self.pred_dice, self.pred_pixels, empty=0.0),
            quotient(self.truth_dice, self.truth_pixels, empty=0.0),
        )
        return {
            "aji": quotient(self.aji_shared, self.aji_union, empty=1.0),
            "aji_plus": quotient(self.aji_plus_shared, self.aji_plus_union, empty=1.0),
            "dice": quotient(2 * self.shared_pixels, self.pred_pixels + self.truth_pixels, empty=1.0),
            "f1": recognition,
            "precision": quotient(self.matched[..., 0], self.pred_objects, empty=np.nan),
            "recall": quotient(self.matched[..., 0], self.truth_objects, empty=np.nan),
            "f1_50_95": f1.mean(axis=-1),
            "pq": np.where(recognition == 0, 0.0, recognition * quality),
            "sq": quality,
            "dq": recognition,
            "object_f1": quotient(2 * self.detected, objects, empty=1.0),
            "object_dice": np.where(objects == 0, 1.0, (sides[0] + sides[1]) / 2),
        }


def tally_instances(overlaps: Overlaps) -> InstanceTally:
    """Return the sums of one image from its table of intersections.

    AJI gives each true object the predicted one of highest IoU, and may use a
    prediction twice; AJI+ chooses the pairs one to one so that the sum of
    IoUs is largest. F1 and PQ count pairs whose IoU *exceeds* the threshold,
    which above 0.5 makes them unique.
    """
    ious = overlaps.ious
    best = strongest_per_object(overlaps.truth_index, ious)
    optimal = match_one_to_one(overlaps)
    hits = ious[:, None] > np.asarray(IOU_THRESHOLDS)
    pair_areas = overlaps.pred_areas[overlaps.pred_index] + overlaps.truth_areas[overlaps.truth_index]
    dices = 2 * overlaps.shared / pair_areas
    largest_truth = strongest_per_object(overlaps.truth_index, overlaps.shared)
    largest_pred = strongest_per_object(overlaps.pred_index, overlaps.shared)

    held = largest_pred[2 * overlaps.shared[largest_pred] >= overlaps.truth_areas[overlaps.truth_index[largest_pred]]]

    def sums(**values: object) -> InstanceTally:
        return InstanceTally(**{name: np.asarray(value, dtype=np.float64) for name, value in values.items()})

    return sums(
        pred_objects=overlaps.pred_labels.size,
        truth_objects=overlaps.truth_labels.size,
        pred_pixels=overlaps.pred_areas.sum(),
        truth_pixels=overlaps.truth_areas.sum(),
        shared_pixels=overlaps.shared.sum(),
        aji_shared=overlaps.shared[best].sum(),
        aji_union=_joint_area(overlaps, best),
        aji_plus_shared=overlaps.shared[optimal].sum(),
        aji_plus_union=_joint_area(overlaps, optimal),
        # Two halves of one object detect it once.
        detected=np.unique(overlaps.truth_index[held]).size,
        matched=hits.sum(axis=0),
        iou_sum=(hits * ious[:, None]).sum(axis=0),
        pred_dice=(overlaps.pred_areas[overlaps.pred_index] * dices)[largest_pred].sum(),
        truth_dice=(overlaps.truth_areas[overlaps.truth_index] * dices)[largest_truth].sum(),
    )


def match_one_to_one(overlaps: Overlaps) -> NDArray[np.intp]:
    """Return the rows of `overlaps` that pair objects one to one with the largest sum of IoUs.

    The table falls apart into small groups of objects that touch, and each is
    solved alone, so the cost grows with the image and not with its cube.
    """
    truths, preds = overlaps.truth_labels.size, overlaps.pred_labels.size
    if overlaps.shared.size == 0:
        return np.empty(0, dtype=np.intp)
    ends = (overlaps.truth_index, overlaps.pred_index + truths)
    graph = coo_array((np.ones(overlaps.shared.size), ends), shape=(truths + preds, truths + preds))
    group_of_object = connected_components(graph, directed=False)[1]
    groups = group_of_object[overlaps.truth_index]
    order = np.argsort(groups, kind="stable")
    chosen = [
        rows[_assign(overlaps.truth_index[rows], overlaps.pred_index[rows], overlaps.ious[rows])]
        for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    ]
    return np.sort(np.concatenate(chosen))


def _assign(rows: NDArray[np.int64], columns: NDArray[np.int64], gains: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return which entries of a small sparse table an optimal assignment uses."""
    if gains.size == 1:
        return np.zeros(1, dtype=np.intp)
    row_labels, row = np.unique(rows, return_inverse=True)
    column_labels, column = np.unique(columns, return_inverse=True)
    table = np.zeros((row_labels.size, column_labels.size))
    entry = np.full(table.shape, -1, dtype=np.intp)
    table[row, column] = gains
    entry[row, column] = np.arange(gains.size)
    used = entry[linear_sum_assignment(table, maximize=True)]
    return used[used >= 0]


def strongest_per_object(objects: NDArray[np.int64], strength: NDArray[np.number]) -> NDArray[np.intp]:
    """Return, for each object that occurs, the first of its rows with the highest strength."""
    order = np.lexsort((np.arange(objects.size), -strength, objects))
    is_first = np.ones(order.size, dtype=bool)
    is_first[1:] = np.diff(objects[order]) != 0
    return order[is_first]


def _joint_area(overlaps: Overlaps, rows: NDArray[np.intp]) -> int:
    """Return the unions of the paired objects plus the areas of all others."""
    alone_truth = np.ones(overlaps.truth_areas.size, dtype=bool)
    alone_pred = np.ones(overlaps.pred_areas.size, dtype=bool)
    alone_truth[overlaps.truth_index[rows]] = False
    alone_pred[overlaps.pred_index[rows]] = False
    lone = overlaps.truth_areas[alone_truth].sum() + overlaps.pred_areas[alone_pred].sum()
    return int(overlaps.unions[rows].sum() + lone)
