"""Where training images come from: patches of a store that have labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from wsiseg.labels import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.stores.patches import LayerKind, Patches

# Stores whose resolutions differ by less are taken as equal.
SAME_SCALE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patch:
    """An image with labels.

    Parameters
    ----------
    image
        uint8 RGB (H, W, 3).
    labels
        int32 (H, W): class indices with 255 for ignored, or instance ids with 0 for background.
    valid
        bool (H, W): what may be learnt from.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    valid: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """Some patches of a store and their labels.

    Parameters
    ----------
    patches
        The store, or anything that reads like one.
    layer
        Layer of labels. In layers of instances negative ids mark zones to ignore.
    indices
        Patches to draw from.
    mpp
        Micrometres per pixel to train at; patches of another resolution are resampled. None: as stored.
    weight
        Share of the draws, relative to the other sources; None shares by area.
    """

    patches: Patches
    layer: str
    indices: NDArray[np.int64]
    mpp: float | None = None
    weight: float | None = None

    @property
    def kind(self) -> LayerKind:
        """Return what the layer holds."""
        return self.patches.layers[self.layer].kind

    @property
    def scale(self) -> float:
        """Return the stored pixels per training pixel."""
        if self.mpp is None or self.patches.mpp is None:
            return 1.0
        scale = self.mpp / self.patches.mpp
        return 1.0 if abs(scale - 1) < SAME_SCALE else scale

    @property
    def fingerprint(self) -> str:
        """Return a hash of which patches these are, and of their labels."""
        return self.patches.labels_fingerprint(self.layer, self.indices)

    def areas(self) -> NDArray[np.float64]:
        """Return the training pixels of each patch in `indices`, padding not counted."""
        width, height = self.patches.extents[self.indices].astype(np.float64).T
        areas: NDArray[np.float64] = width * height / self.scale**2
        return areas

    def read(self, index: int) -> Patch:
        """Return one patch of the store at its own resolution, without padding."""
        image = self._image(index)
        height, width = image.shape[:2]
        labels = self.patches.read_labels(self.layer, [index])[0, :height, :width].astype(np.int32)
        if self.kind == "classes":
            return Patch(image=image, labels=labels, valid=labels != IGNORE)
        return Patch(image=image, labels=np.maximum(labels, 0), valid=labels >= 0)

    def whole(self, index: int) -> Patch:
        """Return one patch of the store at the training resolution."""
        patch = self.read(index)
        if self.scale == 1:
            return patch
        height, width = patch.labels.shape
        size = max(1, round(width / self.scale)), max(1, round(height / self.scale))
        return resample(patch, (0, 0, width, height), size)

    def _image(self, index: int) -> NDArray[np.uint8]:
        width, height = (int(value) for value in self.patches.extents[index])
        image: NDArray[np.uint8] = self.patches.read_images([index])[0, :height, :width]
        return image


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnlabelledSource(Source):
    """Patches whose labels, if they have any, are never read; nothing of them may be learnt from as a label."""

    def read(self, index: int) -> Patch:
        """Return one patch of the store at its own resolution, without padding and without labels."""
        image = self._image(index)
        shape = image.shape[:2]
        return Patch(image=image, labels=np.zeros(shape, dtype=np.int32), valid=np.zeros(shape, dtype=np.bool_))


def resample(patch: Patch, box: tuple[float, float, float, float], size: tuple[int, int]) -> Patch:
    """Return what lies in a box of `patch`, as an image of another size.

    Parameters
    ----------
    patch
        Holds the whole box.
    box
        Left, top, right, bottom in its pixels, fractions allowed.
    size
        Width and height of the result.
    """
    image = Image.fromarray(patch.image).resize(size, Image.Resampling.BILINEAR, box)
    labels = Image.fromarray(patch.labels).resize(size, Image.Resampling.NEAREST, box)
    valid = Image.fromarray(patch.valid.view(np.uint8)).resize(size, Image.Resampling.NEAREST, box)
    return Patch(image=np.asarray(image), labels=np.asarray(labels), valid=np.asarray(valid).view(np.bool_))


def pad(patch: Patch, left: int, top: int, right: int, bottom: int) -> Patch:
    """Return a patch with more pixels on its sides: the image is mirrored, the labels are ignored."""
    margins = (top, bottom), (left, right)
    return Patch(
        image=np.pad(patch.image, (*margins, (0, 0)), mode="reflect"),
        labels=np.pad(patch.labels, margins),
        valid=np.pad(patch.valid, margins),
    )


def random_crop(patch: Patch, *, crop_px: int, scale: float, rng: np.random.Generator) -> Patch:
    """Return a random square of a patch; where the patch is too small, it is padded.

    Parameters
    ----------
    patch
        Of any size.
    crop_px
        Side of the result in pixels.
    scale
        Pixels of the patch per pixel of the result.
    rng
        Draws the place.
    """
    side = crop_px * scale
    height, width = patch.labels.shape
    left, top = (_random_place(room - side, whole=scale == 1, rng=rng) for room in (width, height))
    x0, y0, x1, y1 = math.floor(left), math.floor(top), math.ceil(left + side), math.ceil(top + side)
    inside = np.s_[max(0, y0) : min(height, y1), max(0, x0) : min(width, x1)]
    cut = Patch(image=patch.image[inside], labels=patch.labels[inside], valid=patch.valid[inside])
    if cut.labels.shape != (y1 - y0, x1 - x0):
        cut = pad(cut, max(0, -x0), max(0, -y0), max(0, x1 - width), max(0, y1 - height))
    if scale == 1:
        return cut
    # Rounding of sums may reach beyond the last pixel by a billionth, which Pillow refuses.
    box = left - x0, top - y0, min(left - x0 + side, x1 - x0), min(top - y0 + side, y1 - y0)
    return resample(cut, box, (crop_px, crop_px))


def _random_place(slack: float, *, whole: bool, rng: np.random.Generator) -> float:
    """Return where along an edge a crop begins, `slack` pixels shorter than the patch (longer if negative)."""
    low, high = min(0.0, slack), max(0.0, slack)
    return int(rng.integers(math.floor(low), math.floor(high) + 1)) if whole else float(rng.uniform(low, high))
