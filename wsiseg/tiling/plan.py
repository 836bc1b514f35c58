"""Which patches a slide gives: their places, their tissue and how they will be stored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, Self, runtime_checkable

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from wsiseg.config import Config
from wsiseg.errors import SlideError, UnreadableError
from wsiseg.geometry import Canvas, Size
from wsiseg.grid import overlap_px, parse_overlap, patch_windows
from wsiseg.slides.mpp import require_mpp
from wsiseg.slides.reading import exact_level
from wsiseg.stores.patch_meta import PatchGrid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.slides.base import Slide
    from wsiseg.stores.patch_meta import CodecName


class TileSettings(Config):
    """How a slide is cut into patches.

    Parameters
    ----------
    mpp
        Micrometres per patch pixel, or ``native`` for the slide's own.
    patch_size
        Edge of a patch in pixels.
    overlap
        What neighbouring patches share: pixels, or below 1 a share of the patch size.
    min_tissue
        Patches with less tissue than this share of their part on the slide are left out.
    codec
        How patches are stored: ``zstd`` (lossless), ``copy`` (the slide's own JPEG tiles,
        where patches are tiles), ``jpeg`` (lossy), ``none`` (positions only), or ``auto``
        (copy where it is possible, else zstd).
    jpeg_quality
        Quality of ``jpeg``, 0 … 100.
    limit
        Keep at most this many patches of a slide, spread evenly.
    """

    mpp: Literal["native"] | Annotated[float, Field(gt=0, le=1000)] = 0.5
    patch_size: int = Field(default=256, ge=8, le=8192)
    overlap: Annotated[int | float, BeforeValidator(parse_overlap), Field(ge=0)] = 0.0
    min_tissue: float = Field(default=0.5, ge=0, le=1)
    codec: Literal["auto", "zstd", "jpeg", "copy", "none"] = "auto"
    jpeg_quality: int = Field(default=90, ge=1, le=100)
    limit: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        overlap_px(self.overlap, self.patch_size)
        return self


class Tissue(Protocol):
    """Tells where a slide has tissue."""

    def fractions(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of tissue, (n,), in boxes (n, 4): left, top, right, bottom in level-0 pixels."""
        ...


@runtime_checkable
class RawTiles(Protocol):
    """A slide that hands out its JPEG tiles undecoded."""

    def raw_tile(self, level: int, column: int, row: int) -> _RawTile | None:
        """Return a tile as it is stored, or None where the file holds no pixels."""
        ...


class _RawTile(Protocol):
    @property
    def data(self) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TilePlan:
    """The patches of a slide before any is read.

    Parameters
    ----------
    canvas
        The pixel grid that patches lie on.
    grid
        How they lie on it.
    windows
        (N, 2) int64, upper left corners in canvas pixels, row by row.
    tissue
        (N,) float32, share of each patch's part on the slide.
    level
        The level whose pixels are those of the canvas, or None.
    codec
        How patches will be stored.
    """

    canvas: Canvas
    grid: PatchGrid
    windows: NDArray[np.int64]
    tissue: NDArray[np.float32]
    level: int | None
    codec: CodecName

    def __len__(self) -> int:
        return len(self.windows)


def plan_patches(slide: Slide, settings: TileSettings, tissue: Tissue) -> TilePlan:
    """Return the patches that `settings` ask of a slide.

    Raises
    ------
    SlideError
        If the slide has no pixel size and one is needed, or its tiles cannot be copied
        though that was asked for.
    """
    info = slide.info
    if settings.mpp == "native":
        canvas = Canvas.over(info.size, slide_mpp=None if info.mpp is None else info.mpp.value, mpp=None)
    else:
        canvas = Canvas.over(info.size, slide_mpp=require_mpp(info), mpp=settings.mpp)
    grid = PatchGrid(
        patch_px=settings.patch_size,
        stride_px=settings.patch_size - overlap_px(settings.overlap, settings.patch_size),
        downsample=canvas.scale.downsample,
        canvas=(canvas.size.width, canvas.size.height),
    )
    level = exact_level(info, canvas)
    windows = patch_windows(canvas.size, patch_px=grid.patch_px, stride_px=grid.stride_px)
    far = np.minimum(windows + grid.patch_px, grid.canvas)
    boxes = np.concatenate([windows, far], axis=1) * canvas.scale.downsample
    # The canvas may end beyond the slide by a part of a pixel.
    shares = tissue.fractions(np.minimum(boxes, np.array([info.size.width, info.size.height] * 2, dtype=np.float64)))
    kept = np.flatnonzero(shares >= settings.min_tissue)
    if settings.limit is not None and len(kept) > settings.limit:
        kept = kept[(np.arange(settings.limit) * len(kept)) // settings.limit]
    return TilePlan(
        canvas=canvas,
        grid=grid,
        windows=windows[kept],
        tissue=shares[kept].astype(np.float32),
        level=level,
        codec=_choose_codec(slide, settings, grid, level),
    )


def _choose_codec(slide: Slide, settings: TileSettings, grid: PatchGrid, level: int | None) -> CodecName:
    match settings.codec:
        case "auto" | "copy":
            obstacle = _obstacle_to_copying(slide, grid, level)
        case codec:
            return codec
    if obstacle is None:
        return "copy"
    if settings.codec == "auto":
        return "zstd"
    raise SlideError(f"its tiles cannot be copied: {obstacle}", where=slide.info.name, mend="Use --codec zstd, or auto")


def _obstacle_to_copying(slide: Slide, grid: PatchGrid, level: int | None) -> str | None:
    info = slide.info
    if not isinstance(slide, RawTiles):
        return f"the reader {info.reader} gives decoded pixels only"
    if level is None:
        own = (
            "unknown" if info.mpp is None else ", ".join(f"{info.mpp.value * one.downsample:g}" for one in info.levels)
        )
        return f"no level has the resolution asked for (they have {own} µm/px; --mpp native takes the finest)"
    stored = info.levels[level]
    obstacle = None
    if stored.tile != Size(grid.patch_px, grid.patch_px):
        obstacle = f"its tiles are {stored.tile}, not {grid.patch_px}x{grid.patch_px}"
    elif grid.stride_px % grid.patch_px:
        obstacle = "patches that overlap lie across its tiles"
    elif stored.compression != "jpeg":
        obstacle = f"they are {stored.compression}, not jpeg"
    else:
        try:
            slide.raw_tile(level, 0, 0)
        except UnreadableError:
            # Whether this one tile is damaged says nothing about the others.
            obstacle = None
        except SlideError as error:
            obstacle = error.what
    return obstacle


def estimated_bytes(plan: TilePlan) -> int:
    """Return about how many bytes the patches of a plan take on disk."""
    # Raw pixels over what typical H&E compresses to: zstd 1.3 times, JPEG 12 times.
    shares = {"zstd": 0.75, "jpeg": 1 / 12, "copy": 1 / 12, "none": 0.0}
    return math.ceil(len(plan) * plan.grid.patch_px**2 * 3 * shares[plan.codec])
