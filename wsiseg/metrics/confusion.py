"""Score class maps by a confusion matrix that adds up over images of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wsiseg.metrics.tally import Tally, quotient

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConfusionMatrix(Tally):
    """How many pixels of each true class were given each class.

    Attributes
    ----------
    counts
        float64 (*S, C, C + 1): true class, predicted class; the last column
        holds pixels that got no answer, which count as wrong.
    """

    counts: NDArray[np.float64]

    def class_scores(self) -> dict[str, NDArray[np.float64]]:
        """Return scores of each class by name, of shape (*S, C), in [0, 1].

        A class that occurs on neither side has no score: NaN. Recall is NaN
        where the class is not in the truth, precision where it is not predicted.
        """
        hits = np.diagonal(self.counts, axis1=-2, axis2=-1)
        truth = self.counts.sum(axis=-1)
        pred = self.counts[..., :-1].sum(axis=-2)
        return {
            "iou": quotient(hits, truth + pred - hits, empty=np.nan),
            "dice": quotient(2 * hits, truth + pred, empty=np.nan),
            "recall": quotient(hits, truth, empty=np.nan),
            "precision": quotient(hits, pred, empty=np.nan),
        }

    def scores(self) -> dict[str, NDArray[np.float64]]:
        """Return scores over all classes by name, of shape S, in [0, 1].

        ``miou``, ``mean_dice`` and ``mean_accuracy`` average the classes that
        have a score; ``fw_iou`` weights them by their frequency in the truth.
        NaN where no pixel counts.
        """
        classes = self.class_scores()
        truth = self.counts.sum(axis=-1)
        total = truth.sum(axis=-1)
        hits = np.trace(self.counts, axis1=-2, axis2=-1)
        weighted = (truth * np.nan_to_num(classes["iou"])).sum(axis=-1)
        return {
            "miou": mean_of_known(classes["iou"]),
            "fw_iou": quotient(weighted, total, empty=np.nan),
            "pixel_accuracy": quotient(hits, total, empty=np.nan),
            "mean_accuracy": mean_of_known(classes["recall"]),
            "mean_dice": mean_of_known(classes["dice"]),
        }


def count_confusion(
    pred: NDArray[np.integer], truth: NDArray[np.integer], *, classes: int, ignore_index: int = 255
) -> ConfusionMatrix:
    """Return the confusion matrix of one image or one piece of it.

    Parameters
    ----------
    pred, truth
        Class indices of one shape.
    classes
        Number of classes C; indices run from 0 to C - 1.
    ignore_index
        True pixels of this value do not count. Predicted pixels of this value
        are pixels without an answer.

    Raises
    ------
    ValueError
        When the shapes differ or an index is neither a class nor ignored.
    """
    if pred.shape != truth.shape:
        raise ValueError(f"class maps of different shapes: {pred.shape} and {truth.shape}")
    counted = truth != ignore_index
    true, given = truth[counted].astype(np.int64), pred[counted].astype(np.int64)
    answered = given != ignore_index
    for side, values in (("true", true), ("predicted", given[answered])):
        if values.size and (values.min() < 0 or values.max() >= classes):
            raise ValueError(f"{side} classes from {values.min()} to {values.max()}, but there are {classes} classes")
    given[~answered] = classes
    counts = np.bincount(true * (classes + 1) + given, minlength=classes * (classes + 1))
    return ConfusionMatrix(counts=counts.reshape(classes, classes + 1).astype(np.float64))


def mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the last axis of the values that are not NaN; NaN if there is none."""
    known = ~np.isnan(values)
    return quotient(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1).astype(np.float64), empty=np.nan)
