"""What a user can set about a prediction, and the geometry that follows from it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Final, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from wsiseg.config import Config
from wsiseg.errors import ConfigError
from wsiseg.geometry import Canvas, Size
from wsiseg.grid import Grid, overlap_px, parse_overlap
from wsiseg.inference.walk import Walk
from wsiseg.slides.mpp import require_mpp
from wsiseg.tissue import TissueSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.methods.base import PredictorSpec
    from wsiseg.slides.base import SlideInfo
    from wsiseg.tissue import TissueMask

# What `TissueSettings.method` is until the slide is open: otsu for slides, none for plain images.
AUTO: Final = "auto"
# A band is about so high: higher ones take memory, lower ones make many files.
_BAND_PX: Final = 512


class OutputSettings(Config):
    """What is made of the labels.

    Parameters
    ----------
    polygons
        ``geojson``, ``geojson.gz``, ``parquet`` or ``none``.
    simplify
        Tolerance of polygons in canvas pixels, 0 for exact pixel edges; None for 1 for regions and 0.4 for objects.
    qupath_origin
        ``bounds`` counts from the scanned part of slides that name one, as QuPath does; ``level0`` from the corner.
    label_png
        Whether to write ``labels.png`` as well.
    format
        ``tiff`` adds a pyramidal OME-TIFF to the OME-Zarr.
    """

    polygons: Literal["geojson", "geojson.gz", "parquet", "none"] = "geojson"
    simplify: float | None = Field(default=None, ge=0)
    qupath_origin: Literal["bounds", "level0"] = "bounds"
    label_png: bool = False
    format: Literal["zarr", "tiff"] = "zarr"


class PredictSettings(Config):
    """All that decides what a prediction looks like.

    Parameters
    ----------
    model
        Name of a shipped model, folder of a model, or folder of a training run.
    mpp
        Micrometres per canvas pixel; None for the model's own.
    overlap
        What neighbouring tiles share, in pixels or as a share of a tile, at most half; twice the model's halo at least.
        Windows of volumes share a third of their sides where nothing is said.
    blend
        How the outputs of overlapping tiles are joined.
    tta
        Symmetries of the square whose mean is taken.
    amp
        Mixed precision; ``auto`` uses it on CUDA devices.
    margin_px
        Pixels around a unit that its objects are found in; the radius of the largest object and more.
    gate
        Whether a class must be seen in a tile as a whole, where the model has a classifier that sees that.
    white
        Whether bare glass gets no class, where the model knows what is bare glass.
    probability
        Whether to keep the probability of each class, or of any object, beside the labels.
    tissue
        Where to look; the method ``auto`` is ``otsu`` for slides and ``none`` for plain images.
    outputs
        What is made of the labels.
    largest_component
        Whether to keep of each class but the background the largest connected part only. For volumes, to which
        beside it only `overlap`, `amp` and `probability` mean something.
    """

    model: str = "nuclei-he"
    mpp: float | None = Field(default=None, gt=0)
    overlap: Annotated[int | float, BeforeValidator(parse_overlap), Field(ge=0)] = 0.0
    blend: Literal["none", "gaussian", "hann"] = "gaussian"
    tta: Literal["none", "flips", "d4"] = "none"
    amp: Literal["auto", "fp16", "bf16", "off"] = "auto"
    margin_px: int = Field(default=64, ge=8)
    gate: bool = True
    white: bool = True
    probability: bool = False
    tissue: TissueSettings = TissueSettings(method=AUTO)
    outputs: OutputSettings = OutputSettings()
    largest_component: bool = False


def canvas_for(info: SlideInfo, settings: PredictSettings, model_mpp: float | None) -> Canvas:
    """Return the canvas that a slide is predicted on.

    Raises
    ------
    SlideError
        If a resolution is asked for and the slide's own is unknown.
    """
    target = settings.mpp if settings.mpp is not None else model_mpp
    if target is None:
        return Canvas.over(info.size, slide_mpp=info.mpp.value if info.mpp is not None else None, mpp=None)
    return Canvas.over(info.size, slide_mpp=require_mpp(info), mpp=target)


def walk_over(canvas: Canvas, spec: PredictorSpec, settings: PredictSettings) -> Walk:
    """Return the geometry of a prediction.

    Raises
    ------
    ConfigError
        If tiles are to overlap by more than half.
    """
    try:
        shared = overlap_px(settings.overlap, spec.tile_px)
    except ValueError as error:
        raise ConfigError(str(error), where="--overlap") from error
    halo = max(spec.halo_px, math.ceil(shared / 2))
    core = spec.tile_px - 2 * halo
    if core < 2 * halo and halo > spec.halo_px:
        raise ConfigError(
            f"tiles of {spec.tile_px} px cannot share {shared} px", where="--overlap", mend="Share half at most"
        )
    # The outermost quarter of a halo sees too little around it to be worth anything.
    reach = 0 if settings.blend == "none" else min(core // 2, halo - halo // 4)
    return Walk(
        grid=Grid(canvas.size, Size(core, core), halo),
        reach_px=reach,
        margin_px=settings.margin_px if spec.task == "instance" else 0,
        band_px=core * max(1, round(_BAND_PX / core)),
    )


def tissue_in_cells(tissue: TissueMask, canvas: Canvas, walk: Walk) -> NDArray[np.float64]:
    """Return how many canvas pixels of each cell are tissue, (rows, columns)."""
    down = canvas.scale.downsample
    rows, columns = walk.grid.rows, walk.grid.columns
    x = np.minimum(np.arange(columns + 1) * walk.core_px, canvas.size.width) * down
    y = np.minimum(np.arange(rows + 1) * walk.core_px, canvas.size.height) * down
    left, top = np.meshgrid(x[:-1], y[:-1])
    right, bottom = np.meshgrid(x[1:], y[1:])
    boxes = np.stack([left, top, right, bottom], axis=-1).reshape(-1, 4)
    shares = tissue.fractions(boxes).reshape(rows, columns)
    return shares * (right - left) * (bottom - top) / down**2
