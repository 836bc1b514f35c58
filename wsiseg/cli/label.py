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
    INSTANCES = "instances"
    CLASSES = "classes"


class Undrawn(StrEnum):
    """What is made of what was not drawn."""

    IGNORE = "ignore"
    BACKGROUND = "background"


def label(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Patch store to label.", show_default=False)],
    *,
    annotations: Annotated[
        Path,
        typer.Option(
            "--from",
            metavar="FILE|DIR",
            help="GeoJSON of QuPath (.geojson, .json, .gz, .zip), a label image as large as the whole slide is at the "
            "resolution of the store, or a folder of either by the names of slides or images; label images also by "
            "those of patches.",
            show_default=False,
        ),
    ],
    labels_as: Annotated[
        LabelAs | None,
        typer.Option(
            "--as",
            help="What to make of it: image, which classes occur in each patch; instances, objects of any class; or "
            "classes, a class for each pixel. Default image.",
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
            help="Names by index, with commas. Default: those in the file, sorted, with --as classes after background; "
            "name them if there are more slides. With --as instances one name is what objects are called, object by "
            "default, and several are those that may have been drawn.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    undrawn: Annotated[
        Undrawn | None,
        typer.Option(
            "--undrawn",
            help="With instances and classes, what was not drawn outside boxes of the class Region*, in which it is "
            "background, and patches in which a label image of a whole slide shows nothing: ignore, or background "
            "everywhere. Default ignore.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    white: ImageWhite = None,
    qupath_origin: Annotated[
        Origin | None,
        typer.Option(
            "--qupath-origin",
            help="QuPath counted from the scanned bounds, as it does, or from level 0, unless the file itself tells. "
            "Default bounds.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a layer of that name.", rich_help_panel=RUN)
    ] = False,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep",
            help="With instances and classes: replace the labels of the patches that the annotations tell of, and keep "
            "those of the others.",
            rich_help_panel=RUN,
        ),
    ] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Label patches, or their pixels, by what was drawn over them in QuPath, or by label images.

    With --as instances or classes, outlines become labels of pixels: holes stay open, and smaller outlines lie over
    larger ones. Boxes of the class Region*, or those of wsiseg select, tell where everything was drawn: inside, the
    rest is background, and all outside is ignored. What the class Ignore* covers is ignored, too; a patch that it
    covers whole counts as annotated, and nothing is learnt from it.
    """
    from wsiseg.config import load
    from wsiseg.tasks.label import label as run
    from wsiseg.tasks.label_settings import LabelConfig

    options = {
        "labels_as": labels_as,
        "layer": layer,
        "classes": None if classes is None else [name.strip() for name in classes.split(",")],
        "undrawn": undrawn,
        "white": white,
        "qupath_origin": qupath_origin,
    }
    settings = load(LabelConfig, file=config, options=options, overrides=overrides or ())
    with console.progress_bar() as progress:
        report = run(store, annotations, settings, overwrite=overwrite, keep=keep, progress=progress)
    console.out.print(str(report), highlight=False, markup=False)
