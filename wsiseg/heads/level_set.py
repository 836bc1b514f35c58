"""Objects as level sets: each pixel knows how deep inside an object, or how far from any, it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from pydantic import Field
from scipy import ndimage
from scipy.special import expit
from skimage.morphology import reconstruction
from skimage.segmentation import watershed

from wsiseg.config import Config
from wsiseg.heads.base import Instances, above, with_logit
from wsiseg.heads.symmetry import turned_back
from wsiseg.heads.terms import dice_loss, foreground_entropy, masked_mean, with_total
from wsiseg.heads.tidying import mean_in_objects, tidied
from wsiseg.level_sets import level_set, settled

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_DISTANCE_WEIGHT: Final = 0.3
# Ripples of the depth that are smoothed away, so that each object has one summit.
_SIGMA_PX: Final = 1.0
_SIGMAS: Final = 3


class LevelSetOptions(Config):
    """How objects become level sets, and back.

    Parameters
    ----------
    longest_px
        Distance at which level sets end, -1 inside and 1 outside.
    zero_ring
        The outermost pixels of objects lie at 0, as published; otherwise 0 lies halfway between pixels.
    min_probability
        Pixels with a higher probability of foreground belong to objects.
    min_depth_px
        Depth that one pixel of an object has at least, if it is to be parted from others.
    min_rise_px
        Summits of the depth that rise less above the pass to a higher one are no objects of their own.
    reach_px
        Largest radius of an object that is found alike in all tiles.
    min_area_px
        Smaller objects are dropped.
    """

    longest_px: float = Field(default=32.0, gt=0)
    zero_ring: bool = False
    min_probability: float = Field(default=0.5, gt=0, lt=1)
    min_depth_px: float = Field(default=1.0, ge=0)
    min_rise_px: float = Field(default=0.75, gt=0)
    reach_px: int = Field(default=32, ge=1, le=256)
    min_area_px: int = Field(default=15, ge=1)


class LevelSetHead:
    """Three maps: logits of background and object, and the level set before its tanh.

    The level set is the distance to the nearest pixel that is not of the same object, negative inside, in units of
    `longest_px`; it has borders between objects that touch.

    The loss is half the sum of cross-entropy and Dice of the foreground, and 0.3 of the mean squared error of
    the level set.

    Decoding floods the foreground from the summits of the depth, the level set with its sign changed. Objects
    without a summit of their own become objects as they are. The paper [1]_ has single organs and no need of this.

    Parameters
    ----------
    options
        How to encode and decode.

    References
    ----------
    .. [1] Zhang et al., "Uncertainty-guided mutual consistency learning for semi-supervised medical image
       segmentation", Artificial Intelligence in Medicine 2022.
    """

    kind: Final = "level-set"
    channels: Final = 3
    background: Final = (20.0, 0.0, 0.0)

    def __init__(self, options: LevelSetOptions) -> None:
        self.options = options

    @property
    def halo(self) -> int:
        """Return how many pixels around an object its decoding may look at."""
        return self.options.reach_px + round(_SIGMAS * _SIGMA_PX)

    def targets(self, label_map: NDArray[np.int32], valid: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        """Return ``maps`` (2, H, W): foreground 0 or 1 and the level set, and where these are known, (H, W) each.

        These are ``valid`` and ``settled``: a distance to what is not valid is none that could be learnt.
        """
        options = self.options
        found = level_set(label_map, longest=options.longest_px, zero_ring=options.zero_ring)
        return {
            "maps": np.stack(((label_map > 0).astype(np.float32), found)),
            "valid": valid.astype(np.float32),
            "settled": settled(label_map, valid, longest=options.longest_px).astype(np.float32),
        }

    def perfect(self, targets: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the raw maps of a network that has learnt `targets` by heart; see `InstanceHead`."""
        foreground, depth = with_logit(targets["maps"])
        return np.stack((np.zeros_like(foreground), foreground, np.arctanh(depth.clip(-0.999, 0.999))))

    def loss(self, outputs: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``loss`` and its parts ``foreground``, ``dice`` and ``distance``."""
        outputs, maps, valid = outputs.float(), targets["maps"], targets["valid"]
        # What the softmax of two logits depends on.
        logit, truth = outputs[:, 1] - outputs[:, 0], maps[:, 0]
        error = (outputs[:, 2].tanh() - maps[:, 1]).square()
        return with_total(
            foreground=0.5 * foreground_entropy(logit, truth, valid),
            dice=0.5 * dice_loss(logit.sigmoid(), truth, valid),
            distance=_DISTANCE_WEIGHT * masked_mean(error, targets["settled"]),
        )

    def decode(self, outputs: NDArray[np.float32]) -> Instances:
        """Return the objects in raw maps, float32 (3, H, W)."""
        options = self.options
        probability = self.foreground(outputs)
        blob = probability > options.min_probability
        depth = -np.tanh(outputs[2]) * np.float32(options.longest_px)
        depth = ndimage.gaussian_filter(np.maximum(depth, 0), _SIGMA_PX, radius=round(_SIGMAS * _SIGMA_PX))
        depth *= blob
        markers = _summits(depth, blob, min_depth_px=options.min_depth_px, min_rise_px=options.min_rise_px)
        labels: NDArray[np.int32] = watershed(-depth, markers, mask=blob)  # type: ignore[no-untyped-call]
        labels, _ = tidied(labels.astype(np.int32), min_area_px=options.min_area_px)
        return Instances.from_labels(labels, mean_in_objects(probability, labels))

    def certainty(self, outputs: NDArray[np.float32], found: Instances) -> NDArray[np.float32]:  # noqa: ARG002 - scores say it
        """Return how far the scores are above the least probability, 0 … 1; see `InstanceHead`."""
        return above(found.scores, self.options.min_probability)

    def foreground(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability, float32 (H, W), that a pixel belongs to any object."""
        probability: NDArray[np.float32] = expit(outputs[1] - outputs[0])
        return probability

    def turned_back(self, outputs: Tensor, symmetry: int) -> Tensor:
        """Return the maps of a turned image as those of the image itself, both (B, 3, H, W)."""
        return torch.stack([turned_back(one, symmetry) for one in outputs.unbind(dim=1)], dim=1)


def _summits(
    depth: NDArray[np.float32], blob: NDArray[np.bool_], *, min_depth_px: float, min_rise_px: float
) -> NDArray[np.int32]:
    """Return numbered summits of the depth, and as a marker each part of `blob` that would have none."""
    # What stays of the depth above the flood that fills all dips between summits to this far below the lower one.
    flood: NDArray[np.float32] = reconstruction(depth - np.float32(min_rise_px), depth)  # type: ignore[no-untyped-call]
    is_summit = blob & (depth >= min_depth_px) & (depth - flood >= min_rise_px * (1 - 1e-3))
    marks, count = ndimage.label(is_summit, structure=np.ones((3, 3)))
    parts, number = ndimage.label(blob)
    has_marker = np.zeros(number + 1, dtype=np.bool_)
    has_marker[parts[is_summit]] = True
    has_marker[0] = True
    return np.where(has_marker[parts], marks, parts + count).astype(np.int32)
