"""Objects as stars: each pixel knows how far its object reaches in every direction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from pydantic import Field
from scipy.special import expit
from skimage.draw import polygon
from torch.nn import functional

from wsiseg.config import Config
from wsiseg.heads.base import Instances, above, no_foreground, with_logit
from wsiseg.heads.rays import edge_distances, ray_lengths, unit_rays
from wsiseg.heads.symmetry import rays_turned_back, turned_back
from wsiseg.heads.terms import foreground_entropy, masked_mean, with_total
from wsiseg.heads.tidying import tidied

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_SHORTEST_PX: Final = 1e-3
_RAYS_WEIGHT: Final = 0.2
_BACKGROUND_WEIGHT: Final = 1e-4


class StarOptions(Config):
    """How stars become objects.

    Parameters
    ----------
    rays
        Number of directions, a multiple of 4.
    min_probability
        Pixels with a higher probability may be the centre of an object.
    max_overlap
        A star is dropped if it shares more than this with a better one, as part of the smaller.
    reach_px
        Longest ray.
    min_area_px
        Smaller objects are dropped.
    """

    rays: int = Field(default=32, ge=8, multiple_of=4)
    min_probability: float = Field(default=0.5, gt=0, lt=1)
    max_overlap: float = Field(default=0.4, ge=0, le=1)
    reach_px: int = Field(default=32, ge=1, le=256)
    min_area_px: int = Field(default=15, ge=1)


class StarHead:
    """1 + R maps: the logit of lying deep inside an object, and lengths of R rays before softplus.

    The first map is a probability that falls from 1 in the middle of an object to 0 at its
    border. The loss is its cross-entropy and, weighted by it, the mean absolute error of the
    rays; very short rays are asked for in the background.

    Decoding paints stars from the most probable down. A pixel that lies in a painted star is
    no candidate any more; a star that overlaps a painted one too much is dropped, by areas in
    whole pixels instead of the areas of polygons in [1]_.

    Parameters
    ----------
    options
        How to decode.

    References
    ----------
    .. [1] Schmidt et al., "Cell Detection with Star-Convex Polygons", MICCAI 2018.
    """

    kind: Final = "star"

    def __init__(self, options: StarOptions) -> None:
        self.options = options

    @property
    def channels(self) -> int:
        """Return the number of maps."""
        return 1 + self.options.rays

    @property
    def background(self) -> tuple[float, ...]:
        """Return what the maps hold where there is no object; see `InstanceHead`."""
        return no_foreground(self.channels)

    @property
    def halo(self) -> int:
        """Return how many pixels around an object its decoding may look at."""
        return 2 * self.options.reach_px

    def targets(self, label_map: NDArray[np.int32], valid: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        """Return ``maps`` (1 + R, H, W): depth in the object 0 … 1 and rays in pixels, and ``valid`` (H, W)."""
        depth = edge_distances(label_map)[None]
        maps = np.concatenate((depth, ray_lengths(label_map, self.options.rays)))
        return {"maps": maps, "valid": valid.astype(np.float32)}

    def perfect(self, targets: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the raw maps of a network that has learnt `targets` by heart; see `InstanceHead`."""
        lengths = np.maximum(targets["maps"][1:], 1e-3)
        # What softplus makes the lengths of.
        rays = lengths + np.log(-np.expm1(-lengths))
        return with_logit(np.concatenate((targets["maps"][:1], rays)))

    def loss(self, outputs: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``loss`` and its parts ``foreground``, ``rays`` and ``background``."""
        outputs, maps, valid = outputs.float(), targets["maps"], targets["valid"]
        depth = maps[:, 0]
        rays = functional.softplus(outputs[:, 1:]).clamp(min=_SHORTEST_PX)
        error = (rays - maps[:, 1:]).abs().mean(dim=1)
        return with_total(
            foreground=foreground_entropy(outputs[:, 0], depth, valid),
            rays=_RAYS_WEIGHT * masked_mean(error, depth * valid),
            background=_RAYS_WEIGHT * _BACKGROUND_WEIGHT * masked_mean(rays.mean(dim=1), (depth == 0) * valid),
        )

    def decode(self, outputs: NDArray[np.float32]) -> Instances:
        """Return the objects in raw maps, float32 (1 + R, H, W)."""
        probability = self.foreground(outputs)
        y, x = np.nonzero(probability > self.options.min_probability)
        order = np.argsort(-probability[y, x], kind="stable")
        y, x = y[order], x[order]
        rays = np.clip(np.logaddexp(0, outputs[1:, y, x]), _SHORTEST_PX, self.options.reach_px).T
        step = unit_rays(self.options.rays)
        labels, centres = self._painted(y, x, rays[..., None] * step, probability.shape)
        labels, ids = tidied(labels, min_area_px=self.options.min_area_px)
        kept = centres[ids - 1]
        return Instances.from_labels(labels, probability[y[kept], x[kept]])

    def certainty(self, outputs: NDArray[np.float32], found: Instances) -> NDArray[np.float32]:  # noqa: ARG002 - scores say it
        """Return how far the scores are above the least probability, 0 … 1; see `InstanceHead`."""
        return above(found.scores, self.options.min_probability)

    def foreground(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability, float32 (H, W), of lying deep inside an object: ½ halfway to its border."""
        probability: NDArray[np.float32] = expit(outputs[0])
        return probability

    def turned_back(self, outputs: Tensor, symmetry: int) -> Tensor:
        """Return the maps of a turned image as those of the image itself, both (B, 1 + R, H, W)."""
        return torch.cat((turned_back(outputs[:, :1], symmetry), rays_turned_back(outputs[:, 1:], symmetry)), dim=1)

    def _painted(
        self, y: NDArray[np.int64], x: NDArray[np.int64], tips: NDArray[np.float64], shape: tuple[int, ...]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return labels (H, W) and which candidate each id from 1 is; candidates (N,), best first, tips (N, R, 2)."""
        reach = self.options.reach_px
        # A margin wide enough for every star, cut off at the end.
        labels = np.zeros((shape[0] + 2 * reach + 2, shape[1] + 2 * reach + 2), dtype=np.int32)
        flat, width = labels.ravel(), labels.shape[1]
        middle = (y + reach + 1) * width + x + reach + 1
        areas: list[int] = [0]
        centres: list[int] = []
        for candidate, centre in enumerate(middle.tolist()):
            if flat[centre]:
                continue
            # Drawn about the same point each: where a star lies does not change its pixels.
            dy, dx = polygon(*(tips[candidate].T + reach))  # type: ignore[no-untyped-call]
            pixels = centre + (dy - reach) * width + (dx - reach)
            under = flat[pixels]
            shared = np.bincount(under)
            shared[0] = 0
            others = np.flatnonzero(shared)
            smaller = np.minimum(np.asarray(areas)[others], len(pixels))
            if (shared[others] > self.options.max_overlap * smaller).any():
                continue
            areas.append(len(pixels))
            centres.append(candidate)
            flat[pixels[under == 0]] = len(centres)
        inner = labels[reach + 1 : -reach - 1, reach + 1 : -reach - 1]
        return np.ascontiguousarray(inner), np.asarray(centres, dtype=np.int64)
