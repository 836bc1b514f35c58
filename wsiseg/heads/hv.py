"""Objects as slopes: each pixel knows where between the edges of its object it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from scipy import ndimage
from scipy.special import expit
from skimage.segmentation import watershed
from torch.nn import functional

from wsiseg.config import Config
from wsiseg.heads.base import Instances, no_foreground, with_logit
from wsiseg.heads.symmetry import turned_back, vectors_turned_back
from wsiseg.heads.terms import dice_loss, foreground_entropy, masked_mean, with_total
from wsiseg.heads.tidying import agreement, mean_in_objects, tidied

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_SLOPE_WEIGHT: Final = 2.0
_DERIVATIVE_RADIUS: Final = 2
# A barrier falls by 1 where the slope grows by half per pixel; flat ground, as in the middle of large
# objects, must stay below the height that ends a marker.
_BARRIER_PER_SLOPE: Final = 2.0
_BARRIER_ON_FLAT: Final = 0.35


class HVOptions(Config):
    """How slopes become objects.

    Parameters
    ----------
    min_probability
        Pixels with a higher probability of foreground belong to objects.
    max_barrier
        Markers of objects lie where the barrier, 0 … 1, is lower.
    filter_px
        Side of the filters that take derivatives, odd; 11 suits 0.5 µm/px and 21 0.25 µm/px.
    reach_px
        Largest radius of an object that is found alike in all tiles.
    min_marker_px
        Smaller markers are dropped.
    min_area_px
        Smaller objects are dropped.
    """

    min_probability: float = Field(default=0.5, gt=0, lt=1)
    max_barrier: float = Field(default=0.4, gt=0, le=1)
    filter_px: int = Field(default=11, ge=3, le=41)
    reach_px: int = Field(default=32, ge=1, le=256)
    min_marker_px: int = Field(default=3, ge=1)
    min_area_px: int = Field(default=15, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.filter_px % 2 == 0:
            raise ValueError("filter_px must be odd")
        return self


class HVHead:
    """Three maps: the logit of the foreground and positions h, v between the edges, -1 … 1.

    The loss is cross-entropy and Dice of the foreground, the mean squared error of positions,
    and twice that of their slopes inside objects.

    Decoding looks for the falls of h and v between neighbours and floods each object from
    where both rise. Where [1]_ stretches slopes between the least and greatest of the tile,
    the scale here is fixed, so that an object does not depend on others far away; objects too
    small for a marker, which are lost there, become objects as they are.

    Parameters
    ----------
    options
        How to decode.

    References
    ----------
    .. [1] Graham et al., "HoVer-Net: Simultaneous segmentation and classification of nuclei
       in multi-tissue histology images", Medical Image Analysis 58, 2019.
    """

    kind: Final = "hv"
    channels: Final = 3
    background: Final = no_foreground(3)

    def __init__(self, options: HVOptions) -> None:
        self.options = options

    @property
    def halo(self) -> int:
        """Return how many pixels around an object its decoding may look at."""
        return self.options.reach_px + self.options.filter_px

    def targets(self, label_map: NDArray[np.int32], valid: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        """Return ``maps`` (3, H, W): foreground 0 or 1, h and v, and ``valid`` (H, W)."""
        maps = np.zeros((3, *label_map.shape), dtype=np.float32)
        rows, columns = np.nonzero(label_map > 0)
        maps[0, rows, columns] = 1
        if len(rows):
            _, index = np.unique(label_map[rows, columns], return_inverse=True)
            for axis, at in ((1, columns), (2, rows)):
                maps[axis, rows, columns] = _between_edges(at, index)
        return {"maps": maps, "valid": valid.astype(np.float32)}

    def perfect(self, targets: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the raw maps of a network that has learnt `targets` by heart; see `InstanceHead`."""
        return with_logit(targets["maps"])

    def loss(self, outputs: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``loss`` and its parts ``foreground``, ``dice``, ``position`` and ``slope``."""
        outputs, maps, valid = outputs.float(), targets["maps"], targets["valid"]
        truth = maps[:, 0]
        # Errors of what must not be learnt from would leak into their neighbours' slopes.
        error = (outputs[:, 1:] - maps[:, 1:]) * valid[:, None]
        kernel = _derivative_kernel(error)
        slopes = functional.conv2d(error, torch.stack((kernel, kernel.T))[:, None], padding="same", groups=2)
        return with_total(
            foreground=foreground_entropy(outputs[:, 0], truth, valid),
            dice=dice_loss(outputs[:, 0].sigmoid(), truth, valid),
            position=masked_mean(error.square().mean(dim=1), valid),
            slope=_SLOPE_WEIGHT * masked_mean(slopes.square().sum(dim=1), truth * valid),
        )

    def decode(self, outputs: NDArray[np.float32]) -> Instances:
        """Return the objects in raw maps, float32 (3, H, W)."""
        options = self.options
        probability = self.foreground(outputs)
        blob = probability > options.min_probability
        barrier = _barrier(outputs[1] * blob, outputs[2] * blob, options.filter_px)
        markers = _markers(blob, barrier < options.max_barrier, options.min_marker_px)
        ground = -ndimage.gaussian_filter((1 - barrier) * blob, 0.8, radius=1)
        labels: NDArray[np.int32] = watershed(ground, markers, mask=blob)  # type: ignore[no-untyped-call]
        labels, _ = tidied(labels.astype(np.int32), min_area_px=options.min_area_px)
        return Instances.from_labels(labels, mean_in_objects(probability, labels))

    def certainty(self, outputs: NDArray[np.float32], found: Instances) -> NDArray[np.float32]:
        """Return the scores, less the more h and v differ from those of the shape; see `InstanceHead`."""
        shapes = self.targets(found.labels, found.labels > 0)["maps"][1:]
        return found.scores * agreement(outputs[1:], shapes, found.labels)

    def foreground(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability, float32 (H, W), that a pixel belongs to any object."""
        probability: NDArray[np.float32] = expit(outputs[0])
        return probability

    def turned_back(self, outputs: Tensor, symmetry: int) -> Tensor:
        """Return the maps of a turned image as those of the image itself, both (B, 3, H, W)."""
        v, h = vectors_turned_back(outputs[:, 2], outputs[:, 1], symmetry)
        return torch.stack((turned_back(outputs[:, 0], symmetry), h, v), dim=1)


def _between_edges(at: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return positions (N,) from the centroid, -1 at one edge of an object and 1 at the other.

    Parameters
    ----------
    at
        Column or row of each pixel.
    index
        Which object it belongs to, 0 … n - 1.
    """
    count = int(index.max()) + 1
    centre = np.rint(np.bincount(index, weights=at) / np.bincount(index))
    off = at - centre[index]
    low, high = np.zeros(count), np.zeros(count)
    np.minimum.at(low, index, off)
    np.maximum.at(high, index, off)
    side = np.where(off < 0, -low[index], high[index])
    return off / np.where(off == 0, 1, side)


def _derivative_kernel(like: Tensor) -> Tensor:
    at = torch.arange(-_DERIVATIVE_RADIUS, _DERIVATIVE_RADIUS + 1, device=like.device, dtype=like.dtype)
    square = at[:, None].square() + at.square()
    return at / square.where(square > 0, 1.0)


def _barrier(h: NDArray[np.float32], v: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Return how strongly h falls to the right or v downwards, 0 … 1, (H, W)."""
    smooth = np.poly1d([0.5, 0.5]) ** (size - 1)
    # Weights of positions times distance: the slope per pixel, for a map that rises evenly.
    offset = np.arange(size) - size // 2
    slope = smooth.coeffs * offset / (smooth.coeffs * offset**2).sum()
    steepest = np.minimum(
        *(
            ndimage.correlate1d(
                ndimage.correlate1d(values, smooth.coeffs, axis=1 - axis, mode="nearest"),
                slope,
                axis=axis,
                mode="nearest",
            )
            for values, axis in ((h, 1), (v, 0))
        )
    )
    return np.clip(_BARRIER_ON_FLAT - _BARRIER_PER_SLOPE * steepest, 0, 1)


def _markers(blob: NDArray[np.bool_], is_low: NDArray[np.bool_], min_marker_px: int) -> NDArray[np.int32]:
    """Return numbered markers, and as a marker each part of `blob` that would have none."""
    marks, count = ndimage.label(ndimage.binary_opening(blob & is_low))
    kept = np.bincount(marks.ravel(), minlength=count + 1) >= min_marker_px
    kept[0] = False
    marks = np.where(kept[marks], marks, 0).astype(np.int32)
    parts, number = ndimage.label(blob)
    has_marker = np.zeros(number + 1, dtype=np.bool_)
    has_marker[parts[marks > 0]] = True
    has_marker[0] = True
    return np.where(has_marker[parts], marks, parts + count).astype(np.int32)
