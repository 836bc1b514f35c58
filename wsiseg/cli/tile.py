"""``wsiseg tile``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from wsiseg.cli import console
from wsiseg.cli.options import (
    PATCHES,
    RUN,
    ConfigFile,
    FailFast,
    Manifest,
    NumShards,
    Overrides,
    PatchOverlap,
    Reader,
    ReadingThreads,
    ShardIndex,
    SlideDir,
    SlideMpp,
    Slides,
    Tissue,
    as_overrides,
)


class Codec(StrEnum):
    """How patches are stored."""

    AUTO = "auto"
    ZSTD = "zstd"
    JPEG = "jpeg"
    COPY = "copy"
    NONE = "none"


def tile(
    slides: Slides = None,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for one store <slide_id>.zarr per slide.", show_default=False)
    ],
    manifest: Manifest = None,
    slide_dir: SlideDir = None,
    slide_mpp: SlideMpp = None,
    reader: Reader = None,
    mpp: Annotated[
        str | None,
        typer.Option(
            "--mpp", help="µm per patch pixel, or native for the slide's own. Default 0.5.", rich_help_panel=PATCHES
        ),
    ] = None,
    patch_size: Annotated[
        int | None, typer.Option("--patch-size", help="Edge in pixels. Default 256.", rich_help_panel=PATCHES)
    ] = None,
    overlap: PatchOverlap = None,
    min_tissue: Annotated[
        float | None,
        typer.Option("--min-tissue", help="Least share of tissue, 0 to 1. Default 0.5.", rich_help_panel=PATCHES),
    ] = None,
    tissue: Tissue = None,
    codec: Annotated[
        Codec | None,
        typer.Option(
            "--codec",
            help="zstd (lossless), copy (the slide's own JPEG tiles), jpeg (lossy), none (positions only), or "
            "auto (copy where patches are tiles, else zstd). Default auto.",
            rich_help_panel=PATCHES,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", help="At most this many patches per slide, spread evenly.", rich_help_panel=PATCHES),
    ] = None,
    num_workers: ReadingThreads = None,
    num_shards: NumShards = None,
    shard_index: ShardIndex = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make stores again that are there.", rich_help_panel=RUN)
    ] = False,
    fail_fast: FailFast = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count patches and estimate sizes; write nothing.", rich_help_panel=RUN)
    ] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Cut slides into patches for training, one Zarr store per slide."""
    from wsiseg.config import load
    from wsiseg.tasks.tile import TileConfig, TileJob
    from wsiseg.tasks.tile import tile as run

    options = {
        "mpp": mpp,
        "patch_size": patch_size,
        "overlap": overlap,
        "min_tissue": min_tissue,
        "codec": codec,
        "limit": limit,
    }
    nested = {"tissue.method": tissue}
    job = TileJob(
        inputs=tuple(slides or ()),
        output=output,
        settings=load(TileConfig, file=config, options=options, overrides=as_overrides(nested, overrides)),
        slide_dir=slide_dir,
        manifest=manifest,
        reader=reader,
        slide_mpp=slide_mpp,
        num_workers=num_workers,
        num_shards=num_shards,
        shard_index=shard_index,
        overwrite=overwrite,
        fail_fast=fail_fast,
        dry_run=dry_run,
    )
    with console.progress_bar() as progress, console.graceful() as stop:
        report = run(job, progress, stop)
    if len(report.slides) != 1 or report.slides[0].error is None:
        console.out.print(str(report), highlight=False, markup=False)
    report.raise_failures()
