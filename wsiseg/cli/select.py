"""``wsiseg select``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from wsiseg.cli import console
from wsiseg.cli.options import RUN, ConfigFile, Device, Overrides, Precision, TimeLimit, seconds

CHOICE, FEATURES = "Choice", "Features"


class Preproc(StrEnum):
    """How colours are prepared."""

    IMAGENET = "imagenet"
    UNIT = "unit"


def select(
    stores: Annotated[
        list[Path],
        typer.Argument(metavar="STORE...", help="Patch stores, or folders of them: one pool.", show_default=False),
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the selection.", show_default=False)],
    count: Annotated[
        int | None, typer.Option("--count", "-k", help="Patches to choose. Default 6.", rich_help_panel=CHOICE)
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            help="cps (consistency: typical of a part of the pool, and alike all over), kcenter (far apart), random, "
            "or uncertainty (where --prediction is least sure, in different places). Default cps.",
            rich_help_panel=CHOICE,
        ),
    ] = None,
    prediction: Annotated[
        Path | None,
        typer.Option(
            "--prediction",
            help="Output of wsiseg predict on the same slides, for --strategy uncertainty.",
            rich_help_panel=CHOICE,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            help="What is annotated already: a layer of labels, or an earlier selection.csv; may be repeated. Default "
            "with uncertainty: all layers that were not made by a model.",
            rich_help_panel=CHOICE,
        ),
    ] = None,
    no_overlap: Annotated[
        bool | None,
        typer.Option(
            "--no-overlap",
            help="Chosen patches share no pixel with one another or with those of --exclude.",
            rich_help_panel=CHOICE,
        ),
    ] = None,
    runners_up: Annotated[
        int | None,
        typer.Option(
            "--runners-up",
            help="Patches of each cluster that may take the place of the chosen one. Default 4.",
            rich_help_panel=CHOICE,
        ),
    ] = None,
    min_tissue: Annotated[
        float | None,
        typer.Option(
            "--min-tissue", help="Least share of tissue; 0 keeps blank patches. Default 0.5.", rich_help_panel=CHOICE
        ),
    ] = None,
    min_nuclei: Annotated[
        float | None,
        typer.Option(
            "--min-nuclei",
            help="Least share of pixels with the colour of nuclei in H&E; 0 for other stains. Default 0.03.",
            rich_help_panel=CHOICE,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Decides everything random. Default 42.", rich_help_panel=CHOICE)
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder",
            help="resnet50 as published, a timm model, torchvision/NAME, hf-hub:OWNER/NAME, or a folder with "
            "config.json and weights. Default resnet50.",
            rich_help_panel=FEATURES,
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            "--init",
            help="Its weights: imagenet (published with it; from this machine's caches), none (random), or a file. "
            "Default imagenet.",
            rich_help_panel=FEATURES,
        ),
    ] = None,
    preproc: Annotated[
        Preproc | None,
        typer.Option(
            "--preproc",
            help="Colours as its weights were trained with, or unit, 0 … 1, as published. Default imagenet.",
            rich_help_panel=FEATURES,
        ),
    ] = None,
    download: Annotated[
        bool | None,
        typer.Option(
            "--download",
            help="Fetch weights from the network that are not here. Nothing is fetched without.",
            rich_help_panel=FEATURES,
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            "--features",
            help="Where features are kept, and found again. Default features.zarr in the output.",
            rich_help_panel=FEATURES,
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Patches at once. Default 32.", rich_help_panel=FEATURES)
    ] = None,
    device: Device = "auto",
    amp: Precision = None,
    num_workers: Annotated[
        int, typer.Option("--num-workers", min=0, help="Threads that read.", rich_help_panel=RUN)
    ] = 2,
    time_limit: TimeLimit = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another selection, or other features.", rich_help_panel=RUN)
    ] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Choose the patches of a pool that are worth annotating, and say where they are.

    The folder gets selection.csv, selection.html with what speaks for each patch, contact_sheet.png, patches/ as PNG,
    a map of clusters or uncertainty on each slide, and rois.geojson (rois/ for several slides): locked boxes to drag
    onto the slide in QuPath. wsiseg label brings back what is drawn in them. Labels are not looked at.
    """
    from wsiseg.config import load
    from wsiseg.tasks.select import select as run
    from wsiseg.tasks.select_job import SelectConfig, SelectJob

    options = {
        "count": count,
        "strategy": strategy,
        "exclude": exclude or None,
        "no_overlap": no_overlap,
        "runners_up": runners_up,
        "min_tissue": min_tissue,
        "min_nuclei": min_nuclei,
        "seed": seed,
        "encoder": encoder,
        "init": init,
        "preproc": preproc,
        "download": download,
        "batch_size": batch_size,
        "amp": amp,
    }
    job = SelectJob(
        stores=tuple(stores),
        output=output,
        config=load(SelectConfig, file=config, options=options, overrides=overrides or ()),
        features=features,
        prediction=prediction,
        device=device,
        num_workers=num_workers,
        overwrite=overwrite,
    )
    with console.progress_bar() as progress, console.graceful(seconds(time_limit)) as stop:
        report = run(job, progress, stop)
    console.out.print(str(report), highlight=False, markup=False)
