"""How good synthetic images of a patch are: do they look like it, obey their masks, differ, and copy nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage
from skimage.feature import match_template
from skimage.filters import threshold_otsu

from wsiseg.classical import haematoxylin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# A window that is more like one of the patch than this (correlation of grey values) is a copy of it.
COPY: Final = 0.95
WINDOW_PX: Final = 32
_WINDOWS: Final = 8
# Beyond any of these, images teach something else than their patch does. Those of colours (grey levels) and contrast
# are what 150 steps with the critics of components reach, and without these do not. The farthest of 55 GANs of the
# preset smoke on H&E were 19 grey levels off, had contrasts of 0.78 and 1.26 and 0.83 of the adherence of their
# patches, and copied nothing; on dark ground, which is alike everywhere, up to a fifth of the windows pass for copies.
MOST_COLOUR_ERROR: Final = 25.0
MOST_CONTRAST_ERROR: Final = 0.4
MOST_ADHERENCE_LOST: Final = 0.25
MOST_COPIES: Final = 0.25
# Window, sigma and constants of Wang et al.
_SIGMA, _RADIUS_PX, _K1, _K2 = 1.5, 5, 0.01, 0.03
_WHITE: Final = 255.0
_LUMINANCE: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What was measured; colours in grey levels of 0 … 255. Lower, or higher, is better as said.

    Masks without nuclei tell nothing of nuclei, and those without background nothing of it: they do not count, and
    where no other is left, or the patch itself shows no difference, the number is NaN.

    Parameters
    ----------
    colour_error_nuclei, colour_error_background
        Largest difference of the mean red, green or blue inside nuclei and outside, from the patch; lower.
    contrast
        Difference in luminance between background and nuclei, as a part of that in the patch: 1 is as in the patch.
    adherence
        Dice between masks and what haematoxylin shows to be nuclei (Otsu's threshold, stains beyond the strongest of
        the patch cut off); higher.
    adherence_of_patch
        The same of the patch and its own labels, which is about as high as it can get.
    diversity
        Mean standard deviation of a pixel over images of one mask that differ in their noise; higher.
    reconstruction_ssim
        Structural similarity of the patch and its reconstruction, up to 1; higher.
    ssim
        Structural similarity of synthetic images and the patch at the same place: about that of unlike images, and
        near 1 if images were copies of the patch.
    likeness
        Median correlation of windows of synthetic images with the window of the patch that is most like them.
    likeness_of_patch
        The same of windows of the patch with windows of the patch that they share no pixel with.
    copies
        Share of the windows of synthetic images that are copies: correlations above `COPY`.
    """

    colour_error_nuclei: float
    colour_error_background: float
    contrast: float
    adherence: float
    adherence_of_patch: float
    diversity: float
    reconstruction_ssim: float
    ssim: float
    likeness: float
    likeness_of_patch: float
    copies: float

    def __str__(self) -> str:
        return (
            f"colours {_told(self.colour_error_nuclei, 1)} grey levels off in nuclei and "
            f"{_told(self.colour_error_background, 1)} in background, contrast {_told(self.contrast, 2)}, adherence "
            f"{_told(self.adherence, 3)} (patch {_told(self.adherence_of_patch, 3)}), copies {self.copies:.1%}"
        )


def assess(
    patch: NDArray[np.uint8],
    labels: NDArray[np.integer],
    images: Sequence[NDArray[np.uint8]],
    masks: Sequence[NDArray[np.integer]],
    *,
    alike: Sequence[NDArray[np.uint8]],
    reconstruction: NDArray[np.uint8],
    seed: int = 0,
) -> Quality:
    """Return how good synthetic images of a patch are.

    Parameters
    ----------
    patch, labels
        RGB (S, S, 3), and what of it are nuclei (S, S), not 0.
    images, masks
        Synthetic ones of the same size.
    alike
        Two or more images of one mask that differ in their noise.
    reconstruction
        The patch as the GAN makes it.
    seed
        Decides which windows are looked at.

    References
    ----------
    .. [1] Otsu, "A threshold selection method from gray-level histograms", IEEE Transactions on Systems, Man, and
       Cybernetics 1979.
    .. [2] Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004.
    """
    nuclei, inside = labels > 0, [mask > 0 for mask in masks]
    strongest = float(_stain(patch).max())
    rng = np.random.default_rng(seed)
    found = [nearest(image, patch, _WINDOWS, rng) for image in images]
    return Quality(
        colour_error_nuclei=_colour_error(patch, nuclei, images, inside),
        colour_error_background=_colour_error(patch, ~nuclei, images, [~one for one in inside]),
        contrast=_relative_contrast(patch, nuclei, images, inside),
        adherence=_mean([adherence(image, one, strongest) for image, one in zip(images, inside, strict=True)]),
        adherence_of_patch=adherence(patch, nuclei, strongest),
        diversity=float(np.std(np.stack(alike).astype(np.float32), axis=0).mean()),
        reconstruction_ssim=ssim(patch, reconstruction),
        ssim=float(np.mean([ssim(patch, image) for image in images])),
        likeness=float(np.median(np.concatenate(found))),
        likeness_of_patch=float(np.median(nearest(patch, patch, _WINDOWS * len(images), rng, is_itself=True))),
        copies=float(np.mean(np.concatenate(found) > COPY)),
    )


