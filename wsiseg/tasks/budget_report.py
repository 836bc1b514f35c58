"""What a study of annotation budgets says: curves, a table, and the price of the next point."""

from __future__ import annotations

import base64
import csv
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.atomic import write_bytes
from wsiseg.tasks.pictures import render

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

TABLE: Final = "budget.csv"
PICTURE: Final = "budget"
STUDY: Final = "budget.html"
_TEMPLATE: Final = "budget.html.j2"
# By which models are compared, in this order of preference.
_DICE: Final = ("dice", "mean_dice")
_POINT: Final = 0.01
# Prices beyond so many times the labels that there are say nothing.
_FARTHEST: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One training.

    Parameters
    ----------
    method, size, images, seed
        How, with what share of the labels, which are so many images, and with which draw.
    steps
        Updates behind the model.
    scores
        On the test patches, 0 … 1, by name.
    """

    method: str
    size: str
    images: int
    seed: int
    steps: int
    scores: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What a method reaches with more and more labelled images.

    Parameters
    ----------
    method
        Its name.
    images
        int64 (n,): labelled images, rising.
    mean, sd
        float64 (n,): of the scores over the seeds; the standard deviation of one seed is NaN.
    seeds
        int64 (n,): how many there are.
    """

    method: str
    images: NDArray[np.int64]
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    seeds: NDArray[np.int64]

    def price(self) -> float:
        """Return how many more images the next point costs, by the last two sizes; infinite where none is in sight.

        Scores are taken to grow with the logarithm of the number of images, as learning curves do where they rise.
        """
        if len(self.images) < 2:  # noqa: PLR2004 - a line has two ends
            return math.inf
        gain = float(self.mean[-1] - self.mean[-2])
        growth = math.log(self.images[-1] / self.images[-2])
        if gain <= 0 or _POINT * growth / gain > math.log(_FARTHEST + 1):
            return math.inf
        return float(self.images[-1]) * math.expm1(_POINT * growth / gain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """All trainings of a study that are done.

    Parameters
    ----------
    cells
        The trainings.
    methods
        In the order in which they are shown.
    seeds
        How many trainings there are to be of a kind.
    """

    cells: tuple[Cell, ...]
    methods: tuple[str, ...]
    seeds: int

    @property
    def score(self) -> str:
        """Return the name of the score by which methods are compared."""
        names = list(self.cells[0].scores) if self.cells else []
        return next((name for name in _DICE if name in names), names[0] if names else "")

    def curves(self, score: str) -> list[Curve]:
        """Return the curve of each method that has trainings."""
        found = []
        for method in self.methods:
            mine = [cell for cell in self.cells if cell.method == method]
            sizes = sorted({cell.images for cell in mine})
            values = [np.array([cell.scores[score] for cell in mine if cell.images == size]) for size in sizes]
            if sizes:
                curve = Curve(
                    method=method,
                    images=np.array(sizes, dtype=np.int64),
                    mean=np.array([each.mean() for each in values]),
                    sd=np.array([each.std(ddof=1) if len(each) > 1 else math.nan for each in values]),
                    seeds=np.array([len(each) for each in values], dtype=np.int64),
                )
                found.append(curve)
        return found

    def sentences(self) -> tuple[str, ...]:
        """Return what somebody who must decide about more labels wants to know."""
        name = self.score.replace("_", " ")
        told = []
        for curve in self.curves(self.score):
            if len(curve.images) < 2:  # noqa: PLR2004 - a curve has two points
                continue
            images, price = int(curve.images[-1]), curve.price()
            begun = f"{curve.method} with {images} images ({name} {curve.mean[-1]:.3f}):"
            by = f"by its gain from {curve.images[-2]} to {images} images"
            if math.isinf(price):
                told.append(f"{begun} no price of another point of {name} is in sight, {by}")
            else:
                told.append(f"{begun} the next point of {name} costs about {math.ceil(price)} more images, {by}")
        return tuple(told)


def write_study(folder: Path, study: Study) -> Path:
    """Write table, curves (PNG and SVG) and page of a study, and return the page."""
    write_bytes(folder / TABLE, _table(study.cells).encode())
    pictures = {kind: draw(study, kind=kind) for kind in ("png", "svg")}
    for kind, picture in pictures.items():
        write_bytes(folder / f"{PICTURE}.{kind}", picture)
    names = list(study.cells[0].scores) if study.cells else []
    rows = [
        {
            "method": curve.method,
            "images": int(curve.images[at]),
            "seeds": int(curve.seeds[at]),
            "scores": [_told(study, name, curve.method, int(curve.images[at])) for name in names],
        }
        for curve in (study.curves(study.score) if study.cells else [])
        for at in range(len(curve.images))
    ]
    page = render(
        _TEMPLATE,
        name=folder.resolve().name,
        score=study.score.replace("_", " "),
        names=[name.replace("_", " ") for name in names],
        rows=rows,
        sentences=study.sentences(),
        picture=base64.b64encode(pictures["png"]).decode(),
        done=len(study.cells),
        seeds=study.seeds,
    )
    write_bytes(folder / STUDY, page)
    return folder / STUDY


def draw(study: Study, *, kind: str) -> bytes:
    """Return a picture of the curves, ``png`` or ``svg``: the mean, one standard deviation, and each training."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for place, curve in enumerate(study.curves(study.score)):
        colour = f"C{place}"
        spread = np.nan_to_num(curve.sd)
        axes.plot(curve.images, curve.mean, "o-", color=colour, markersize=4, label=curve.method)
        axes.fill_between(curve.images, curve.mean - spread, curve.mean + spread, color=colour, alpha=0.15, linewidth=0)
        dots = [(cell.images, cell.scores[study.score]) for cell in study.cells if cell.method == curve.method]
        axes.plot(*zip(*dots, strict=True), ".", color=colour, alpha=0.4, markersize=4)
    sizes = sorted({cell.images for cell in study.cells})
    axes.set(xlabel="labelled images", ylabel=f"{study.score.replace('_', ' ')} on the test images")
    if sizes:
        # Prices are read along the logarithm.
        axes.set_xscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        figure.legend(loc="outside upper center", ncols=4, frameon=False)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    picture = io.BytesIO()
    figure.savefig(picture, format=kind, dpi=120, metadata={"Date": None} if kind == "svg" else None)
    return picture.getvalue()


def _table(cells: Sequence[Cell]) -> str:
    text = io.StringIO()
    names = list(cells[0].scores) if cells else []
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "labelled", "images", "seed", "steps", *names])
    for cell in cells:
        writer.writerow([cell.method, cell.size, cell.images, cell.seed, cell.steps, *cell.scores.values()])
    return text.getvalue()


def _told(study: Study, score: str, method: str, images: int) -> str:
    values = np.array([cell.scores[score] for cell in study.cells if cell.method == method and cell.images == images])
    # Distances to what was not found are unknown.
    known = values[~np.isnan(values)]
    if not len(known):
        return "–"
    return f"{known.mean():.3f}" + (f" ± {known.std(ddof=1):.3f}" if len(known) > 1 else "")
