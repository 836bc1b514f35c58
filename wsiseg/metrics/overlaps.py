"""Count which objects of two label images share pixels, once, for all region metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlaps:
    """The sparse table of intersections between predicted and true objects.

    Objects are numbered 0, 1, … in the order in which their first pixels
    appear, so nothing derived from the table depends on the labels chosen.

    Attributes
    ----------
    pred_labels, truth_labels
        int64 (P,) and (T,), the labels of the objects, without background.
    pred_areas, truth_areas
        int64 (P,) and (T,), pixels of each object.
    pred_index, truth_index, shared
        int64 (N,), one row per pair that shares at least one pixel, with the
        number of shared pixels; ordered by true, then predicted object.
    """

    pred_labels: NDArray[np.int64]
    truth_labels: NDArray[np.int64]
    pred_areas: NDArray[np.int64]
    truth_areas: NDArray[np.int64]
    pred_index: NDArray[np.int64]
    truth_index: NDArray[np.int64]
    shared: NDArray[np.int64]

    @property
    def unions(self) -> NDArray[np.int64]:
        """Pixels of each pair's union, int64 (N,)."""
        return self.pred_areas[self.pred_index] + self.truth_areas[self.truth_index] - self.shared

    @property
    def ious(self) -> NDArray[np.float64]:
        """Intersection over union of each pair, float64 (N,), in (0, 1]."""
        return self.shared / self.unions


def count_overlaps(pred: NDArray[np.integer], truth: NDArray[np.integer]) -> Overlaps:
    """Return the table of intersections of two label images.

    Parameters
    ----------
    pred, truth
        Integer labels of one shape, 0 = background. Labels need be neither
        contiguous nor connected: an object is the set of pixels of a label.

    Raises
    ------
    ValueError
        When the shapes differ or a label is negative.
    """
    if pred.shape != truth.shape:
        raise ValueError(f"label images of different shapes: {pred.shape} and {truth.shape}")
    pred_runs, truth_runs, lengths = _joint_runs(pred.ravel(), truth.ravel())
    if min(pred_runs.min(initial=0), truth_runs.min(initial=0)) < 0:
        raise ValueError("label images must not hold negative labels")
    pred_labels, pred_of_run = _number_by_appearance(pred_runs)
    truth_labels, truth_of_run = _number_by_appearance(truth_runs)
    columns = pred_labels.size + 1
    # Row and column 0 stand for background, so that one histogram also yields the areas.
    keys, pair_of_run = np.unique((truth_of_run + 1) * np.int64(columns) + pred_of_run + 1, return_inverse=True)
    counts = np.bincount(pair_of_run, weights=lengths, minlength=keys.size).astype(np.int64)
    truth_index, pred_index = np.divmod(keys, columns)
    pred_areas = np.bincount(pred_index, weights=counts, minlength=columns).astype(np.int64)
    truth_areas = np.bincount(truth_index, weights=counts, minlength=truth_labels.size + 1).astype(np.int64)
    pairs = (pred_index > 0) & (truth_index > 0)
    return Overlaps(
        pred_labels=pred_labels,
        truth_labels=truth_labels,
        pred_areas=pred_areas[1:],
        truth_areas=truth_areas[1:],
        pred_index=pred_index[pairs] - 1,
        truth_index=truth_index[pairs] - 1,
        shared=counts[pairs],
    )


def _number_by_appearance(runs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the foreground labels by first appearance, and each run's place among them (-1 = background)."""
    labels, first, inverse = np.unique(runs, return_index=True, return_inverse=True)
    first[labels == 0] = runs.size  # background goes last and is cut off
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(order.size)
    number[labels == 0] = -1
    return labels[order][: np.count_nonzero(labels)], number[inverse]


def _joint_runs(
    pred: NDArray[np.integer], truth: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the labels and lengths of the runs over which both images stay constant.

    Label images change rarely along a row, so sorting runs instead of pixels
    makes the histogram some twenty times cheaper.
    """
    if pred.size == 0:
        empty = np.empty(0, dtype=np.int64)
        return empty, empty, empty
    starts = np.flatnonzero((pred[1:] != pred[:-1]) | (truth[1:] != truth[:-1])) + 1
    starts = np.concatenate(([0], starts))
    lengths = np.diff(starts, append=pred.size)
    return pred[starts].astype(np.int64), truth[starts].astype(np.int64), lengths
