"""The page, the table and the curves of a study of annotation budgets."""

from __future__ import annotations

import base64
import csv
import io
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wsiseg.atomic import write_bytes
from wsiseg.tasks.budget_begun import alone, read_begun
from wsiseg.tasks.budget_cells import differences, read_cells, read_failures
from wsiseg.tasks.budget_curve import LEVEL
from wsiseg.tasks.budget_report import Study, in_words, number
from wsiseg.tasks.budget_scores import MISSING
from wsiseg.tasks.pictures import render

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wsiseg.tasks.budget_curve import Curve

TABLE: Final = "budget.csv"
PICTURE: Final = "budget"
# Column of the table: the score by which methods are compared, in points, less that of the same labels alone.
GAIN: Final = "points_over_supervised"
PAGE: Final = "budget.html"
_TEMPLATE: Final = "budget.html.j2"
# Told apart by all eyes (Okabe and Ito, 2008); markers tell more than eight methods apart.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
_MARKERS: Final = "osD^vPX*"
# Sizes closer than this on the scale of images would write over each other.
_APART: Final = 1.12
# Scores below are shares; distances above need no third decimal.
_LARGE: Final = 10


def write_study(output: Path) -> Study:
    """Write table, curves (PNG and SVG) and page of all that is there of a study, and return that.

    One job writes at a time, so that what is read last is what stays.
    """
    with alone(output):
        begun = read_begun(output)
        config = None if begun is None else begun.config
        methods = () if config is None else config.methods
        study = Study(cells=read_cells(output, methods), failures=read_failures(output, methods))
        differing = differences(output, study.cells, {} if config is None else config.each)
        write_bytes(output / TABLE, _table(study).encode())
        pictures = {kind: draw(study, kind=kind) for kind in ("png", "svg")}
        for kind, picture in pictures.items():
            write_bytes(output / f"{PICTURE}.{kind}", picture)
        page = render(
            _TEMPLATE,
            name=output.resolve().name,
            score=in_words(study.score),
            unit=study.unit,
            names=[in_words(name) for name in study.names],
            rows=_rows(study),
            facts=_facts(study),
            sentences=[sentence.partition(": ")[::2] for sentence in study.sentences()],
            level=LEVEL,
            picture=base64.b64encode(pictures["png"]).decode(),
            methods=study.methods,
            failures=study.failures,
            without=_without(study),
            has_missing=MISSING in study.names,
            has_gains=bool(study.gains()),
            differing=differing,
            held_out=max((cell.held_out for cell in study.cells), default=0),
        )
        write_bytes(output / PAGE, page)
    return study


