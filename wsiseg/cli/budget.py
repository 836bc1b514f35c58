"""``wsiseg budget``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from wsiseg.cli import console
from wsiseg.cli.options import (
    ConfigFile,
    Device,
    NumShards,
    Overrides,
    ShardIndex,
    TimeLimit,
    as_overrides,
    seconds,
)

STUDY, LEARNING = "Study", "Learning"


def budget(
    stores: Annotated[
        list[Path], typer.Argument(help="Patch stores, with patches marked test to judge by.", show_default=False)
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the study.", show_default=False)],
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            help="Methods to compare, with commas. Default supervised,mean-teacher.",
            rich_help_panel=STUDY,
        ),
    ] = None,
    fractions: Annotated[
        str | None,
        typer.Option(
            "--fractions",
            help="Shares of the training images whose labels are used. Default 0.05,0.1,0.2,0.5,1.",
            rich_help_panel=STUDY,
        ),
    ] = None,
    counts: Annotated[
        str | None,
        typer.Option(
            "--counts",
            help="Numbers of images, or of patients or volumes where these are drawn, in the place of shares.",
            rich_help_panel=STUDY,
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds", help="Trainings of each kind, each with a draw of its own. Default 3.", rich_help_panel=STUDY
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", help="Updates of the weights of each training.", rich_help_panel=LEARNING),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            "--epochs",
            help="Rounds through the data. With few labels these are few updates; --steps is fairer.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Labelled images in a batch.", rich_help_panel=LEARNING)
    ] = None,
    crop_px: Annotated[
        int | None, typer.Option("--crop-px", help="Edge of training images.", rich_help_panel=LEARNING)
    ] = None,
    arch: Annotated[
        str | None, typer.Option("--arch", help="Network of all methods that take one.", rich_help_panel=LEARNING)
    ] = None,
    device: Device = "auto",
    num_shards: NumShards = None,
    shard_index: ShardIndex = None,
    time_limit: TimeLimit = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Tell what more labels are worth: train with more and more of them, and draw what each method reaches.

    Test patches judge; they are never trained on. All methods are trained alike, with the defaults of wsiseg train and
    not with schedules of their own; of objects, supervised takes the head of the first method that learns from images
    without labels, unless told otherwise. Settings of all trainings are --set train.KEY=VALUE, those of one method
    --set each.METHOD.KEY=VALUE, as for wsiseg train. --set each.NAME.method=METHOD makes NAME a variant of a method,
    with settings of its own, for --methods. Run it again to go on, also as a job array.
    """
    from wsiseg.config import load
    from wsiseg.tasks.budget import BudgetJob
    from wsiseg.tasks.budget import budget as run
    from wsiseg.tasks.budget_settings import BudgetConfig

    options = {
        "methods": _parts(methods),
        "fractions": _parts(fractions),
        "counts": _parts(counts),
        "seeds": seeds,
    }
    nested = {
        "train.fit.steps": steps,
        "train.epochs": epochs,
        "train.batch_size": batch_size,
        "train.crop_px": crop_px,
        "train.options.arch": arch,
    }
    job = BudgetJob(
        stores=tuple(stores),
        output=output,
        config=load(BudgetConfig, file=config, options=options, overrides=as_overrides(nested, overrides)),
        device=device,
        num_shards=num_shards,
        shard_index=shard_index,
    )
    with console.progress_bar() as progress, console.graceful(seconds(time_limit)) as stop:
        report = run(job, progress, stop)
    console.out.print(str(report), highlight=False, markup=False)
    report.check()


def _parts(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]
