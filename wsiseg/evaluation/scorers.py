"""Collect what label images say about each other, one pair after the other, and score it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from wsiseg.metrics import (
    BoundaryTally,
    ConfusionMatrix,
    HausdorffTally,
    InstanceTally,
    count_confusion,
    count_overlaps,
    hausdorff95,
    tally_boundaries,
    tally_hausdorff,
    tally_instances,
)
from wsiseg.metrics.confusion import mean_of_known

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Scores = dict[str, NDArray[np.float64]]

DISTANCES = ("hd95", "object_hausdorff")


class Scorer(Protocol):
    """Collects pairs and scores them; images keep the order in which they were added."""

    def add(self, pred: NDArray[np.integer], truth: NDArray[np.integer]) -> None:
        """Take in one pair of label images (H, W) of one shape."""

    def image_scores(self) -> Scores:
        """Return scores of each image by name, (N,)."""

    def pooled_scores(self, weights: NDArray[np.int64]) -> Scores:
        """Return scores of all images taken as one, for weights (N,) or for every row of (R, N)."""

    def image_class_scores(self) -> Scores:
        """Return scores of each class in each image by name, (N, C); empty for instances."""

    def pooled_class_scores(self) -> Scores:
        """Return scores of each class in all images taken as one by name, (C,); empty for instances."""


class InstanceScorer:
    """Scores objects, whose ids may differ between the two sides.

    Parameters
    ----------
    pixel_size
        Size of a pixel in the unit in which distances are to be given.
    tolerance_px
        Of boundary F1.
    """

    def __init__(self, *, pixel_size: float, tolerance_px: float) -> None:
        self._pixel_size = pixel_size
        self._tolerance_px = tolerance_px
        self._regions: list[InstanceTally] = []
        self._boundaries: list[BoundaryTally] = []
        self._outlines: list[HausdorffTally] = []
        self._hd95: list[float] = []

    def add(self, pred: NDArray[np.integer], truth: NDArray[np.integer]) -> None:
        """Take in one pair of instance images, 0 = background."""
        overlaps = count_overlaps(pred, truth)
        self._regions.append(tally_instances(overlaps))
        self._outlines.append(tally_hausdorff(pred, truth, overlaps))
        self._boundaries.append(tally_boundaries(pred, truth, tolerance_px=self._tolerance_px))
        self._hd95.append(hausdorff95(pred > 0, truth > 0))

    def image_scores(self) -> Scores:
        """Return scores of each image by name, (N,)."""
        scores = self._scores(*self._stacks())
        return scores | {"hd95": np.array(self._hd95) * self._pixel_size}

    def pooled_scores(self, weights: NDArray[np.int64]) -> Scores:
        """Return scores of all images taken as one; HD95, a percentile, does not pool."""
        regions, boundaries, outlines = self._stacks()
        return self._scores(regions.pool(weights), boundaries.pool(weights), outlines.pool(weights))

    def image_class_scores(self) -> Scores:
        """Return nothing: objects are of one class."""
        return {}

    def pooled_class_scores(self) -> Scores:
        """Return nothing: objects are of one class."""
        return {}

    def object_counts(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the numbers of predicted and of true objects in each image, (N,) each."""
        stack = InstanceTally.stack(self._regions)
        return stack.pred_objects, stack.truth_objects

    def _stacks(self) -> tuple[InstanceTally, BoundaryTally, HausdorffTally]:
        return (
            InstanceTally.stack(self._regions),
            BoundaryTally.stack(self._boundaries),
            HausdorffTally.stack(self._outlines),
        )

    def _scores(self, regions: InstanceTally, boundaries: BoundaryTally, outlines: HausdorffTally) -> Scores:
        return {
            **regions.scores(),
            "boundary_f1": boundaries.f1(),
            "object_hausdorff": outlines.distance() * self._pixel_size,
        }


class SemanticScorer:
    """Scores class maps.

    Parameters
    ----------
    classes
        Number of classes; indices run from 0.
    ignore_index
        Value of true pixels that do not count, and of predicted pixels without an answer.
    pixel_size
        Size of a pixel in the unit in which distances are to be given.
    tolerance_px
        Of boundary F1.
    """

    def __init__(self, *, classes: int, ignore_index: int, pixel_size: float, tolerance_px: float) -> None:
        self._classes = classes
        self._ignore_index = ignore_index
        self._pixel_size = pixel_size
        self._tolerance_px = tolerance_px
        self._matrices: list[ConfusionMatrix] = []
        self._boundaries: list[BoundaryTally] = []
        self._hd95: list[list[float]] = []

    def add(self, pred: NDArray[np.integer], truth: NDArray[np.integer]) -> None:
        """Take in one pair of class maps."""
        self._matrices.append(count_confusion(pred, truth, classes=self._classes, ignore_index=self._ignore_index))
        counted = truth != self._ignore_index
        sides = [[(labels == index) & counted for labels in (pred, truth)] for index in range(self._classes)]
        self._hd95.append([hausdorff95(*side) for side in sides])
        judged = [[np.where(counted, mask.astype(np.int8), np.int8(-1)) for mask in side] for side in sides]
        self._boundaries.append(
            BoundaryTally.stack([tally_boundaries(*side, tolerance_px=self._tolerance_px) for side in judged])
        )

    def image_scores(self) -> Scores:
        """Return scores of each image by name, (N,)."""
        matrices, boundaries = ConfusionMatrix.stack(self._matrices), BoundaryTally.stack(self._boundaries)
        return {
            **matrices.scores(),
            "boundary_f1": mean_of_known(boundaries.f1()),
            "hd95": mean_of_known(self._class_hd95()),
        }

    def pooled_scores(self, weights: NDArray[np.int64]) -> Scores:
        """Return scores of all images taken as one; HD95, a percentile, does not pool."""
        matrices, boundaries = ConfusionMatrix.stack(self._matrices), BoundaryTally.stack(self._boundaries)
        return {
            **matrices.pool(weights).scores(),
            "boundary_f1": mean_of_known(boundaries.pool(weights).f1()),
        }

    def image_class_scores(self) -> Scores:
        """Return scores of each class in each image by name, (N, C)."""
        return {
            **ConfusionMatrix.stack(self._matrices).class_scores(),
            "boundary_f1": BoundaryTally.stack(self._boundaries).f1(),
            "hd95": self._class_hd95(),
        }

    def pooled_class_scores(self) -> Scores:
        """Return scores of each class in all images taken as one by name, (C,)."""
        once = np.ones(len(self._matrices), dtype=np.int64)
        return {
            **ConfusionMatrix.stack(self._matrices).pool(once).class_scores(),
            "boundary_f1": BoundaryTally.stack(self._boundaries).pool(once).f1(),
        }

    def _class_hd95(self) -> NDArray[np.float64]:
        return np.array(self._hd95, dtype=np.float64) * self._pixel_size
