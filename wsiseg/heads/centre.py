"""Objects as votes: each pixel knows the way to the centroid of its object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from pydantic import Field
from scipy.special import expit

from wsiseg.centroids import ways_to_centroids
from wsiseg.config import Config
from wsiseg.heads.base import Instances, no_foreground, with_logit
from wsiseg.heads.hills import HILL_RADIUS_PX, gathered
from wsiseg.heads.symmetry import turned_back, vectors_turned_back
from wsiseg.heads.terms import foreground_entropy, masked_mean, with_total
from wsiseg.heads.tidying import agreement, mean_in_objects, tidied

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# Ways are some pixels long; so weighted, their error is on a par with that of the foreground.
_WAY_WEIGHT: Final = 0.1


class CentreOptions(Config):
    """How votes become objects.

    Parameters
    ----------
    min_probability
        Pixels with a higher probability of foreground vote.
    reach_px
        Farthest that a pixel may lie from the centroid of its object.
    min_area_px
        Smaller objects are dropped.
    """

    min_probability: float = Field(default=0.5, gt=0, lt=1)
    reach_px: int = Field(default=64, ge=1, le=256)
    min_area_px: int = Field(default=20, ge=1)


class CentreHead:
    """Three maps: the logit of the foreground and the way dy, dx to the centroid, in pixels.

    The loss is the cross-entropy of the foreground and a tenth of the mean absolute error of ways, as in [1]_.

    Decoding counts where pixels point at, and those that point at one hill of votes are an object. These are also the
    words in which networks that find one object after the other, such as Mask R-CNN, say what they have found, with
    the score of an object as the probability of all of its pixels.

    Parameters
    ----------
    options
        How to decode.

    References
    ----------
    .. [1] Kendall et al., "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics",
       CVPR 2018.
    """

    kind: Final = "centre"
    channels: Final = 3
    background: Final = no_foreground(3)

    def __init__(self, options: CentreOptions) -> None:
        self.options = options

    @property
    def halo(self) -> int:
        """Return how many pixels around an object its decoding may look at."""
        return self.options.reach_px + HILL_RADIUS_PX

    def targets(self, label_map: NDArray[np.int32], valid: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        """Return ``maps`` (3, H, W): foreground 0 or 1 and ways in pixels, and ``valid`` (H, W)."""
        maps = np.concatenate(((label_map > 0)[None], ways_to_centroids(label_map)), dtype=np.float32)
        return {"maps": maps, "valid": valid.astype(np.float32)}

    def perfect(self, targets: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the raw maps of a network that has learnt `targets` by heart; see `InstanceHead`."""
        return with_logit(targets["maps"])

    def loss(self, outputs: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``loss`` and its parts ``foreground`` and ``way``."""
        outputs, maps, valid = outputs.float(), targets["maps"], targets["valid"]
        error = (outputs[:, 1:] - maps[:, 1:]).abs().sum(dim=1)
        return with_total(
            foreground=foreground_entropy(outputs[:, 0], maps[:, 0], valid),
            way=_WAY_WEIGHT * masked_mean(error, maps[:, 0] * valid),
        )

    def decode(self, outputs: NDArray[np.float32]) -> Instances:
        """Return the objects in raw maps, float32 (3, H, W)."""
        probability = self.foreground(outputs)
        labels = self._gathered(probability > self.options.min_probability, outputs[1:])
        labels, _ = tidied(labels, min_area_px=self.options.min_area_px)
        return Instances.from_labels(labels, mean_in_objects(probability, labels))

    def certainty(self, outputs: NDArray[np.float32], found: Instances) -> NDArray[np.float32]:
        """Return the scores, less the more pixels point elsewhere than at the centroid; see `InstanceHead`."""
        return found.scores * agreement(outputs[1:], ways_to_centroids(found.labels), found.labels)

    def foreground(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability, float32 (H, W), that a pixel belongs to any object."""
        probability: NDArray[np.float32] = expit(outputs[0])
        return probability

    def turned_back(self, outputs: Tensor, symmetry: int) -> Tensor:
        """Return the maps of a turned image as those of the image itself, both (B, 3, H, W)."""
        dy, dx = vectors_turned_back(outputs[:, 1], outputs[:, 2], symmetry)
        return torch.stack((turned_back(outputs[:, 0], symmetry), dy, dx), dim=1)

    def _gathered(self, foreground: NDArray[np.bool_], ways: NDArray[np.float32]) -> NDArray[np.int32]:
        """Return a label for the pixels that point at the same place, int32 (H, W), 0 background."""
        height, width = foreground.shape
        labels = np.zeros((height, width), dtype=np.int32)
        rows, columns = np.nonzero(foreground)
        if len(rows) == 0:
            return labels
        # Rounded by themselves, so that a vote does not depend on where in the array it is cast. Halves go one way:
        # a centroid may lie between two pixels.
        dy, dx = np.floor(ways[:, rows, columns] + 0.5).astype(np.intp)
        padded = width + 2
        start = (rows + 1) * padded + columns + 1
        end = (np.clip(rows + dy, 0, height - 1) + 1) * padded + np.clip(columns + dx, 0, width - 1) + 1
        labels[rows, columns] = gathered(start, end, padded, (height + 2) * padded, reach_px=self.options.reach_px)
        return labels
