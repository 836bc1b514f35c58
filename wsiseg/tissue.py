"""Where on a slide there is tissue, found on a thumbnail.

Brightfield: a pixel is tissue where its optical density or its colour, both relative to the
slide's own background, pass a threshold. Fluorescence: where it shines above the dark
background. The thresholds are Otsu's, kept within bounds that a blank slide does not reach
and a slide full of tissue does not exceed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import numpy as np
from pydantic import Field

from wsiseg.config import Config
from wsiseg.errors import ConfigError
from wsiseg.geometry import Canvas, Region, Scale, Size, Window
from wsiseg.rasters import read_labels
from wsiseg.slides.reading import read_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.slides.base import Slide, SlideInfo

Channel = TypeVar("Channel", np.uint8, np.float32)

# A thumbnail of fewer pixels along its longer edge is made finer than asked, where the slide allows.
MIN_THUMBNAIL_PX: Final = 512
# Without a physical scale the thumbnail has about this many pixels along its longer edge.
THUMBNAIL_PX: Final = 1024
STRIP_PX: Final = 512

# Bounds of the thresholds: below are a camera's noise and uneven light, above is plain tissue.
OD_BOUNDS: Final = (0.04, 0.12)
CHROMA_BOUNDS: Final = (0.02, 0.07)
GLOW_BOUNDS: Final = (4.0, 12.0)
# Tissue is looked for between nuclei this far apart.
GLOW_UM: Final = 24.0
GAP_UM: Final = 12.0
# A background is brighter than this, 0 … 255.
BACKGROUND_MIN: Final = 140.0
# How far its channels lie apart over the brightest one, how smooth it is, and how much of it there must be:
# nearly white glass first; yellowed glass only where it is plenty, since pale eosin looks like it.
GLASS: Final = ((0.12, 4.0, 0.005), (0.25, 2.0, 0.1))
DARK_MAX: Final = 48.0
BRIGHT_MIN: Final = 170.0
BLACK_MAX: Final = 8.0
WHITE: Final = 245.0


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
        RGB uint8, (h, w, 3).
    canvas
        The grid of its pixels.
    """

    pixels: NDArray[np.uint8]
    canvas: Canvas


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
        If a part of the slide cannot be decoded.
    """
    canvas = _thumbnail_canvas(slide.info, mpp)
    pixels = np.empty((canvas.size.height, canvas.size.width, 3), dtype=np.uint8)
    # Blocks, since resampling takes floats: a whole slide at once would take gigabytes.
    for y in range(0, canvas.size.height, STRIP_PX):
        for x in range(0, canvas.size.width, STRIP_PX):
            block = Window(x, y, STRIP_PX, STRIP_PX).clipped(canvas.size)
            pixels[block.slices] = read_window(slide, canvas, block)
    # The last pixels reach beyond the slide, and the padding there would look like glass or like tissue.
    if canvas.size.width * canvas.scale.downsample > slide.info.size.width and canvas.size.width > 1:
        pixels[:, -1] = pixels[:, -2]
    if canvas.size.height * canvas.scale.downsample > slide.info.size.height and canvas.size.height > 1:
        pixels[-1] = pixels[-2]
    return Thumbnail(pixels=pixels, canvas=canvas)


def find_tissue(slide: Slide, settings: TissueSettings, *, thumbnail: Thumbnail | None = None) -> TissueMask:
    """Return where the slide has tissue; nothing found is a valid result.

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
        If a part of the slide cannot be decoded.
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
    mask = _clean(
        mask,
        gap_px=max(1, round(GAP_UM / pixel_um)),
        min_px=min(settings.min_area_mm2 * 1e6 / pixel_um**2, bound),
        max_hole_px=min(settings.max_hole_mm2 * 1e6 / pixel_um**2, bound),
    )
    return TissueMask(mask, downsample=(downsample, downsample), mpp=mpp, slide_size=size)


def tissue_of(
    pixels: NDArray[np.uint8], *, fill: tuple[int, int, int] = (255, 255, 255), pixel_um: float = 8.0
) -> NDArray[np.bool_]:
    """Return which pixels of a thumbnail are tissue, before holes and specks are dealt with.

    Parameters
    ----------
    pixels
        RGB uint8, (h, w, 3).
    fill
        Colour of what was not scanned.
    pixel_um
        Micrometres per pixel.

    Returns
    -------
    NDArray[np.bool_]
        (h, w).
    """
    from scipy.ndimage import gaussian_filter

    rgb = gaussian_filter(pixels.astype(np.float32), sigma=(0.7, 0.7, 0))
    brightest, darkest = _brightest(rgb), _darkest(rgb)
    is_dark = np.count_nonzero(brightest < DARK_MAX) > 0.5 * brightest.size
    if is_dark and np.count_nonzero(darkest > BRIGHT_MIN) < 0.02 * darkest.size:
        return _glowing(_brightest(pixels).astype(np.float32), sigma=GLOW_UM / pixel_um)
    is_fill = (pixels == np.array(fill, dtype=np.uint8)).all(axis=2) | _black(pixels)
    background = _background(rgb, is_fill)
    density = np.clip(np.log10((background + 1) / (rgb + 1)), 0, None)
    mean, chroma = density.mean(axis=2), _brightest(density) - _darkest(density)
    is_tissue = mean > np.clip(_otsu(mean[~is_fill]), *OD_BOUNDS)
    is_tissue |= chroma > np.clip(_otsu(chroma[~is_fill]), *CHROMA_BOUNDS)
    found: NDArray[np.bool_] = is_tissue & ~is_fill
    return found


