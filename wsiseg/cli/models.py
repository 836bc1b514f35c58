"""``wsiseg models``."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from wsiseg.cli import console
from wsiseg.errors import ConfigError

if TYPE_CHECKING:
    from wsiseg.tasks.models import ModelReport


class Action(StrEnum):
    """What to do."""

    LIST = "list"
    SHOW = "show"


def models(
    action: Annotated[Action, typer.Argument(help="list the models that come along, or show one.")] = Action.LIST,
    model: Annotated[
        str | None,
        typer.Argument(help="Name of a model, its folder, or the folder of a training run.", show_default=False),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List the models that come with wsiseg, or show what one is and how good it is."""
    from wsiseg.tasks.models import list_models, show_model

    if (action is Action.SHOW) != (model is not None):
        raise ConfigError(
            "show needs a model, and list takes none",
            mend="Use wsiseg models list, or wsiseg models show NAME",
        )
    reports = list_models() if model is None else [show_model(model)]
    if as_json:
        records = [_record(report) for report in reports]
        console.out.print_json(json.dumps(records if model is None else records[0]))
    elif model is None:
        console.out.print(_overview(reports))
    else:
        console.out.print(_details(reports[0]))


def _record(report: ModelReport) -> dict[str, object]:
    return {
        "name": report.name,
        "folder": str(report.folder),
        "size_bytes": report.size_bytes,
        "fingerprint": report.fingerprint,
        "card": report.card.model_dump(mode="json"),
    }


def _overview(reports: list[ModelReport]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("Model", "Task", "Classes", "µm/px", "MB", "Description"):
        table.add_column(heading, justify="right" if heading in ("µm/px", "MB") else "left")
    for report in reports:
        card = report.card
        mpp = "any" if card.mpp is None else f"{card.mpp:g}"
        names = ", ".join(card.labels.names)
        table.add_row(report.name, card.task, names, mpp, f"{report.size_bytes / 1e6:.1f}", escape(card.description))
    return table


def _details(report: ModelReport) -> Table:
    card = report.card
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    head = "" if card.head is None else f", head {card.head.kind}"
    unused = ("encoder", "encoder_weights") if card.net.get("arch") == "unet-gn" else ("widths", "skip")
    rows = {
        "Model": card.name,
        "Description": card.description,
        "Folder": str(report.folder),
        "Task": f"{card.task}{head}",
        "Classes": ", ".join(
            f"[rgb({','.join(map(str, label.colour))})]■[/] {escape(label.name)}" for label in card.labels.labels
        ),
        "Resolution": "any" if card.mpp is None else f"{card.mpp:g} µm/px",
        "Tile": f"{card.tile_px} px, halo {card.halo_px} px",
        "Network": ", ".join(f"{key} {value}" for key, value in card.net.items() if value and key not in unused),
        "Metrics": ", ".join(f"{key} {value:.4g}" for key, value in card.metrics.items()),
        "Trained on": ", ".join(f"{name} ({_short(told)})" for name, told in card.training_data.items()),
        "Licence": card.licence,
        "Size": f"{report.size_bytes / 1e6:.1f} MB",
        "Fingerprint": report.fingerprint,
        "Written by": f"wsiseg {card.version}",
    }
    for key, value in rows.items():
        if value:
            table.add_row(key, value if key == "Classes" else escape(value))
    return table


def _short(told: str) -> str:
    """Return a fingerprint's beginning; of data without a store a card says something else, in words."""
    return told[:12] if re.fullmatch(r"[0-9a-f]{16,}", told) else told
