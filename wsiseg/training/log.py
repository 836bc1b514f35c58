"""What training writes down: two tables that grow, and a picture of them.

Columns that tell of one class begin with `CLASS_IOU` or `CLASS_ATTENTION` and end with its name.
"""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING, Final

from wsiseg.atomic import write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.axes import Axes

    from wsiseg.labels import LabelMap

TRAINING = "log.csv"
VALIDATION = "validation.csv"
CURVES = "curves.png"
FEW = 20
CLASS_IOU: Final = "iou_"
CLASS_ATTENTION: Final = "attention_"
_PANELS: Final = {CLASS_IOU: "IoU of each class", CLASS_ATTENTION: "mean attention"}
# Heights of the pictures, and how many lines of a legend fit beside the lower ones.
_UPPER, _LOWER = 4.5, 2.4
_LINES: Final = 8
# A line as bright as this cannot be seen on paper.
_PALE: Final = 200
# Tell float32 values apart and keep the table legible.
DIGITS = 7


class Table:
    """A CSV file with one row for some of the steps.

    Rows are appended; those from `step` on are cut off when opened, as training repeats them.

    Parameters
    ----------
    path
        Made with the first row.
    step
        Updates that training has behind it.
    """

    def __init__(self, path: Path, *, step: int) -> None:
        self._path = path
        self.rows = [row for row in read_table(path) if row["step"] <= step]
        if path.exists():
            write_bytes(path, "".join(self._lines(self.rows, header=True)).encode())

    def append(self, row: Mapping[str, float]) -> None:
        """Add a row; all rows have the same columns, NaN where an older version wrote rows without them."""
        is_first = not self.rows
        if self.rows and self.rows[0].keys() != row.keys():
            self.rows = [{name: before.get(name, math.nan) for name in row} for before in self.rows]
            write_bytes(self._path, "".join(self._lines(self.rows, header=True)).encode())
        # As they are read again: what follows from them does not depend on whether the training was interrupted.
        self.rows.append({name: float(f"{value:.{DIGITS}g}") for name, value in row.items()})
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.writelines(self._lines([dict(row)], header=is_first))

    @staticmethod
    def _lines(rows: list[dict[str, float]], *, header: bool) -> list[str]:
        if not rows:
            return []
        lines = io.StringIO()
        writer = csv.DictWriter(lines, fieldnames=list(rows[0]), lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows({name: f"{value:.{DIGITS}g}" for name, value in row.items()} for row in rows)
        return [lines.getvalue()]


def read_table(path: Path) -> list[dict[str, float]]:
    """Return the whole rows of a table; none where there is no file."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(io.StringIO(whole))]


def of_classes_last(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics by name, those of single classes after all others."""
    return dict(sorted(metrics.items(), key=lambda one: one[0].startswith(tuple(_PANELS))))


def draw_curves(folder: Path, *, metric: str, labels: LabelMap | None = None) -> None:
    """Draw the loss and the validation of a run over its steps into `curves.png`.

    Parameters
    ----------
    folder
        Of the run.
    metric
        By which models are chosen. Columns that give it of something else, such as ``label_miou``, are drawn beside it.
    labels
        Classes, each of which is drawn in its colour below where there are columns of it; None draws none.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    training, validation = read_table(folder / TRAINING), read_table(folder / VALIDATION)
    if not training:
        return
    columns = list(validation[0]) if validation else []
    known = () if labels is None else labels.names
    shown = [prefix for prefix in _PANELS if any(f"{prefix}{name}" in columns for name in known)]
    figure = Figure(figsize=(8, _UPPER + _LOWER * len(shown)), layout="constrained")
    heights = [_UPPER, *(_LOWER for _ in shown)]
    losses, *others = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    # A line needs two points; few of them are easier to see as marks.
    mark = "o-" if len(training) <= FEW else "-"
    steps, values = [row["step"] for row in training], [row["loss"] for row in training]
    lines = losses.plot(steps, values, mark, color="tab:blue", markersize=4, label="training loss")
    losses.set(ylabel="training loss", ylim=(0, None))
    if validation:
        metrics = losses.twinx()
        steps = [row["step"] for row in validation]
        beside = [name for name in columns if name.endswith(f"_{metric}") and not name.startswith(tuple(_PANELS))]
        for name, colour in zip([metric, *beside], ("tab:orange", "tab:green", "tab:purple"), strict=False):
            values = [row[name] for row in validation]
            lines += metrics.plot(steps, values, "o-", color=colour, markersize=4, label=f"validation {name}")
        metrics.set(ylabel=f"validation {metric}", ylim=(0, 1))
    if labels is not None:
        for prefix, axes in zip(shown, others, strict=True):
            _draw_classes(axes, validation, prefix, labels)
    lowest = others[-1] if others else losses
    lowest.set(xlabel="step")
    lowest.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(handles=lines, loc="outside upper center", ncols=len(lines), frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_bytes(folder / CURVES, picture.getvalue())


def _draw_classes(axes: Axes, rows: list[dict[str, float]], prefix: str, labels: LabelMap) -> None:
    """Draw what a table says of each class."""
    steps, shown = [row["step"] for row in rows], [one for one in labels.labels if f"{prefix}{one.name}" in rows[0]]
    for label in shown:
        colour = "tab:gray" if min(label.colour) >= _PALE else tuple(part / 255 for part in label.colour)
        values = [row[f"{prefix}{label.name}"] for row in rows]
        axes.plot(steps, values, "o--", color=colour, linewidth=1, markersize=3, label=label.name)
    axes.set(ylabel=_PANELS[prefix], ylim=(0, 1))
    axes.legend(
        loc="upper left", bbox_to_anchor=(1, 1), fontsize="small", frameon=False, ncols=math.ceil(len(shown) / _LINES)
    )
