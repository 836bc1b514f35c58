"""``wsiseg info``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from wsiseg.cli import console
from wsiseg.cli.options import (  # noqa: TC001 - typer reads the annotations
    Reader,
    SlideMpp,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from wsiseg.slides.base import SlideInfo
    from wsiseg.tasks.info import SlideReport


def info(
    slides: Annotated[list[str], typer.Argument(help="Slides, folders of slides, or globs.", show_default=False)],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list with all that is known.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read random tiles; compare those of the fast reader with OpenSlide's.")
    ] = False,
    reader: Reader = None,
    slide_mpp: SlideMpp = None,
) -> None:
    """Show what slides are: reader, size, levels, pixel size and where it comes from."""
    from wsiseg.tasks.info import describe_slides, raise_failures

    reports = describe_slides(slides, reader=reader, slide_mpp=slide_mpp, is_verified=verify)
    if as_json:
        text = json.dumps([report.as_json() for report in reports], indent=2, ensure_ascii=False)
        console.out.print(text, highlight=False, markup=False)
    else:
        for report in reports:
            console.out.print(_panel(report), soft_wrap=False)
    raise_failures(reports)


def _panel(report: SlideReport) -> Panel:
    title = f"[bold]{escape(report.path.name)}[/]"
    if report.info is None:
        return Panel(escape(str(report.error)), title=title, title_align="left", border_style="red")
    info = report.info
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    facts.add_row("vendor", escape(info.vendor))
    facts.add_row("reader", f"{info.reader} [dim]({escape(info.why)})[/]")
    facts.add_row("size", _size(report, info))
    facts.add_row("pixel size", _mpp(info))
    if info.bounds is not None:
        facts.add_row(
            "scanned part", f"{info.bounds.width} × {info.bounds.height} px at {info.bounds.x}, {info.bounds.y}"
        )
    if info.associated:
        facts.add_row("associated", escape(", ".join(info.associated)))
    facts.add_row("fast reader", _fast(report, info))
    if report.usual_level is not None:
        facts.add_row("at 0.5 µm/px", f"level {report.usual_level} is read")
    parts: list[RenderableType] = [facts, _levels(info)]
    found = report.verification
    trouble = info.mpp is None or (found is not None and bool(found.different or found.unreadable))
    colour = "red" if report.error is not None else "yellow" if trouble else "green"
    return Panel(Group(*parts), title=title, title_align="left", border_style=colour)


def _size(report: SlideReport, info: SlideInfo) -> str:
    text = f"{info.size.width} × {info.size.height} px"
    if report.size_mm is not None:
        text += f", {report.size_mm[0]:.2f} × {report.size_mm[1]:.2f} mm"
    return text


def _mpp(info: SlideInfo) -> str:
    from wsiseg.slides.mpp import is_plausible

    lines = []
    if info.mpp is None:
        lines.append(f"[yellow]unknown[/]: {escape(info.mpp_problem or '')}")
        lines.append("[yellow]pass --slide-mpp with the µm per pixel if you know them[/]")
    else:
        lines.append(f"{info.mpp.value:.4g} µm [dim]({escape(info.mpp.source)})[/]")
        lines += [f"[yellow]{escape(warning)}[/]" for warning in info.mpp.warnings]
    for one in info.mpp_candidates:
        if info.mpp is None or one.source != info.mpp.source:
            if one.is_guess:
                why = ", a guess that is never used"
            else:
                why = "" if is_plausible(one) else ", which no microscope slide has"
            lines.append(f"[dim]{one.x:.4g} µm ({escape(one.source)}{why})[/]")
    return "\n".join(lines)


def _fast(report: SlideReport, info: SlideInfo) -> str:
    found, answer = report.verification, "yes" if info.reader == "tiff" else "no"
    if found is None:
        return "yes [dim](--verify compares its pixels with OpenSlide's)[/]" if answer == "yes" else "no"
    if found.is_unreadable:
        return f"{answer}, [red]but none of {found.tiles} tiles can be read[/]"
    broken = f", [yellow]{found.unreadable} of {found.tiles} tiles unreadable[/]" if found.unreadable else ""
    if found.note is not None:
        return f"{answer} [dim]({escape(found.note)})[/]{broken}"
    if found.different:
        return f"[red]{found.different} of {found.tiles} tiles differ from OpenSlide's[/]{broken}"
    return f"yes, [green]{found.tiles - found.unreadable} tiles compared with OpenSlide, all equal[/]{broken}"


def _levels(info: SlideInfo) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("level", "size", "down", "µm/px", "tiles", "codec"):
        table.add_column(name, justify="left" if name == "codec" else "right", no_wrap=True)
    for index, level in enumerate(info.levels):
        table.add_row(
            str(index),
            f"{level.size.width} × {level.size.height}",
            f"{level.downsample:.5g}",
            "" if info.mpp is None else f"{info.mpp.value * level.downsample:.4g}",
            "" if level.tile is None else f"{level.tile.width} × {level.tile.height}",
            level.compression or "",
        )
    return table