def strain(quality: Quality) -> float:
    """Return how near the worst of the numbers is to its limit: 1 at the limit, more beyond."""
    return max(found for found, _ in _strains(quality))


def doubt(quality: Quality) -> str:
    """Return what of the numbers is beyond its limit, in words; empty where nothing is."""
    return ", ".join(told for found, told in _strains(quality) if found > 1)


def _strains(quality: Quality) -> list[tuple[float, str]]:
    """Return how near each number is to its limit, and what it tells; those that are NaN tell nothing."""
    nuclei, background = quality.colour_error_nuclei, quality.colour_error_background
    own = quality.adherence_of_patch
    found = [
        (nuclei / MOST_COLOUR_ERROR, f"nuclei are {nuclei:.0f} grey levels off"),
        (background / MOST_COLOUR_ERROR, f"background is {background:.0f} grey levels off"),
        (abs(1 - quality.contrast) / MOST_CONTRAST_ERROR, f"contrast is {quality.contrast:.2f} of the patch's"),
        (
            (1 - quality.adherence / own) / MOST_ADHERENCE_LOST if own else math.nan,
            f"masks are obeyed by {quality.adherence:.2f}, in the patch by {own:.2f}",
        ),
        (quality.copies / MOST_COPIES, f"{quality.copies:.0%} of the windows are copies"),
    ]
    return [one for one in found if not math.isnan(one[0])]


def ssim(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return the structural similarity of the luminance of two RGB images (H, W, 3), 1 for equal ones."""
    x, y = _luminance(one), _luminance(other)

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        smooth: NDArray[np.float32] = ndimage.gaussian_filter(values, _SIGMA, radius=_RADIUS_PX)
        return smooth

    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = (_K1 * _WHITE) ** 2, (_K2 * _WHITE) ** 2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((likeness / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))).mean())


def adherence(image: NDArray[np.uint8], inside: NDArray[np.bool_], strongest: float) -> float:
    """Return the Dice of a mask (H, W) and what haematoxylin shows to be nuclei in an image (H, W, 3).

    Optical densities beyond `strongest` count as that: a few black pixels would draw the threshold to themselves.
    An empty mask, which some threshold would always miss, has none: NaN.
    """
    if not inside.any():
        return math.nan
    stain = np.minimum(_stain(image), strongest)
    if np.ptp(stain) == 0:
        return 0.0
    shown = stain > threshold_otsu(stain)  # type: ignore[no-untyped-call]  # scikit-image carries no types
    return float(2 * (shown & inside).sum() / max(1, shown.sum() + inside.sum()))


def nearest(
    image: NDArray[np.uint8],
    patch: NDArray[np.uint8],
    windows: int,
    rng: np.random.Generator,
    *,
    is_itself: bool = False,
) -> NDArray[np.float64]:
    """Return the correlation of windows of an image with the windows of the patch that are most like them, (n,).

    Parameters
    ----------
    image, patch
        RGB (H, W, 3).
    windows, rng
        How many windows are drawn, and what draws them; those of one colour are like none.
    is_itself
        Whether the image is the patch: windows that overlap do not count.
    """
    ours, theirs = _luminance(image), _luminance(patch)
    side = min(WINDOW_PX, min(ours.shape) // 3)
    found = []
    for _ in range(windows):
        y, x = (int(rng.integers(length - side + 1)) for length in ours.shape)
        window = ours[y : y + side, x : x + side]
        if np.ptp(window) == 0:
            found.append(0.0)
            continue
        likeness = match_template(theirs, window)  # type: ignore[no-untyped-call]
        if is_itself:
            likeness[max(0, y - side + 1) : y + side, max(0, x - side + 1) : x + side] = -1
        found.append(float(likeness.max()))
    return np.array(found)


def _stain(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    stain: NDArray[np.float32] = ndimage.gaussian_filter(haematoxylin(image), 1.0)
    return stain


def _luminance(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    luminance: NDArray[np.float32] = image.astype(np.float32) @ _LUMINANCE
    return luminance


def _colour_error(
    patch: NDArray[np.uint8],
    inside: NDArray[np.bool_],
    images: Sequence[NDArray[np.uint8]],
    masks: Sequence[NDArray[np.bool_]],
) -> float:
    made = np.concatenate([image[mask] for image, mask in zip(images, masks, strict=True)])
    if len(made) == 0 or not inside.any():
        return math.nan
    return float(np.abs(made.mean(axis=0) - patch[inside].mean(axis=0)).max())


def _relative_contrast(
    patch: NDArray[np.uint8],
    nuclei: NDArray[np.bool_],
    images: Sequence[NDArray[np.uint8]],
    masks: Sequence[NDArray[np.bool_]],
) -> float:
    made = _mean([_contrast(image, mask) for image, mask in zip(images, masks, strict=True)])
    own = _contrast(patch, nuclei)
    return made / own if own else math.nan


def _contrast(image: NDArray[np.uint8], inside: NDArray[np.bool_]) -> float:
    if inside.all() or not inside.any():
        return math.nan
    luminance = _luminance(image)
    return float(luminance[~inside].mean() - luminance[inside].mean())


def _told(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _mean(values: Sequence[float]) -> float:
    """Return the mean of what could be measured."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
