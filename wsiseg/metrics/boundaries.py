"""Score where borders run: boundary F1 with a tolerance, and the 95 % Hausdorff distance. Distances are in pixels."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import KDTree

from wsiseg.metrics.tally import Tally, quotient

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BoundaryTally(Tally):
    """Boundary pixels on either side, and those with a boundary of the other side nearby.

    Attributes
    ----------
    pred, truth
        Boundary pixels.
    pred_near, truth_near
        Those of them within the tolerance of the other side's boundary.
    """

    pred: NDArray[np.float64]
    truth: NDArray[np.float64]
    pred_near: NDArray[np.float64]
    truth_near: NDArray[np.float64]

    def f1(self) -> NDArray[np.float64]:
        """Return the harmonic mean of boundary precision and recall; NaN where nobody drew a boundary.

        References
        ----------
        .. [1] Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013.
        """
        precision = quotient(self.pred_near, self.pred, empty=0.0)
        recall = quotient(self.truth_near, self.truth, empty=0.0)
        f1 = quotient(2 * precision * recall, precision + recall, empty=0.0)
        return np.where(self.pred + self.truth == 0, np.nan, f1)


def tally_boundaries(pred: NDArray[np.integer], truth: NDArray[np.integer], *, tolerance_px: float) -> BoundaryTally:
    """Return the boundary sums of one image.

    Parameters
    ----------
    pred, truth
        Labels of one shape, 0 = background, below 0 = not to be judged. A
        boundary pixel has a label and a neighbour, of four, with another;
        where the image or its judged part ends there is no boundary.
    tolerance_px
        How far apart two boundaries may run and still agree.
    """
    pred_edge, truth_edge = label_edges(pred), label_edges(truth)
    return BoundaryTally(
        pred=np.asarray(len(pred_edge), dtype=np.float64),
        truth=np.asarray(len(truth_edge), dtype=np.float64),
        pred_near=_count_near(pred_edge, truth_edge, tolerance_px),
        truth_near=_count_near(truth_edge, pred_edge, tolerance_px),
    )


def label_edges(labels: NDArray[np.integer]) -> NDArray[np.intp]:
    """Return the [y, x] of labelled pixels next to another label, (N, 2)."""
    edge = np.zeros(labels.shape, dtype=bool)
    for near, far in (
        (np.s_[1:, :], np.s_[:-1, :]),
        (np.s_[:-1, :], np.s_[1:, :]),
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[:, :-1], np.s_[:, 1:]),
    ):
        edge[near] |= (labels[near] != labels[far]) & (labels[far] >= 0)
    return np.argwhere(edge & (labels > 0))


def hausdorff95(pred: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the larger of the two 95th percentiles of distances from border to border, in pixels.

    The borders of a mask are its pixels with a neighbour, of four, outside the
    mask or the image. If only one mask is empty the result is the image's
    diagonal, a finite stand-in for "as far as can be"; if both are, NaN.
    """
    borders = [np.argwhere(mask & ~_eroded(mask)) for mask in (pred, truth)]
    if not len(borders[0]) and not len(borders[1]):
        return float("nan")
    if not len(borders[0]) or not len(borders[1]):
        return hypot(*pred.shape)
    there = KDTree(borders[1]).query(borders[0])[0]
    back = KDTree(borders[0]).query(borders[1])[0]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(mask, 1)
    inner: NDArray[np.bool_] = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inner


def _count_near(points: NDArray[np.intp], others: NDArray[np.intp], tolerance_px: float) -> NDArray[np.float64]:
    if not len(points) or not len(others):
        return np.zeros(())
    # The bound is exclusive and a pixel at exactly the tolerance counts, rounding aside.
    distances = KDTree(others).query(points, distance_upper_bound=tolerance_px + 1e-6)[0]
    return np.asarray(np.count_nonzero(np.isfinite(distances)), dtype=np.float64)
