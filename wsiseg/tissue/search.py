"""Where on a slide there is tissue: searched for on a thumbnail, or given as a mask."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from pydantic import Field

from wsiseg.config import Config
from wsiseg.errors import ConfigError, UnreadableError
from wsiseg.geometry import Canvas, Region, Scale, Size, Window
from wsiseg.rasters import read_labels
from wsiseg.slides.reading import read_readable
from wsiseg.tissue.pixels import clean, tissue_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.slides.base import Slide, SlideInfo

# A thumbnail of fewer pixels along its longer edge is made finer than asked, where the slide allows.
MIN_THUMBNAIL_PX: Final = 512
# Without a physical scale the thumbnail has about this many pixels along its longer edge.
THUMBNAIL_PX: Final = 1024
STRIP_PX: Final = 512
# What cannot be read is narrowed down to pieces of this many thumbnail pixels.
SMALLEST_PX: Final = 16

# Gaps narrower than this are closed.
GAP_UM: Final = 12.0


class TissueSettings(Config):
    """How tissue is found.

    Parameters
    ----------
    method
        ``otsu``, ``none`` (all is tissue), or the path of a mask: an index image of any size that is stretched over the
        slide, 0 being background; of a folder, the file ``<slide_id>.png``.
    mpp
        Micrometres per pixel of the thumbnail.
    min_area_mm2
        Smaller pieces are dropped; at most 0.5 % of the slide, so that small images keep theirs.
    max_hole_mm2
        Smaller holes are filled; the same bound holds.
    """

    method: str = "otsu"
    mpp: float = Field(default=8.0, gt=0, le=100)
    min_area_mm2: float = Field(default=0.02, ge=0)
    max_hole_mm2: float = Field(default=0.02, ge=0)

    def for_slide(self, slide_id: str, mask_path: Path | None = None) -> TissueSettings:
        """Return the settings with the mask of one slide in place of a folder of masks.

        Raises
        ------
        ConfigError
            If the folder has no mask for the slide.
        """
        if mask_path is not None:
            return self.model_copy(update={"method": str(mask_path)})
        folder = Path(self.method)
        if self.method in ("otsu", "none") or not folder.is_dir():
            return self
        mask = folder / f"{slide_id}.png"
        if not mask.exists():
            raise ConfigError(f"the folder of tissue masks has no {mask.name}", where=folder)
        return self.model_copy(update={"method": str(mask)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """A slide in small.

    Parameters
    ----------
    pixels
        RGB uint8, (h, w, 3); the slide's background where it cannot be read.
    canvas
        The grid of its pixels.
    is_unreadable
        bool, (h, w), where the slide cannot be decoded.
    """

    pixels: NDArray[np.uint8]
    canvas: Canvas
    is_unreadable: NDArray[np.bool_]


class TissueMask:
    """Tissue on the pixels of a thumbnail.

    Parameters
    ----------
    mask
        bool, (h, w).
    downsample
        Level-0 pixels per mask pixel along x and y.
    mpp
        Micrometres per level-0 pixel, or None where unknown.
    slide_size
        Size of level 0.
    """

    def __init__(
        self, mask: NDArray[np.bool_], *, downsample: tuple[float, float], mpp: float | None, slide_size: Size
    ) -> None:
        self.mask = mask
        self.slide_size = slide_size
        self._downsample = downsample
        self._mpp = mpp
        self._sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), dtype=np.int64)
        self._sums[1:, 1:] = mask.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)

    @classmethod
    def everything(cls, size: Size, *, mpp: float | None = None) -> Self:
        """Return the mask of a slide of `size` level-0 pixels that is all tissue."""
        whole = np.ones((1, 1), dtype=np.bool_)
        return cls(whole, downsample=(float(size.width), float(size.height)), mpp=mpp, slide_size=size)

    @property
    def downsample(self) -> float:
        """Return the level-0 pixels along the upper edge of a mask pixel."""
        return self._downsample[0]

    @property
    def area_mm2(self) -> float | None:
        """Return the area of tissue in mm², or None where the slide has no physical scale."""
        if self._mpp is None:
            return None
        inside = Region(0, 0, self.slide_size.width, self.slide_size.height)
        return self.fraction(inside) * self.slide_size.area * self._mpp**2 * 1e-6

    def on(self, size: Size) -> NDArray[np.bool_]:
        """Return the mask on a grid of `size` stretched over the slide, nearest neighbours, (h, w)."""
        height, width = self.mask.shape
        rows = np.minimum((2 * np.arange(size.height) + 1) * height // (2 * size.height), height - 1)
        columns = np.minimum((2 * np.arange(size.width) + 1) * width // (2 * size.width), width - 1)
        stretched: NDArray[np.bool_] = self.mask[np.ix_(rows, columns)]
        return stretched

    def fraction(self, region: Region) -> float:
        """Return the share of `region` that is tissue, 0 … 1; what lies beyond the slide is none."""
        boxes = np.array([[region.x, region.y, region.right, region.bottom]], dtype=np.float64)
        return float(self.fractions(boxes)[0])

    def fractions(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of each box that is tissue.

        Parameters
        ----------
        boxes
            (n, 4), left, top, right, bottom in level-0 pixels, fractions allowed.
        """
        left, right = boxes[:, 0] / self._downsample[0], boxes[:, 2] / self._downsample[0]
        top, bottom = boxes[:, 1] / self._downsample[1], boxes[:, 3] / self._downsample[1]
        area = (right - left) * (bottom - top)
        covered = self._sum(right, bottom) - self._sum(left, bottom) - self._sum(right, top) + self._sum(left, top)
        shares: NDArray[np.float64] = np.clip(covered / np.where(area > 0, area, 1), 0, 1)
        # Differences of sums leave rounding behind; a patch that is all tissue must pass a threshold of 1.
        return np.round(shares, 9)

    def _sum(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mask's integral from the corner to (x, y): linear within each mask pixel."""
        height, width = self.mask.shape
        x, y = np.clip(x, 0, width), np.clip(y, 0, height)
        column, row = np.minimum(x.astype(np.intp), width - 1), np.minimum(y.astype(np.intp), height - 1)
        right, bottom = x - column, y - row
        upper = self._sums[row, column] * (1 - right) + self._sums[row, column + 1] * right
        lower = self._sums[row + 1, column] * (1 - right) + self._sums[row + 1, column + 1] * right
        total: NDArray[np.float64] = upper * (1 - bottom) + lower * bottom
        return total


def read_thumbnail(slide: Slide, mpp: float) -> Thumbnail:
    """Return the slide at about `mpp` micrometres per pixel.

    Raises
    ------
    UnreadableError
        If no part of the slide can be decoded.
    """
    canvas = _thumbnail_canvas(slide.info, mpp)
    pixels = np.empty((canvas.size.height, canvas.size.width, 3), dtype=np.uint8)
    pixels[:] = slide.info.background
    is_unreadable = np.zeros(pixels.shape[:2], dtype=np.bool_)
    problem: UnreadableError | None = None
    # Blocks, since resampling takes floats: a whole slide at once would take gigabytes.
    blocks = [
        Window(x, y, STRIP_PX, STRIP_PX).clipped(canvas.size)
        for y in range(0, canvas.size.height, STRIP_PX)
        for x in range(0, canvas.size.width, STRIP_PX)
    ]
    for block in blocks:
        for part, patch in read_readable(slide, canvas, block, smallest_px=SMALLEST_PX):
            if isinstance(patch, UnreadableError):
                problem = patch
                is_unreadable[part.slices] = True
            else:
                pixels[part.slices] = patch
    if problem is not None and is_unreadable.all():
        raise problem
    # The last pixels reach beyond the slide, and the padding there would look like glass or like tissue.
    if canvas.size.width * canvas.scale.downsample > slide.info.size.width and canvas.size.width > 1:
        pixels[:, -1] = pixels[:, -2]
    if canvas.size.height * canvas.scale.downsample > slide.info.size.height and canvas.size.height > 1:
        pixels[-1] = pixels[-2]
    return Thumbnail(pixels=pixels, canvas=canvas, is_unreadable=is_unreadable)


def find_tissue(slide: Slide, settings: TissueSettings, *, thumbnail: Thumbnail | None = None) -> TissueMask:
    """Return where the slide has tissue; nothing found is a valid result.

    What cannot be read counts as tissue, so that whoever analyses tissue tries it at full resolution and
    tells that it is damaged.

    Parameters
    ----------
    slide
        An open slide.
    settings
        How to look.
    thumbnail
        The slide in small, where it has been read already.

    Raises
    ------
    DataError
        If the mask file cannot be read.
    UnreadableError
        If no part of the slide can be decoded.
    """
    size = slide.info.size
    mpp = slide.info.mpp.value if slide.info.mpp is not None else None
    if settings.method == "none":
        return TissueMask.everything(size, mpp=mpp)
    if settings.method != "otsu":
        given = read_labels(Path(settings.method)) != 0
        stretch = (size.width / given.shape[1], size.height / given.shape[0])
        return TissueMask(given, downsample=stretch, mpp=mpp, slide_size=size)
    if thumbnail is None:
        thumbnail = read_thumbnail(slide, settings.mpp)
    downsample = thumbnail.canvas.scale.downsample
    # Without a physical scale the thumbnail's pixels are taken to have the size that was asked for.
    pixel_um = thumbnail.canvas.mpp or settings.mpp
    mask = tissue_of(thumbnail.pixels, fill=slide.info.background, pixel_um=pixel_um)
    bound = 0.005 * mask.size
    mask = clean(
        mask,
        gap_px=max(1, round(GAP_UM / pixel_um)),
        min_px=min(settings.min_area_mm2 * 1e6 / pixel_um**2, bound),
        max_hole_px=min(settings.max_hole_mm2 * 1e6 / pixel_um**2, bound),
    )
    mask |= thumbnail.is_unreadable
    return TissueMask(mask, downsample=(downsample, downsample), mpp=mpp, slide_size=size)


def _thumbnail_canvas(info: SlideInfo, mpp: float) -> Canvas:
    longest = max(info.size.width, info.size.height)
    if info.mpp is None:
        downsample = max(1.0, longest / THUMBNAIL_PX)
    else:
        downsample = max(1.0, min(mpp / info.mpp.value, longest / MIN_THUMBNAIL_PX))
    size = Size(
        max(1, math.ceil(info.size.width / downsample - 1e-9)), max(1, math.ceil(info.size.height / downsample - 1e-9))
    )
    return Canvas(size, Scale(downsample), None if info.mpp is None else info.mpp.value * downsample)
