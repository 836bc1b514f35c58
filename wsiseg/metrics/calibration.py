"""Score confidence: surer labels should be right more often, and as often as they say.

References
----------
.. [1] Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015.
.. [2] Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
.. [3] Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.metrics.tally import Tally, quotient

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Whole percents, 0 … 100.
LEVELS: Final = 101
_BINS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CalibrationTally(Tally):
    """How many labels of each confidence are wrong and right.

    Attributes
    ----------
    counts
        float64 (*S, 101, 2): confidence in percent; wrong, right.
    """

    counts: NDArray[np.float64]

    def bins(self) -> dict[str, NDArray[np.float64]]:
        """Return what labels of like confidence are, in ten bins of equal width, lowest first; each (*S, 10).

        ``share`` of all labels, their mean ``confidence`` and their ``accuracy``, all in [0, 1]; NaN where there is
        no label. A border belongs to the bin above it, and 1 to the last.
        """
        levels = np.arange(LEVELS)
        of_bin = np.minimum(levels * _BINS // (LEVELS - 1), _BINS - 1) == np.arange(_BINS)[:, None]
        labels = self.counts.sum(axis=-1)
        found = labels @ of_bin.T
        return {
            "share": quotient(found, found.sum(axis=-1, keepdims=True), empty=np.nan),
            "confidence": quotient((labels * levels / (LEVELS - 1)) @ of_bin.T, found, empty=np.nan),
            "accuracy": quotient(self.counts[..., 1] @ of_bin.T, found, empty=np.nan),
        }

    def scores(self) -> dict[str, NDArray[np.float64]]:
        """Return scores by name, of shape S, in [0, 1]; NaN where there is no label.

        ``accuracy`` is that of all labels; ``ece``, the expected calibration error [1]_, the mean distance of
        accuracy and confidence over the bins, weighted with their shares.
        """
        bins = self.bins()
        distance = np.abs(bins["accuracy"] - bins["confidence"])
        total = self.counts.sum(axis=(-2, -1))
        ece = np.nan_to_num(bins["share"] * distance).sum(axis=-1)
        return {
            "accuracy": quotient(self.counts[..., 1].sum(axis=-1), total, empty=np.nan),
            "ece": np.where(total > 0, ece, np.nan),
        }

    def surest(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the accuracy of the surest part of the labels: one minus the risk at that coverage [3]_.

        Of labels that are equally sure, as many are right in any part of them.

        Parameters
        ----------
        shares
            (n,), above 0 and up to 1; of a tally of shape ().

        Returns
        -------
        NDArray[np.float64]
            (n,) in [0, 1]; NaN where there is no label.
        """
        surest_first = self.counts[::-1].cumsum(axis=0)
        taken, right = surest_first.sum(axis=-1), surest_first[:, 1]
        if taken[-1] == 0:
            return np.full(len(shares), np.nan)
        wanted = shares * taken[-1]
        surest: NDArray[np.float64] = np.interp(wanted, np.append(0, taken), np.append(0, right)) / wanted
        return surest


def count_calibration(
    labels: NDArray[np.integer], truth: NDArray[np.integer], confidence: NDArray[np.uint8], *, ignore_index: int = 255
) -> CalibrationTally:
    """Return how often labels of each confidence are right, in one image.

    Parameters
    ----------
    labels, truth
        Class indices of one shape. What is ignored in either does not count.
    confidence
        Percent, 0 … 100, of the same shape; of no meaning where there is no label.
    ignore_index
        Value of what is ignored.

    Raises
    ------
    ValueError
        When the shapes differ or a label has no percent.
    """
    if not labels.shape == truth.shape == confidence.shape:
        raise ValueError(f"arrays of different shapes: {labels.shape}, {truth.shape} and {confidence.shape}")
    counted = (labels != ignore_index) & (truth != ignore_index)
    levels = confidence[counted].astype(np.int64)
    if levels.max(initial=0) >= LEVELS:
        raise ValueError(f"a confidence of {levels.max()} percent")
    counts = np.bincount(2 * levels + (labels == truth)[counted], minlength=2 * LEVELS)
    return CalibrationTally(counts=counts.reshape(LEVELS, 2).astype(np.float64))
