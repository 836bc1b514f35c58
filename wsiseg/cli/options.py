"""Options that several commands share, and their words."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INPUT, PATCHES, LABELS, RUN = "Input", "Patches", "Labels", "Run"


class Amp(StrEnum):
    """Precision of a network's numbers."""

    AUTO = "auto"
    BF16 = "bf16"
    FP16 = "fp16"
    OFF = "off"


class Origin(StrEnum):
    """What polygons are counted from."""

    BOUNDS = "bounds"
    LEVEL0 = "level0"


Slides: TypeAlias = Annotated[
    list[str] | None, typer.Argument(help="Slides, folders of slides, globs or URLs.", show_default=False)
]
Manifest: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--manifest", "--list", help="CSV of slides with a column path (or wsi, slide).", rich_help_panel=INPUT
    ),
]
SlideDir: TypeAlias = Annotated[
    Path | None,
    typer.Option("--slide-dir", help="Folder of slides, or where the manifest's paths start.", rich_help_panel=INPUT),
]
SlideMpp: TypeAlias = Annotated[
    float | None,
    typer.Option("--slide-mpp", help="µm per level-0 pixel, beating the files' own.", rich_help_panel=INPUT),
]
Reader: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--reader",
        help="Force tiff, openslide, tiffslide or images. Default: look into the file.",
        rich_help_panel=INPUT,
    ),
]
Tissue: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--tissue",
        help="otsu, none, a mask image, or a folder of <slide_id>.png. Default otsu (predict: none for plain images).",
        rich_help_panel=INPUT,
    ),
]
PatchOverlap: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--overlap", help="Shared by neighbours: pixels (64) or a share (0.25). Default 0.", rich_help_panel=PATCHES
    ),
]
ImageWhite: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--white/--no-white",
        help="With image labels: bright pixels are glass and no class. On, except for bcss-wsss.",
        rich_help_panel=LABELS,
    ),
]
Device: TypeAlias = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=RUN)
]
Precision: TypeAlias = Annotated[
    Amp | None, typer.Option("--amp", help="Half precision; auto uses it on CUDA. Default auto.", rich_help_panel=RUN)
]
ReadingThreads: TypeAlias = Annotated[
    int | None,
    typer.Option("--num-workers", min=0, help="Reading threads. Default: all processors.", rich_help_panel=RUN),
]
TimeLimit: TypeAlias = Annotated[
    float | None,
    typer.Option("--time-limit", min=0, help="Minutes after which to save, stop and exit 75.", rich_help_panel=RUN),
]
NumShards: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--num-shards",
        min=1,
        help="Deal the work out to this many jobs. Default: the Slurm array.",
        rich_help_panel=RUN,
    ),
]
ShardIndex: TypeAlias = Annotated[
    int | None, typer.Option("--shard-index", min=0, help="Which job this is, from 0.", rich_help_panel=RUN)
]
FailFast: TypeAlias = Annotated[
    bool, typer.Option("--fail-fast", help="Stop at the first slide that fails.", rich_help_panel=RUN)
]
ConfigFile: TypeAlias = Annotated[
    Path | None, typer.Option("--config", help="Settings as a TOML file.", rich_help_panel=RUN)
]
Overrides: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any setting as key=value; dots reach nested ones.", rich_help_panel=RUN),
]


def as_overrides(nested: Mapping[str, object], more: Sequence[str] | None) -> list[str]:
    """Return options that stand for nested settings as overrides, those not given left out, before `more`."""
    return [*(f"{key}={json.dumps(value)}" for key, value in nested.items() if value is not None), *(more or ())]


def seconds(minutes: float | None) -> float | None:
    """Return a time limit in seconds."""
    return None if minutes is None else 60 * minutes
