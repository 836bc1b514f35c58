"""``wsiseg audit``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from wsiseg.cli import console
from wsiseg.cli.options import LABELS


def audit(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Patch store with labels.", show_default=False)],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the page and the figures.", show_default=False)
    ],
    layers: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            help="Layer of classes to look at; may be repeated. Default: all but the true one.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            "--truth",
            help="Layer of true masks. Default: the one named like the image labels, if any.",
            rich_help_panel=LABELS,
        ),
    ] = None,
) -> None:
    """Tell how far pseudo-labels can be trusted: coverage, balance, agreement, and the worst patches as pictures.

    Where true masks exist, also accuracy, and whether labels are right as often as they are sure. For that, label the
    patches that have masks, with wsiseg pseudo-label --val.
    """
    from wsiseg.tasks.audit import AuditJob
    from wsiseg.tasks.audit import audit as run

    job = AuditJob(store=store, output=output, layers=None if not layers else tuple(layers), truth=truth)
    with console.progress_bar() as progress:
        report = run(job, progress)
    console.out.print(str(report), highlight=False, markup=False)
