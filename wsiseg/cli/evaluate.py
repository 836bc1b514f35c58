"""``wsiseg evaluate``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from wsiseg.cli import console
from wsiseg.cli.options import (
    RUN,
    ConfigFile,
    Overrides,
)

if TYPE_CHECKING:
    from wsiseg.evaluation.report import Estimate, EvaluateReport
    from wsiseg.evaluation.volumes import VolumesReport

LABELS, SCORES = "Labels", "Scores"

PIPE_WIDTH = 200


class Task(StrEnum):
    """What pixels hold."""

    SEMANTIC = "semantic"
    INSTANCE = "instance"
    VOLUMES = "volumes"


def evaluate(
    pred: Annotated[
        Path,
        typer.Argument(
            metavar="PRED",
            help="Predicted label image or volume, a folder of them, or the output of predict --label-png.",
            show_default=False,
        ),
    ],
    truth: Annotated[
        Path, typer.Argument(metavar="GT", help="True label image or volume, or a folder of them.", show_default=False)
    ],
    *,
    task: Annotated[
        Task | None,
        typer.Option("--task", help="Whether pixels hold class indices or object ids; volumes for NIfTI files."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON file for all scores.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="CSV file with a row for each image.")] = None,
    mpp: Annotated[
        float | None,
        typer.Option(
            "--mpp",
            help="µm per pixel. Default: that of the predictions, if predict made them; else distances are in pixels.",
            rich_help_panel=SCORES,
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            help="How far apart boundaries may run, in µm, or in pixels where those are. Default 1 µm or 2 px.",
            rich_help_panel=SCORES,
        ),
    ] = None,
    ignore_index: Annotated[
        int | None,
        typer.Option("--ignore-index", help="Class index that does not count. Default 255.", rich_help_panel=LABELS),
    ] = None,
    num_classes: Annotated[
        int | None,
        typer.Option("--num-classes", help="Default: one more than the highest index.", rich_help_panel=LABELS),
    ] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", help="Names by index, with commas.", rich_help_panel=LABELS)
    ] = None,
    bootstrap: Annotated[
        int | None,
        typer.Option(
            "--bootstrap",
            help="Resamples behind the 95 % intervals, 0 for none. Default 1000.",
            rich_help_panel=SCORES,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of the resampling. Default 0.", rich_help_panel=SCORES)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all scores as JSON, not a table.", rich_help_panel=RUN)
    ] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Compare predicted with true label images, or labels of volumes."""
    from wsiseg.config import load
    from wsiseg.evaluation.config import EvaluateConfig
    from wsiseg.evaluation.volumes import VolumesReport
    from wsiseg.tasks.evaluate import evaluate as run
    from wsiseg.tasks.evaluate_volumes import evaluate_volumes

    options = {
        "task": None if task is None else task.value,
        "mpp": mpp,
        "tolerance": tolerance,
        "ignore_index": ignore_index,
        "num_classes": num_classes,
        "classes": None if classes is None else [name.strip() for name in classes.split(",")],
        "bootstrap": bootstrap,
        "seed": seed,
    }
    settings = load(EvaluateConfig, file=config, options=options, overrides=overrides or ())
    with console.progress_bar() as progress:
        compare = evaluate_volumes if settings.task == "volumes" else run
        report = compare(pred, truth, settings, output=output, table=csv, progress=progress)
    if as_json:
        console.out.out(report.to_json(), end="", highlight=False)
        return
    if isinstance(report, VolumesReport):
        console.out.print(_volumes_table(report))
        return
    # A file or pipe has no width, and rich would cut tables to 80 columns.
    width = None if console.out.is_terminal else PIPE_WIDTH
    console.out.print(_scores_table(report), width=width)
    if report.classes:
        console.out.print(_class_table(report), width=width)


def _scores_table(report: EvaluateReport) -> Table:
    table = Table(title=f"Images: {len(report.images)}", title_justify="left")
    for header in ("score", "mean", "95 % interval", "pooled", "95 % interval"):
        table.add_column(header, justify="left" if header == "score" else "right", no_wrap=True)
    for name, mean in report.mean.items():
        unit = report.units[name]
        pooled = report.pooled.get(name)
        table.add_row(_named(name, unit), *_cells(mean, unit), *(("", "") if pooled is None else _cells(pooled, unit)))
    return table


def _class_table(report: EvaluateReport) -> Table:
    table = Table(title="Classes, pooled", title_justify="left")
    table.add_column("class", no_wrap=True)
    for score in next(iter(report.classes.values())):
        table.add_column(score, justify="right", no_wrap=True)
    for name, scores in report.classes.items():
        table.add_row(name, *(_number(value, report.units.get(score, "1")) for score, value in scores.items()))
    return table


def _volumes_table(report: VolumesReport) -> Table:
    table = Table(title=f"Volumes: {len(report.cases)}", title_justify="left")
    for header in ("class", "score", "mean ± std", "cases", "without"):
        table.add_column(header, justify="left" if header in ("class", "score") else "right", no_wrap=True)
    for name, scores in {**report.classes, "mean": report.mean}.items():
        for number, (score, spread) in enumerate(scores.items()):
            unit = report.units[score]
            value = f"{_number(spread.mean, unit)} ± {_number(spread.std, unit)}"
            # Distances to what is not there are left out, and never unsaid.
            without = str(spread.missing) if spread.missing else ""
            table.add_row("" if number else name, _named(score, unit), value, str(spread.cases), without)
        table.add_section()
    return table


def _named(name: str, unit: str) -> str:
    return name if unit == "1" else f"{name} ({unit})"


def _cells(estimate: Estimate, unit: str) -> tuple[str, str]:
    interval = "" if estimate.low is None else f"{_number(estimate.low, unit)} to {_number(estimate.high, unit)}"
    return _number(estimate.value, unit), interval


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.3f}" if unit == "1" else f"{value:.2f}"
