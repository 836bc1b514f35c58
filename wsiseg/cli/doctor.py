"""``wsiseg doctor``."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from wsiseg.cli import console

COLOURS = {"ok": "green", "hint": "yellow", "broken": "bold red"}


def doctor(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of all findings.")] = False
) -> None:
    """Check devices, libraries, limits, disk space and shipped models, and say how to mend them."""
    from wsiseg.tasks.doctor import examine, is_fit

    findings = examine()
    if as_json:
        text = json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2, ensure_ascii=False)
        console.out.print(text, highlight=False, markup=False)
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("what", "status", "finding", "fix"):
            table.add_column(name, overflow="fold")
        for finding in findings:
            colour = COLOURS[finding.status]
            table.add_row(
                escape(finding.name),
                f"[{colour}]{finding.status}[/]",
                escape(finding.finding),
                escape(finding.fix),
            )
        console.out.print(table, soft_wrap=False)
    if not is_fit(findings):
        raise typer.Exit(1)
