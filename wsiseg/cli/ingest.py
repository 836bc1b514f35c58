"""``wsiseg ingest``."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from wsiseg.cli import console
from wsiseg.cli.options import (
    LABELS,
    PATCHES,
    RUN,
    ConfigFile,
    ImageWhite,
    Overrides,
    PatchOverlap,
    ReadingThreads,
)

if TYPE_CHECKING:
    from wsiseg.tasks.ingest import IngestReport
    from wsiseg.tasks.ingest_volumes import VolumesReport


class LabelsAs(StrEnum):
    """What label images hold."""

    INSTANCES = "instances"
    CLASSES = "classes"


def ingest(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of images, or of volumes.", show_default=False)],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Store to make, NAME.zarr.", show_default=False)],
    mpp: Annotated[
        str | None,
        typer.Option(
            "--mpp",
            help="µm per pixel of the images, or unknown. Needed unless --layout tells.",
            rich_help_panel=PATCHES,
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            help="How SRC is laid out: monuseg, glas, crag or dsb2018 (objects, as published); nnunet (2D); "
            "luad-histoseg, bcss-wsss or wsss4luad (labels in file names); volumes (NIfTI, HDF5). Default images: "
            "SRC/images/* and SRC/labels/<same stem>.png.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="CSV with a column image and one of 1, 0 or nothing for each class that may occur in an image.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    labels_as: Annotated[
        LabelsAs | None,
        typer.Option(
            "--labels-as",
            help="What label images hold: object ids, or class indices with 255 for ignored.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes",
            help="Names by index, with commas, background first. Default numbered. With --labels: its columns.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    white: ImageWhite = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="train, val, test or unlabelled for all, or a CSV with columns image and split, patient_id, or both. "
            "In folders with labels, images without must be marked unlabelled. Default: the layout's.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    patch_size: Annotated[
        int | None,
        typer.Option(
            "--patch-size",
            help="Cut images into patches of this edge in pixels. Default: whole images.",
            rich_help_panel=PATCHES,
        ),
    ] = None,
    overlap: PatchOverlap = None,
    num_workers: ReadingThreads = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make the store again if it is there.", rich_help_panel=RUN)
    ] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Make a patch store out of folders of images and label images, or a store of volumes."""
    from wsiseg.config import load
    from wsiseg.ingestion import IngestSettings
    from wsiseg.ingestion.volumes import VolumeSettings
    from wsiseg.tasks.ingest import ingest as run
    from wsiseg.tasks.ingest_volumes import ingest_volumes as run_volumes

    options = {
        "layout": layout,
        "mpp": mpp,
        "labels_as": labels_as,
        "labels": labels,
        "white": white,
        "classes": None if classes is None else [name.strip() for name in classes.split(",")],
        "patch_size": patch_size,
        "overlap": overlap,
        "split": split,
    }
    make: partial[IngestReport] | partial[VolumesReport]
    if layout == "volumes":
        volumes = load(VolumeSettings, file=config, options=options, overrides=overrides or ())
        make = partial(run_volumes, source, output, volumes)
    else:
        images = load(IngestSettings, file=config, options=options, overrides=overrides or ())
        make = partial(run, source, output, images)
    with console.progress_bar() as progress:
        report = make(num_workers=num_workers, overwrite=overwrite, progress=progress)
    console.out.print(str(report), highlight=False, markup=False)