def draw(study: Study, *, kind: str) -> bytes:
    """Return a picture of the curves, ``png`` or ``svg``: the mean, one standard deviation, and each training."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import NullLocator

    curves = study.curves(study.score)
    # The salt makes the same names in the same pictures.
    with mpl.rc_context(
        {"svg.hashsalt": PICTURE, "font.size": 11, "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Figure(figsize=(9, 5.2), layout="constrained")
        axes = figure.add_subplot()
        for place, curve in enumerate(curves):
            look: dict[str, Any] = {"color": _COLOURS[place % len(_COLOURS)]}
            spread = np.nan_to_num(curve.sd)
            axes.fill_between(curve.images, curve.mean - spread, curve.mean + spread, alpha=0.15, linewidth=0, **look)
            known = ~np.isnan(curve.scores)
            axes.plot(curve.draws[known], curve.scores[known], ".", alpha=0.45, markersize=5, **look)
            marker = _MARKERS[place % len(_MARKERS)]
            axes.plot(curve.images, curve.mean, marker=marker, markersize=6, linewidth=2, label=curve.method, **look)
        axes.set(xlabel=f"labelled {study.unit}", ylabel=f"{in_words(study.score)} on the test data")
        if curves:
            ticks = _ticks(curves)
            axes.set_xscale("log")
            axes.set_xticks(ticks, [number(tick) for tick in ticks])
            axes.xaxis.set_minor_locator(NullLocator())
            handles = [*axes.get_legend_handles_labels()[0], Line2D([], [], color="0.5", marker=".", linestyle="none")]
            labels = [*(curve.method for curve in curves), "single training"]
            if any(np.any(curve.sd > 0) for curve in curves):
                handles.append(Patch(color="0.5", alpha=0.3, linewidth=0))
                labels.append("± 1 sd over the draws")
            figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
        picture = io.BytesIO()
        figure.savefig(picture, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
    return picture.getvalue()


def _ticks(curves: Sequence[Curve]) -> list[float]:
    """Return numbers of images that have room beside each other."""
    ticks: list[float] = []
    for images in sorted({round(float(images), 1) for curve in curves for images in curve.images}):
        if not ticks or images > _APART * ticks[-1]:
            ticks.append(images)
    return ticks


def _table(study: Study) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "labelled", "images", "unit", "seed", "steps", *study.names, GAIN])
    for cell in study.cells:
        values = [*(cell.scores.get(name, math.nan) for name in study.names), round(study.gain(cell), 4)]
        known = ["" if math.isnan(value) else value for value in values]
        writer.writerow([cell.method, cell.size, cell.images, cell.unit, cell.seed, cell.steps, *known])
    return text.getvalue()


def _rows(study: Study) -> list[dict[str, object]]:
    """Return the rows of the table on the page."""
    by_score, gains = [study.curves(name) for name in study.names], study.gains()
    return [
        {
            "method": curve.method,
            "size": curve.sizes[at],
            "images": number(curve.images[at]),
            "trainings": int(np.sum(curve.draws[:, at] > 0)),
            "scores": [
                _told(curves[place], at, form=".1f" if name == MISSING else "")
                for name, curves in zip(study.names, by_score, strict=True)
            ],
            "gain": _told(gains[place], at, form="+.1f") if gains else "",
            "is_first": at == 0,
        }
        for place, curve in enumerate(by_score[0] if by_score else [])
        for at in range(len(curve.sizes))
    ]


def _told(curve: Curve, at: int, *, form: str = "") -> str:
    """Return a mean, its standard deviation, and of how many, where that is not all of them.

    Scores have as many decimals as they need, unless a `form` tells.
    """
    mean, sd, count = curve.mean[at], curve.sd[at], curve.count[at]
    if not count:
        return "–"
    form = form or (".3f" if abs(mean) < _LARGE else ".1f")
    spread = "" if math.isnan(sd) else f" ± {sd:{form.lstrip('+')}}"
    return f"{mean:{form}}{spread}" + ("" if count == np.sum(curve.draws[:, at] > 0) else f" ({count})")


def _facts(study: Study) -> list[dict[str, str]]:
    """Return what stands at the head of the page."""
    cells, unit = study.cells, study.unit
    if not cells:
        return []
    images, held_out = ([getattr(cell, name) for cell in cells] for name in ("images", "held_out"))
    facts = {
        "methods": str(len({cell.method for cell in cells})),
        f"labelled {unit} to learn from": _span(images),
        **({f"labelled {unit} to choose models by": _span(held_out)} if any(held_out) else {}),
        f"draws of {unit}": str(len({cell.seed for cell in cells})),
        "trainings": str(len(cells)),
    }
    return [{"label": label, "value": value} for label, value in facts.items()]


def _without(study: Study) -> str:
    """Return the methods and sizes where nothing without labels was left to learn from, in words."""
    sizes: dict[str, list[str]] = {}
    for cell in study.cells:
        if cell.lacks_unlabelled and cell.size not in sizes.setdefault(cell.method, []):
            sizes[cell.method].append(cell.size)
    return "; ".join(f"{method} with {', '.join(own)}" for method, own in sizes.items())


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} – {high}"