# Three comparisons of planes: reducing an axis of three takes NumPy ten times longer.
def _brightest(pixels: NDArray[Channel]) -> NDArray[Channel]:
    result: NDArray[Channel] = np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])
    return result


def _darkest(pixels: NDArray[Channel]) -> NDArray[Channel]:
    result: NDArray[Channel] = np.minimum(np.minimum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])
    return result


def _black(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return what some scanners paint black around the scanned part, and the rim where it mixes with glass."""
    from scipy.ndimage import binary_dilation

    return binary_dilation(_without_small(_brightest(pixels) < BLACK_MAX, 0.002 * pixels.size / 3), iterations=3)


def _glowing(brightest: NDArray[np.float32], *, sigma: float) -> NDArray[np.bool_]:
    from scipy.ndimage import gaussian_filter

    # Nuclei of one tissue are apart; what is asked for is the tissue around them.
    glow = gaussian_filter(brightest, sigma=sigma)
    level = float(np.percentile(glow, 5))
    dim = glow[glow <= np.percentile(glow, 10)]
    noise = 1.4826 * float(np.median(np.abs(dim - level)))
    threshold = np.clip(_otsu(glow - level), *GLOW_BOUNDS)
    found: NDArray[np.bool_] = glow - level > max(threshold, 5 * noise)
    return found


def _background(rgb: NDArray[np.float32], is_fill: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the colour of bare glass, (3,): the brightest neutral colour that is common and smooth."""
    brightest, darkest = _brightest(rgb), _darkest(rgb)
    slope = np.abs(np.diff(darkest, axis=0, prepend=darkest[:1]))
    slope += np.abs(np.diff(darkest, axis=1, prepend=darkest[:, :1]))
    for max_spread, max_slope, min_share in GLASS:
        is_glass = (brightest > BACKGROUND_MIN) & (brightest - darkest < max_spread * brightest) & (slope < max_slope)
        # Fill is whiter than the glass beside it, so it counts only where there is no other.
        for candidates in (is_glass & ~is_fill, is_glass):
            if np.count_nonzero(candidates) > max(4, min_share * candidates.size):
                return _brightest_mode(rgb[candidates])
    return np.full(3, WHITE, dtype=np.float32)


def _brightest_mode(glass: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the colour of the brightest peak that stands for a fifth of the highest."""
    mean = glass.mean(axis=1)
    counts, edges = np.histogram(mean, bins=np.arange(0, 260, 4))
    smooth = np.convolve(counts, [0.25, 0.5, 0.25], mode="same")
    around = np.max(np.lib.stride_tricks.sliding_window_view(np.pad(smooth, 1), 3), axis=1)
    # The brightest, since pale tissue is darker than glass.
    peak = np.flatnonzero((smooth >= 0.2 * smooth.max()) & (smooth == around))[-1]
    near: NDArray[np.float32] = glass[np.abs(mean - (edges[peak] + edges[peak + 1]) / 2) <= 6]  # noqa: PLR2004 - grey levels
    return np.median(near, axis=0).astype(np.float32)


def _otsu(values: NDArray[np.floating[Any]]) -> float:
    """Return the threshold that parts `values` into two classes of least variance."""
    if values.size == 0 or float(values.max()) <= float(values.min()):
        return math.inf
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = values.size - below
    sums = np.cumsum(counts * centres)
    mean_below = sums[:-1] / np.maximum(below, 1)
    mean_above = (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    between = below * above * (mean_below - mean_above) ** 2
    return float(edges[1:-1][int(between.argmax())])


def _clean(mask: NDArray[np.bool_], *, gap_px: int, min_px: float, max_hole_px: float) -> NDArray[np.bool_]:
    from scipy.ndimage import binary_closing, generate_binary_structure

    # Closing at the border would take the outside for background.
    padded = np.pad(mask, 2 * gap_px, mode="edge")
    closed = binary_closing(padded, generate_binary_structure(2, 1), iterations=gap_px)
    closed = closed[2 * gap_px : -2 * gap_px, 2 * gap_px : -2 * gap_px]
    filled = ~_without_small(~closed, max_hole_px)
    return _without_small(filled, min_px)


def _without_small(mask: NDArray[np.bool_], min_px: float) -> NDArray[np.bool_]:
    """Return `mask` without its pieces of fewer than `min_px` pixels, corners joining."""
    from scipy.ndimage import label

    pieces, _ = label(mask, structure=np.ones((3, 3), dtype=np.int8))
    keep = np.bincount(pieces.ravel()) >= min_px
    keep[0] = False
    kept: NDArray[np.bool_] = keep[pieces]
    return kept


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
