"""What is to be done on one slide, before anything is done."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wsiseg.inference.export import check_polygon_format
from wsiseg.inference.label_png import check_label_png
from wsiseg.inference.settings import AUTO, canvas_for, tissue_in_cells, walk_over
from wsiseg.labels import IGNORE
from wsiseg.slides.mpp import scale_warnings
from wsiseg.tissue import find_tissue

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.geometry import Canvas, Size
    from wsiseg.inference.settings import OutputSettings, PredictSettings
    from wsiseg.inference.walk import Walk
    from wsiseg.methods.base import PredictorSpec
    from wsiseg.slides.base import Slide
    from wsiseg.tissue import TissueMask

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlidePlan:
    """What is to be done on one slide.

    Parameters
    ----------
    canvas, walk
        The geometry.
    tissue
        Where tissue is.
    tissue_px
        (rows, columns), the canvas pixels of each cell that are tissue.
    is_searched
        Whether tissue was looked for or given, instead of taking everything for tissue.
    """

    canvas: Canvas
    walk: Walk
    tissue: TissueMask
    tissue_px: NDArray[np.float64]
    is_searched: bool

    @property
    def is_tissue(self) -> NDArray[np.bool_]:
        """Return which cells are to be analysed, bool (rows, columns)."""
        return self.tissue_px > 0

    @property
    def tiles(self) -> int:
        """Return the number of tiles that go through the network."""
        return int(np.count_nonzero(self.is_tissue))


def plan_slide(slide: Slide, spec: PredictorSpec, settings: PredictSettings) -> SlidePlan:
    """Return what is to be done on a slide.

    Raises
    ------
    SlideError
        If its pixel size is needed and unknown.
    ConfigError
        If the settings do not fit the model, or polygons are asked for in a format that needs a missing library.
    DataError
        If it is too large for ``labels.png`` and that is asked for.
    """
    info = slide.info
    canvas = canvas_for(info, settings, spec.mpp)
    walk = walk_over(canvas, spec, settings)
    check_outputs(settings.outputs, canvas.size)
    for warning in scale_warnings(info, canvas.scale.downsample):
        logger.warning("%s", warning)
    tissue_settings = settings.tissue
    if tissue_settings.method == AUTO:
        method = "none" if info.reader == "images" else "otsu"
        tissue_settings = tissue_settings.model_copy(update={"method": method})
    tissue = find_tissue(slide, tissue_settings)
    return SlidePlan(
        canvas=canvas,
        walk=walk,
        tissue=tissue,
        tissue_px=tissue_in_cells(tissue, canvas, walk),
        is_searched=tissue_settings.method != "none",
    )


def check_outputs(outputs: OutputSettings, size: Size) -> None:
    """Refuse outputs that cannot be made of a canvas of this size.

    Raises
    ------
    ConfigError
        If polygons are asked for in a format that needs a missing library.
    DataError
        If it is too large for ``labels.png`` and that is asked for.
    """
    check_polygon_format(outputs.polygons)
    if outputs.label_png:
        check_label_png(size, highest=IGNORE, where="--label-png")
