"""What a method reaches with more and more labelled images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.special import stdtrit

from wsiseg.metrics.tally import quotient

if TYPE_CHECKING:
    from numpy.typing import NDArray

POINT: Final = 0.01
LEVEL: Final = "90 %"
_LEVEL: Final = 0.9
# Prices beyond so many times the labels that there are say nothing.
FARTHEST: Final = 10
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """What a method reaches with more and more labelled images.

    Draws are paired: a smaller size of a draw is a part of its larger ones, and all have the same images held out. So
    each draw has a line of its own, and what is told is the mean slope, with the interval of Student's t: of few draws
    resampling gives intervals that are far too narrow. Draws share their test images, and large ones most of those that
    are learnt from, so that they are more alike than studies on other images would be.

    Parameters
    ----------
    method
        Its name.
    sizes
        What was asked for, from the smallest.
    draws
        int64 (S, n): images of each draw and size; 0 where that training is not there.
    scores
        float64 (S, n): of each training; NaN where it is not there, or the score unknown.
    """

    method: str
    sizes: tuple[str, ...]
    draws: NDArray[np.int64]
    scores: NDArray[np.float64]

    @cached_property
    def images(self) -> NDArray[np.float64]:
        """Return the labelled images of each size, (n,): the mean over the draws."""
        images: NDArray[np.float64] = self.draws.sum(axis=0) / (self.draws > 0).sum(axis=0)
        return images

    @cached_property
    def count(self) -> NDArray[np.int64]:
        """Return how many draws of each size have a score, (n,)."""
        count: NDArray[np.int64] = np.sum(~np.isnan(self.scores), axis=0)
        return count

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """Return the mean score of each size, (n,)."""
        return quotient(np.nansum(self.scores, axis=0), self.count.astype(np.float64), empty=np.nan)

    @cached_property
    def sd(self) -> NDArray[np.float64]:
        """Return the standard deviation over the draws of each size, (n,); NaN of fewer than two."""
        squares = np.nansum((self.scores - self.mean) ** 2, axis=0)
        return np.sqrt(quotient(squares, np.maximum(self.count - 1.0, 0), empty=np.nan))

    @cached_property
    def slope(self) -> float:
        """Return how much the score grows with the natural logarithm of the number of images: the mean of the draws."""
        return _mean(self._slopes(self.scores))

    @cached_property
    def slope_interval(self) -> tuple[float, float]:
        """Return the 90 % interval of the slope; NaN where one draw alone tells of it."""
        return _interval(self._slopes(self.scores))

    @cached_property
    def telling(self) -> int:
        """Return how many draws tell of the slope: those with two sizes at least."""
        return int(np.sum(~np.isnan(self._slopes(self.scores))))

    @cached_property
    def last_gain(self) -> float:
        """Return what was gained from the last size but one to the last; NaN where no draw has both."""
        return _mean(self.scores[:, -1] - self.scores[:, -2])

    @cached_property
    def is_flat(self) -> bool:
        """Tell whether the curve has flattened: at its last pace no price is in sight, 19 times of 20.

        Where one draw tells of the price, its last step tells of this.
        """
        paces = self._slopes(self._last)
        is_alone = math.isnan(self.slope_interval[1])
        return self.price(_mean(paces) if is_alone else _interval(paces)[1]) == math.inf

    @cached_property
    def is_bent(self) -> bool:
        """Tell whether the last step gained less than the line says, 19 times of 20."""
        return _interval(self._slopes(self._last) - self._slopes(self.scores))[1] < -_ROUNDING

    def price(self, slope: float) -> float:
        """Return how many images the next point costs beyond the last size; infinite where none is in sight.

        Scores are taken to grow with the logarithm of the number of images, as learning curves do where they rise.
        """
        if math.isnan(slope):
            return math.nan
        if slope <= 0 or POINT / slope > math.log(FARTHEST + 1):
            return math.inf
        return float(self.images[-1]) * math.expm1(POINT / slope)

    @property
    def _last(self) -> NDArray[np.float64]:
        """Return the scores of the last two sizes; NaN for the others."""
        late = self.scores.copy()
        late[:, :-2] = np.nan
        return late

    def _slopes(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the slope of least squares of each draw, (S,); NaN of those with one size or none."""
        known = ~np.isnan(scores)
        logs = np.where(known, np.log(np.maximum(self.draws, 1)), np.nan)
        across, up = (np.where(known, values - _means(values), 0.0) for values in (logs, scores))
        return quotient((across * up).sum(axis=1), (across**2).sum(axis=1), empty=np.nan)


def _mean(values: NDArray[np.float64]) -> float:
    """Return the mean over what is known; NaN where nothing is."""
    known = values[~np.isnan(values)]
    return float(np.mean(known)) if known.size else math.nan


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the interval of the mean over what is known, by Student's t; NaN of fewer than two."""
    known = values[~np.isnan(values)]
    if known.size < 2:  # noqa: PLR2004 - one value has no spread
        return math.nan, math.nan
    reach = float(stdtrit(known.size - 1, (1 + _LEVEL) / 2) * np.std(known, ddof=1) / math.sqrt(known.size))
    middle = float(np.mean(known))
    return middle - reach, middle + reach


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of each row, (S, 1), over what is known."""
    counts = np.sum(~np.isnan(values), axis=1, keepdims=True).astype(np.float64)
    return quotient(np.nansum(values, axis=1, keepdims=True), counts, empty=np.nan)
