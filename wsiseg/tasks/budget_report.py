"""What a study of annotation budgets says: the price of the next point, and what methods gain."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.tasks.budget_curve import FARTHEST, LEVEL, POINT, Curve

if TYPE_CHECKING:
    from wsiseg.tasks.budget_cells import Cell, Failure

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
# What methods that learn from few labels are measured by.
SUPERVISED: Final = "supervised"
_GAIN: Final = "gain"
_UPPER: Final = frozenset({"aji", "f1", "pq", "hd95", "asd", "assd"})


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """All trainings of a study that are done.

    Parameters
    ----------
    cells
        The trainings, those of a method together.
    failures
        Those that failed instead.
    """

    cells: tuple[Cell, ...]
    failures: tuple[Failure, ...] = ()

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

    @property
    def unit(self) -> str:
        """Return what is drawn and counted; all where methods differ in that."""
        return " or ".join(dict.fromkeys(cell.unit for cell in self.cells)) or "images"

    def curves(self, score: str) -> list[Curve]:
        """Return the curve of each method that has trainings."""
        return [
            _curve(method, [cell for cell in self.cells if cell.method == method], score) for method in self.methods
        ]

    def gain(self, cell: Cell) -> float:
        """Return by how many points a training is better than that of ``supervised`` on the same labelled images.

        A point is a hundredth of the score by which methods are compared. NaN where there is none to compare with.
        """
        draw = cell.images, cell.unit, cell.seed
        bases = [one for one in self.cells if one.method == SUPERVISED and (one.images, one.unit, one.seed) == draw]
        if cell.method == SUPERVISED or not bases:
            return math.nan
        return 100 * (cell.scores.get(self.score, math.nan) - bases[0].scores.get(self.score, math.nan))

    def gains(self) -> list[Curve]:
        """Return what each method gains over ``supervised``, in points; empty where nothing can be compared."""
        gained = tuple(replace(cell, scores={_GAIN: self.gain(cell)}) for cell in self.cells)
        known = any(not math.isnan(cell.scores[_GAIN]) for cell in gained)
        return Study(cells=gained).curves(_GAIN) if known else []

    def sentences(self) -> tuple[str, ...]:
        """Return what somebody who must decide about more labels wants to know."""
        name = in_words(self.score)
        told = []
        for curve in self.curves(self.score):
            if len(curve.sizes) < 2:  # noqa: PLR2004 - a curve has two points
                continue
            held_out = sorted({cell.held_out for cell in self.cells if cell.method == curve.method} - {0})
            besides = f"; beside these, {_range(held_out)} labelled {self.unit} chose its models" if held_out else ""
            reached = f"{name} {curve.mean[-1]:.3f} with {number(curve.images[-1])} labelled {self.unit}"
            told.append(f"{curve.method}: {reached}; {_price(curve, name, self.unit)}{besides}")
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


def _price(curve: Curve, name: str, unit: str) -> str:
    """Return in words what the next point costs, and how sure that is."""
    low, high = curve.slope_interval
    price = curve.price(curve.slope)
    if math.isnan(price):
        return "no price of more can be told yet, as no draw has two sizes"
    before, last = (number(images) for images in curve.images[-2:])
    pace = f"from {before} to {last} {unit} it changed by {curve.last_gain:+.3f}"
    draws = f"{LEVEL} interval, {curve.telling} draws"
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
    costs = f"from there the next +{POINT} costs about {math.ceil(price)} more {unit}"
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


def _range(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
