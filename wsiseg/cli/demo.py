"""``wsiseg demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsiseg.cli import console


def demo(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything.")] = Path("wsiseg-demo"),
    loop: Annotated[
        bool,
        typer.Option(
            "--loop",
            help="Show instead how a model is made from a few annotated patches: chosen, annotated, multiplied. Takes "
            "about three minutes.",
        ),
    ] = False,
) -> None:
    """Show the whole way on a small slide that comes with wsiseg: patches, nuclei, polygons, a report."""
    from wsiseg.tasks.demo import demo as run

    if loop:
        _loop(output)
        return
    with console.progress_bar() as progress, console.graceful() as stop:
        report = run(output, progress=progress, stop=stop)
    console.out.print(f"Found {report.nuclei:,} nuclei in {report.seconds:.0f} s.", highlight=False)
    console.out.print(f"Report: {report.page.resolve()}", highlight=False, markup=False)


def _loop(output: Path) -> None:
    from wsiseg.tasks.demo_loop import demo_loop

    with console.progress_bar() as progress, console.graceful() as stop:
        report = demo_loop(output, progress=progress, stop=stop)
    made = f"{report.patches} annotated patches made a model that found {report.nuclei:,} nuclei"
    console.out.print(f"{made}, in {report.seconds:.0f} s.", highlight=False)
    console.out.print(f"Report: {report.page.resolve()}", highlight=False, markup=False)
