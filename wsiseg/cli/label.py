"""``wsiseg label``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from wsiseg.cli import console
from wsiseg.cli.options import (
    LABELS,
    RUN,
    ConfigFile,
    ImageWhite,
    Origin,
    Overrides,
)


class LabelAs(StrEnum):
    """What is made of annotations."""

    IMAGE = "image"


def label(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Patch store of a slide.", show_default=False)],
    *,
    annotations: Annotated[
        Path,
        typer.Option("--from", help="GeoJSON of QuPath (.geojson, .json, .gz).", show_default=False),
    ],
    labels_as: Annotated[
        LabelAs | None,
        typer.Option(
            "--as",
            help="What to make of it: image, the classes that occur in each patch. Default image.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", help="Layer to write. Default labels.", rich_help_panel=LABELS)
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes",
            help="Names by index, with commas. Default: those in the file, sorted; name them if there are more slides.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    white: ImageWhite = None,
    qupath_origin: Annotated[
        Origin | None,
        typer.Option(
            "--qupath-origin",
            help="QuPath counted from the scanned bounds, as it does, or from level 0. Default bounds.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a layer of that name.", rich_help_panel=RUN)
    ] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Label patches by the boxes that were drawn over them in QuPath."""
    from wsiseg.config import load
    from wsiseg.tasks.label import LabelConfig
    from wsiseg.tasks.label import label as run

    options = {
        "labels_as": labels_as,
        "layer": layer,
        "classes": None if classes is None else [name.strip() for name in classes.split(",")],
        "white": white,
        "qupath_origin": qupath_origin,
    }
    settings = load(LabelConfig, file=config, options=options, overrides=overrides or ())
    report = run(store, annotations, settings, overwrite=overwrite)
    console.out.print(str(report), highlight=False, markup=False)
