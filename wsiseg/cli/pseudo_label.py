"""``wsiseg pseudo-label``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from wsiseg.cli import console
from wsiseg.cli.options import LABELS, RUN, Device, TimeLimit, seconds


def pseudo_label(
    stores: Annotated[
        list[Path],
        typer.Argument(
            metavar="STORE...",
            help="Patch stores, or folders of them; for a classifier with image labels. What craanet has accumulated "
            "is used for those of its training, in the same order.",
            show_default=False,
        ),
    ],
    *,
    checkpoint: Annotated[
        Path,
        typer.Option(
            "--checkpoint",
            help="A run, or its stage that made the classifier; or a model of objects, such as RUN/teacher of "
            "label-efficient.",
            show_default=False,
        ),
    ],
    layer: Annotated[
        str | None,
        typer.Option("--layer", help="Layer of image labels. Default: the only one there is.", rich_help_panel=LABELS),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            "--min-score",
            min=0,
            max=1,
            help="Of objects, the lowest score of those that are believed. Default that of the run, or 0.5.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    with_val: Annotated[
        bool,
        typer.Option(
            "--val",
            help="Label validation patches too, by the classes in their masks and as training patches are, and keep "
            "how sure each label is, for wsiseg audit.",
            rich_help_panel=LABELS,
        ),
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export",
            help="Folder for the masks of the training patches as palette PNGs, too: PM_<layer>/<patch>.png.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    device: Device = "auto",
    time_limit: TimeLimit = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Label and export patches again that are done.", rich_help_panel=RUN),
    ] = False,
) -> None:
    """Write masks into stores, made by a trained classifier from what its patches show, or by a model of objects.

    A classifier comes from `wsiseg train`, which needs no more than its first stage: --stages classify. Objects are
    found in patches that nobody has annotated and no annotated patch overlaps; where the model is unsure, and around
    what it does not believe, nothing is learnt from them.
    """
    from wsiseg.tasks.pseudo_label import PseudoLabelJob
    from wsiseg.tasks.pseudo_label import pseudo_label as run

    job = PseudoLabelJob(
        stores=tuple(stores),
        checkpoint=checkpoint,
        layer=layer,
        min_score=min_score,
        device=device,
        with_val=with_val,
        export=export,
        overwrite=overwrite,
    )
    with console.progress_bar() as progress, console.graceful(seconds(time_limit)) as stop:
        report = run(job, progress, stop)
    console.out.print(str(report), highlight=False, markup=False)
