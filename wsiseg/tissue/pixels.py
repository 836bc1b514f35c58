"""Which pixels of a thumbnail are tissue.

Brightfield: a pixel is tissue where its optical density or its colour, both relative to the
slide's own background, pass a threshold. Fluorescence: where it shines above the dark
background. The thresholds are Otsu's, kept within bounds that a blank slide does not reach
and a slide full of tissue does not exceed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Channel = TypeVar("Channel", np.uint8, np.float32)

# Bounds of the thresholds: below are a camera's noise and uneven light, above is plain tissue.
OD_BOUNDS: Final = (0.04, 0.12)
CHROMA_BOUNDS: Final = (0.02, 0.07)
GLOW_BOUNDS: Final = (4.0, 12.0)
# Tissue is looked for between nuclei this far apart.
GLOW_UM: Final = 24.0
# A background is brighter than this, 0 … 255.
BACKGROUND_MIN: Final = 140.0
# How far its channels lie apart over the brightest one, how smooth it is, and how much of it there must be:
# nearly white glass first; yellowed glass only where it is plenty, since pale eosin looks like it.
GLASS: Final = ((0.12, 4.0, 0.005), (0.25, 2.0, 0.1))
DARK_MAX: Final = 48.0
BRIGHT_MIN: Final = 170.0
BLACK_MAX: Final = 8.0
WHITE: Final = 245.0


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


def clean(mask: NDArray[np.bool_], *, gap_px: int, min_px: float, max_hole_px: float) -> NDArray[np.bool_]:
    """Return a mask without its gaps, small holes and specks.

    Parameters
    ----------
    mask
        bool, (h, w).
    gap_px
        Gaps up to about twice as wide are closed.
    min_px, max_hole_px
        Pieces of fewer pixels go, holes of fewer pixels are filled.
    """
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
