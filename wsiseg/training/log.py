"""What training writes down: two tables that grow, and a picture of them."""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING

from wsiseg.atomic import write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TRAINING = "log.csv"
VALIDATION = "validation.csv"
CURVES = "curves.png"
FEW = 20
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


def draw_curves(folder: Path, *, metric: str) -> None:
    """Draw the loss and the validation metric of a run over its steps into `curves.png`."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    training, validation = read_table(folder / TRAINING), read_table(folder / VALIDATION)
    if not training:
        return
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    losses = figure.add_subplot()
    # A line needs two points; few of them are easier to see as marks.
    mark = "o-" if len(training) <= FEW else "-"
    steps, values = [row["step"] for row in training], [row["loss"] for row in training]
    lines = losses.plot(steps, values, mark, color="tab:blue", markersize=4, label="training loss")
    losses.set(xlabel="step", ylabel="training loss", ylim=(0, None))
    losses.xaxis.set_major_locator(MaxNLocator(integer=True))
    if validation:
        metrics = losses.twinx()
        steps, values = [row["step"] for row in validation], [row[metric] for row in validation]
        lines += metrics.plot(steps, values, "o-", color="tab:orange", markersize=4, label=f"validation {metric}")
        metrics.set(ylabel=f"validation {metric}", ylim=(0, 1))
    figure.legend(handles=lines, loc="outside upper center", ncols=len(lines), frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_bytes(folder / CURVES, picture.getvalue())
