"""``wsiseg predict``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from wsiseg.cli import console
from wsiseg.cli.options import (
    RUN,
    ConfigFile,
    Device,
    FailFast,
    Manifest,
    NumShards,
    Origin,
    Overrides,
    Precision,
    Reader,
    ShardIndex,
    SlideDir,
    SlideMpp,
    Slides,
    TimeLimit,
    Tissue,
    as_overrides,
    seconds,
)
from wsiseg.errors import ConfigError

MODEL, OUTPUTS = "Model", "Outputs"


class Blend(StrEnum):
    """How overlapping tiles are joined."""

    GAUSSIAN = "gaussian"
    HANN = "hann"
    NONE = "none"


class Tta(StrEnum):
    """Symmetries whose mean is taken."""

    NONE = "none"
    FLIPS = "flips"
    D4 = "d4"


class Polygons(StrEnum):
    """Formats of polygons."""

    GEOJSON = "geojson"
    GEOJSON_GZ = "geojson.gz"
    PARQUET = "parquet"
    NONE = "none"


class MaskFormat(StrEnum):
    """Formats of masks."""

    ZARR = "zarr"
    TIFF = "tiff"


def predict(
    slides: Slides = None,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder that gets one folder per slide.", show_default=False)
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", help="Shipped model, or folder of one. Default nuclei-he.", rich_help_panel=MODEL),
    ] = None,
    manifest: Manifest = None,
    slide_dir: SlideDir = None,
    slide_mpp: SlideMpp = None,
    reader: Reader = None,
    tissue: Tissue = None,
    mpp: Annotated[
        float | None,
        typer.Option("--mpp", help="µm per pixel of the prediction. Default: the model's.", rich_help_panel=MODEL),
    ] = None,
    overlap: Annotated[
        str | None,
        typer.Option(
            "--overlap",
            help="Shared by neighbouring tiles: pixels (64) or a share (0.25). Default: what the model needs.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    blend: Annotated[
        Blend | None,
        typer.Option("--blend", help="How overlapping tiles are joined. Default gaussian.", rich_help_panel=MODEL),
    ] = None,
    tta: Annotated[
        Tta | None,
        typer.Option("--tta", help="Mean over 4 (flips) or 8 (d4) symmetries. Default none.", rich_help_panel=MODEL),
    ] = None,
    amp: Precision = None,
    polygons: Annotated[
        Polygons | None,
        typer.Option("--polygons", help="Format of polygons. Default geojson.", rich_help_panel=OUTPUTS),
    ] = None,
    simplify: Annotated[
        float | None,
        typer.Option(
            "--simplify",
            min=0,
            help="Tolerance of polygons in pixels, 0 for exact. Default 1 for regions, 0.4 for objects.",
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    qupath_origin: Annotated[
        Origin | None,
        typer.Option(
            "--qupath-origin",
            help="Count polygons from the scanned bounds, as QuPath does, or from level 0. Default bounds.",
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    label_png: Annotated[
        bool, typer.Option("--label-png", help="Write labels.png, too.", rich_help_panel=OUTPUTS)
    ] = False,
    mask_format: Annotated[
        MaskFormat | None,
        typer.Option("--format", help="tiff adds a pyramidal OME-TIFF. Default zarr.", rich_help_panel=OUTPUTS),
    ] = None,
    probability: Annotated[
        bool,
        typer.Option(
            "--probability",
            help="Keep the probability of each class (of objects: of any), 0 to 255, in prediction.zarr/probability.",
            rich_help_panel=OUTPUTS,
        ),
    ] = False,
    device: Device = "auto",
    batch_size: Annotated[
        str, typer.Option("--batch-size", help="Tiles at once, or auto.", rich_help_panel=RUN)
    ] = "auto",
    num_workers: Annotated[
        int | None,
        typer.Option(
            "--num-workers",
            min=0,
            help="Threads that read, and as many that find objects. Default: 1 on a CPU, else half the processors.",
            rich_help_panel=RUN,
        ),
    ] = None,
    max_ram: Annotated[
        str | None,
        typer.Option(
            "--max-ram", help="Memory to stay within, such as 8GB. Default: all there is.", rich_help_panel=RUN
        ),
    ] = None,
    compile_network: Annotated[
        bool, typer.Option("--compile", help="Compile the network; pays off on long runs.", rich_help_panel=RUN)
    ] = False,
    time_limit: TimeLimit = None,
    num_shards: NumShards = None,
    shard_index: ShardIndex = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Predict again what is there.", rich_help_panel=RUN)
    ] = False,
    fail_fast: FailFast = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Count tiles, estimate memory and disk; write nothing.", rich_help_panel=RUN),
    ] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Segment slides: masks, polygons, tables and pictures, one folder per slide.

    Interrupted work goes on where it ended; finished slides are left alone.
    """
    from wsiseg.config import load
    from wsiseg.inference.memory import parse_bytes
    from wsiseg.inference.settings import PredictSettings
    from wsiseg.tasks.predict import PredictJob
    from wsiseg.tasks.predict import predict as run

    options = {
        "model": model,
        "mpp": mpp,
        "overlap": overlap,
        "blend": blend,
        "tta": tta,
        "amp": amp,
        "probability": probability or None,
    }
    nested = {
        "tissue.method": tissue,
        "outputs.polygons": polygons,
        "outputs.simplify": simplify,
        "outputs.qupath_origin": qupath_origin,
        "outputs.label_png": label_png or None,
        "outputs.format": mask_format,
    }
    job = PredictJob(
        inputs=tuple(slides or ()),
        output=output,
        settings=load(PredictSettings, file=config, options=options, overrides=as_overrides(nested, overrides)),
        slide_dir=slide_dir,
        manifest=manifest,
        reader=reader,
        slide_mpp=slide_mpp,
        device=device,
        batch_size=_batch_size(batch_size),
        num_workers=num_workers,
        max_ram=None if max_ram is None else parse_bytes(max_ram),
        is_compiled=compile_network,
        num_shards=num_shards,
        shard_index=shard_index,
        overwrite=overwrite,
        fail_fast=fail_fast,
        dry_run=dry_run,
    )
    with console.progress_bar() as progress, console.graceful(seconds(time_limit)) as stop:
        report = run(job, progress, stop)
    if len(report.slides) != 1 or report.slides[0].error is None:
        console.out.print(str(report), highlight=False, markup=False)
    report.raise_failures()


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdigit() or int(text) == 0:
        raise ConfigError(f"{text!r} is no number of tiles", where="--batch-size", mend="Write auto, or 1 or more")
    return int(text)
