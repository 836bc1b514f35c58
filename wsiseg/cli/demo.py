"""``wsiseg demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsiseg.cli import console


def demo(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything.")] = Path("wsiseg-demo"),
) -> None:
    """Show the whole way on a small slide that comes with wsiseg: patches, nuclei, polygons, a report."""
    from wsiseg.tasks.demo import demo as run

    with console.progress_bar() as progress, console.graceful() as stop:
        report = run(output, progress=progress, stop=stop)
    console.out.print(f"Found {report.nuclei:,} nuclei in {report.seconds:.0f} s.", highlight=False)
    console.out.print(f"Report: {report.page.resolve()}", highlight=False, markup=False)
