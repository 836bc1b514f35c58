"""What a study of annotation budgets says: curves, and the price of the next point."""

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

    from wsiseg.tasks.budget_cells import Cell

# By which methods are compared, in this order of preference.
_DICE: Final = ("dice", "foreground_dice", "mean_dice")
_NAMES: Final = {
    "dice": "Dice",
    "foreground_dice": "foreground Dice",
    "mean_dice": "mean Dice",
    "object_dice": "object Dice",
    "object_f1": "object F1",
    "object_hausdorff": "object Hausdorff",
    "miou": "mean IoU",
    "fw_iou": "weighted IoU",
}
_UPPER: Final = frozenset({"aji", "f1", "pq", "hd95", "asd", "assd"})
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """All trainings of a study that are done.

    Parameters
    ----------
    cells
        The trainings, those of a method together.
    """

    cells: tuple[Cell, ...]

    @property
    def methods(self) -> list[str]:
        """Return the methods that have trainings."""
        return list(dict.fromkeys(cell.method for cell in self.cells))

    @property
    def names(self) -> list[str]:
        """Return the names of all scores; some trainings may lack some of them."""
        return list(dict.fromkeys(name for cell in self.cells for name in cell.scores))

    @property
    def score(self) -> str:
        """Return the name of the score by which methods are compared, which all trainings have."""
        shared = [name for name in self.names if all(name in cell.scores for cell in self.cells)]
        return next((name for name in _DICE if name in shared), (shared or self.names or [""])[0])

    def curves(self, score: str) -> list[Curve]:
        """Return the curve of each method that has trainings."""
        return [
            _curve(method, [cell for cell in self.cells if cell.method == method], score) for method in self.methods
        ]

    def sentences(self) -> tuple[str, ...]:
        """Return what somebody who must decide about more labels wants to know."""
        name = in_words(self.score)
        told = []
        for curve in self.curves(self.score):
            if len(curve.sizes) < 2:  # noqa: PLR2004 - a curve has two points
                continue
            held_out = sorted({cell.held_out for cell in self.cells if cell.method == curve.method} - {0})
            besides = f"; beside these, {_range(held_out)} labelled images chose its models" if held_out else ""
            reached = f"{name} {curve.mean[-1]:.3f} with {number(curve.images[-1])} labelled images"
            told.append(f"{curve.method}: {reached}; {_price(curve, name)}{besides}")
        return tuple(told)


def in_words(score: str) -> str:
    """Return the name of a score as people write it."""
    return _NAMES.get(score) or (score.upper() if score in _UPPER else score.replace("_", " "))


def number(images: float) -> str:
    """Return a mean number of images as people write it."""
    return f"{images:.0f}" if float(images).is_integer() else f"{images:.1f}"


def _curve(method: str, cells: list[Cell], score: str) -> Curve:
    images = {cell.size: [other.images for other in cells if other.size == cell.size] for cell in cells}
    means = {size: float(np.mean(numbers)) for size, numbers in images.items()}
    # A share and a number of images may be the same.
    columns, rows = sorted(set(means.values())), sorted({cell.seed for cell in cells})
    draws = np.zeros((len(rows), len(columns)), np.int64)
    scores = np.full(draws.shape, np.nan)
    for cell in cells:
        place = rows.index(cell.seed), columns.index(means[cell.size])
        draws[place], scores[place] = cell.images, cell.scores.get(score, math.nan)
    sizes = tuple(next(size for size in means if means[size] == column) for column in columns)
    return Curve(method=method, sizes=sizes, draws=draws, scores=scores)


def _price(curve: Curve, name: str) -> str:
    """Return in words what the next point costs, and how sure that is."""
    low, high = curve.slope_interval
    price = curve.price(curve.slope)
    if math.isnan(price):
        return "no price of more can be told yet, as no draw has two sizes"
    before, last = (number(images) for images in curve.images[-2:])
    pace = f"from {before} to {last} images it changed by {curve.last_gain:+.3f}"
    draws = f"{LEVEL} interval, {len(curve.draws)} draws"
    alone = ", which rests on one draw" if math.isnan(low) else ""
    if curve.is_flat:
        return f"no price of more is in sight, as {pace}{alone}"
    if low <= 0 <= high and math.isfinite(curve.price(high)):
        return (
            f"no price of more can be told yet, as a doubling of the labels may change the {name} by"
            f" {_doubled(low)} to {_doubled(high)} ({draws})"
        )
    if not math.isfinite(price):
        doubled = f"a doubling of the labels changes the {name} by {_doubled(curve.slope)}"
        return f"no price of more is in sight, as {doubled}{alone}"
    costs = f"from there the next +{POINT} costs about {math.ceil(price)} more images"
    if alone:
        return costs + alone
    least, most = curve.price(high), curve.price(low)
    end = f"{math.ceil(most)}" if math.isfinite(most) else f"more than {math.ceil(FARTHEST * curve.images[-1])}"
    late = ""
    if curve.is_bent:
        late = f", rather more, as the step from {before} to {last} gained less than the line"
    elif curve.last_gain <= 0:
        late = f", though {pace}, which may be chance"
    return f"{costs} ({draws.replace('interval', f'interval {math.ceil(least)} to {end}')}){late}"


def _doubled(slope: float) -> str:
    return f"{math.log(2) * slope:+.3f}"


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


def _range(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
