"""``wsiseg tile``."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from wsiseg.cli import console

INPUT, PATCHES, RUN = "Input", "Patches", "Run"


class Codec(StrEnum):
    """How patches are stored."""

    AUTO = "auto"
    ZSTD = "zstd"
    JPEG = "jpeg"
    COPY = "copy"
    NONE = "none"


def tile(
    slides: Annotated[
        list[str] | None, typer.Argument(help="Slides, folders of slides, or globs.", show_default=False)
    ] = None,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for one store <slide_id>.zarr per slide.", show_default=False)
    ],
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest", "--list", help="CSV of slides with a column path (or wsi, slide).", rich_help_panel=INPUT
        ),
    ] = None,
    slide_dir: Annotated[
        Path | None,
        typer.Option(
            "--slide-dir", help="Folder of slides, or where the manifest's paths start.", rich_help_panel=INPUT
        ),
    ] = None,
    slide_mpp: Annotated[
        float | None,
        typer.Option("--slide-mpp", help="µm per level-0 pixel, beating the files' own.", rich_help_panel=INPUT),
    ] = None,
    reader: Annotated[
        str | None,
        typer.Option("--reader", help="Force a reader instead of looking into the file.", rich_help_panel=INPUT),
    ] = None,
    mpp: Annotated[
        str | None,
        typer.Option(
            "--mpp", help="µm per patch pixel, or native for the slide's own. Default 0.5.", rich_help_panel=PATCHES
        ),
    ] = None,
    patch_size: Annotated[
        int | None, typer.Option("--patch-size", help="Edge in pixels. Default 256.", rich_help_panel=PATCHES)
    ] = None,
    overlap: Annotated[
        str | None,
        typer.Option(
            "--overlap",
            help="Shared by neighbours: pixels (64) or a share (0.25). Default 0.",
            rich_help_panel=PATCHES,
        ),
    ] = None,
    min_tissue: Annotated[
        float | None,
        typer.Option("--min-tissue", help="Least share of tissue, 0 to 1. Default 0.5.", rich_help_panel=PATCHES),
    ] = None,
    tissue: Annotated[
        str | None,
        typer.Option(
            "--tissue",
            help="otsu, none, a mask image, or a folder of <slide_id>.png. Default otsu.",
            rich_help_panel=PATCHES,
        ),
    ] = None,
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
    num_workers: Annotated[
        int | None,
        typer.Option("--num-workers", min=0, help="Reading threads. Default: all processors.", rich_help_panel=RUN),
    ] = None,
    num_shards: Annotated[
        int | None,
        typer.Option(
            "--num-shards",
            min=1,
            help="Deal slides out to this many jobs. Default: the Slurm array.",
            rich_help_panel=RUN,
        ),
    ] = None,
    shard_index: Annotated[
        int | None, typer.Option("--shard-index", min=0, help="Which job this is, from 0.", rich_help_panel=RUN)
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make stores again that are there.", rich_help_panel=RUN)
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first slide that fails.", rich_help_panel=RUN)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count patches and estimate sizes; write nothing.", rich_help_panel=RUN)
    ] = False,
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings as a TOML file.", rich_help_panel=RUN)
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="A deeper setting, such as tissue.min_area_mm2=0.1.", rich_help_panel=RUN),
    ] = None,
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
    method = [] if tissue is None else [f"tissue.method={json.dumps(tissue)}"]
    job = TileJob(
        inputs=tuple(slides or ()),
        output=output,
        settings=load(TileConfig, file=config, options=options, overrides=[*method, *(overrides or ())]),
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
    console.out.print(str(report), highlight=False, markup=False)
    report.raise_failures()
