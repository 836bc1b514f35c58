"""Objects as flows: each pixel points the way to the centre of its object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from pydantic import Field
from scipy.special import expit

from wsiseg.config import Config
from wsiseg.heads.base import Instances, no_foreground, with_logit
from wsiseg.heads.diffusion import centre_flows
from wsiseg.heads.hills import HILL_RADIUS_PX, gathered
from wsiseg.heads.symmetry import turned_back, vectors_turned_back
from wsiseg.heads.terms import foreground_entropy, masked_mean, with_total
from wsiseg.heads.tidying import mean_in_objects, tidied

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# Networks learn flows of this length, so that their loss is on a par with that of the foreground.
_LENGTH: Final = 5.0
# Positions are whole multiples of 1 / 256 pixel: sums are exact, wherever in the array an object lies.
_FRACTION_BITS: Final = 8
_STEPS: Final = 8
# Error of flows that leaves half of the certainty where no limit is asked for; Cellpose drops objects beyond it.
_MAX_ERROR: Final = 0.4


class FlowOptions(Config):
    """How flows become objects.

    Parameters
    ----------
    min_probability
        Pixels with a higher probability of foreground belong to objects.
    reach_px
        Farthest that a pixel may lie from the centre of its object.
    min_area_px
        Smaller objects are dropped.
    max_flow_error
        Objects whose flows differ more from those of their shape (mean squared length of
        the difference, unit flows) are dropped, and scores fall with the difference; None
        leaves this out, which is faster.
    """

    min_probability: float = Field(default=0.5, gt=0, lt=1)
    reach_px: int = Field(default=32, ge=1, le=256)
    min_area_px: int = Field(default=15, ge=1)
    max_flow_error: float | None = Field(default=None, gt=0)


class FlowHead:
    """Three maps: the logit of the foreground and the flow dy, dx, five pixels long.

    The loss is the cross-entropy of the foreground and half the mean squared error of flows.

    Decoding follows the flows from every pixel of the foreground. Eight steps on the nearest
    pixels' flows are made exactly; what they lead to is then looked up over and over, which
    doubles the way each time. End points pile up in hills; each belongs to the summit that
    the steepest way up within windows of 5 × 5 pixels leads to, and the pixels of one summit
    are an object. Next to [1]_ this replaces 200 interpolated steps and the growing of seeds.

    Parameters
    ----------
    options
        How to decode.

    References
    ----------
    .. [1] Stringer et al., "Cellpose: a generalist algorithm for cellular segmentation",
       Nature Methods 18, 2021.
    """

    kind: Final = "flow"
    channels: Final = 3
    background: Final = no_foreground(3)

    def __init__(self, options: FlowOptions) -> None:
        self.options = options

    @property
    def halo(self) -> int:
        """Return how many pixels around an object its decoding may look at."""
        return self.options.reach_px + HILL_RADIUS_PX

    def targets(self, label_map: NDArray[np.int32], valid: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        """Return ``maps`` (3, H, W): foreground 0 or 1 and flows times 5, and ``valid`` (H, W)."""
        maps = np.empty((3, *label_map.shape), dtype=np.float32)
        maps[0] = label_map > 0
        np.multiply(centre_flows(label_map), np.float32(_LENGTH), out=maps[1:])
        return {"maps": maps, "valid": valid.astype(np.float32)}

    def perfect(self, targets: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the raw maps of a network that has learnt `targets` by heart; see `InstanceHead`."""
        return with_logit(targets["maps"])

    def loss(self, outputs: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``loss`` and its parts ``foreground`` and ``flow``."""
        outputs, maps, valid = outputs.float(), targets["maps"], targets["valid"]
        error = (outputs[:, 1:] - maps[:, 1:]).square().mean(dim=1)
        return with_total(
            foreground=foreground_entropy(outputs[:, 0], maps[:, 0], valid), flow=0.5 * masked_mean(error, valid)
        )

    def decode(self, outputs: NDArray[np.float32]) -> Instances:
        """Return the objects in raw maps, float32 (3, H, W)."""
        probability = self.foreground(outputs)
        labels = _followed(probability > self.options.min_probability, outputs[1:], reach_px=self.options.reach_px)
        labels, _ = tidied(labels, min_area_px=self.options.min_area_px)
        scores = mean_in_objects(probability, labels)
        limit = self.options.max_flow_error
        if limit is not None and len(scores):
            error = _flow_error(outputs, labels)
            kept = error <= limit
            number = np.concatenate(([0], np.cumsum(kept) * kept)).astype(np.int32)
            labels, scores = number[labels], (scores * (1 - error / np.float32(limit)))[kept]
        return Instances.from_labels(labels, scores)

    def certainty(self, outputs: NDArray[np.float32], found: Instances) -> NDArray[np.float32]:
        """Return the mean probability, less the more flows differ from those of the shape; see `InstanceHead`.

        Half of it is left where the mean squared length of the difference is `max_flow_error`, or 0.4 where that is
        None, and nothing where it is twice that. With nothing left at the limit itself, as in the scores of `decode`,
        networks of a few hundred updates were too modest: of their objects that now have 0.4 … 0.6, about half were
        right (IoU above 0.5 with an annotated one, nuclei in patches of two data sets, one training each).
        """
        if not len(found):
            return found.scores
        limit = np.float32(self.options.max_flow_error or _MAX_ERROR)
        agreement: NDArray[np.float32] = (1 - _flow_error(outputs, found.labels) / (2 * limit)).clip(0)
        return mean_in_objects(self.foreground(outputs), found.labels) * agreement

    def foreground(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability, float32 (H, W), that a pixel belongs to any object."""
        probability: NDArray[np.float32] = expit(outputs[0])
        return probability

    def turned_back(self, outputs: Tensor, symmetry: int) -> Tensor:
        """Return the maps of a turned image as those of the image itself, both (B, 3, H, W)."""
        dy, dx = vectors_turned_back(outputs[:, 1], outputs[:, 2], symmetry)
        return torch.stack((turned_back(outputs[:, 0], symmetry), dy, dx), dim=1)


def _flow_error(outputs: NDArray[np.float32], labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the mean squared length of the difference to the flows of the shapes, of unit flows, float32 (n,)."""
    difference = np.square(centre_flows(labels) - outputs[1:] / np.float32(_LENGTH)).sum(axis=0)
    return mean_in_objects(difference, labels)


def _followed(foreground: NDArray[np.bool_], flow: NDArray[np.float32], *, reach_px: int) -> NDArray[np.int32]:
    """Return a label for the pixels whose flows end on the same hill, int32 (H, W), 0 background."""
    height, width = foreground.shape
    labels = np.zeros((height, width), dtype=np.int32)
    # Flat indices come several times faster than pairs.
    pixels = np.flatnonzero(foreground)
    if len(pixels) == 0:
        return labels
    rows, columns = (part.astype(np.intp) for part in np.divmod(pixels.astype(np.int32), np.int32(width)))
    # A step is at most one pixel long and there is no flow in the margin, so one pixel of margin holds all.
    padded = width + 2
    start = (rows + 1) * padded + columns + 1
    size = (height + 2) * padded
    end = _end_points(start, flow.reshape(2, -1)[:, pixels] / np.float32(_LENGTH), padded, size, reach_px=reach_px)
    labels.ravel()[pixels] = gathered(start, end, padded, size, reach_px=reach_px)
    return labels


def _end_points(
    start: NDArray[np.int64], flow: NDArray[np.float32], width: int, size: int, *, reach_px: int
) -> NDArray[np.int64]:
    """Return the pixel that each pixel of the foreground comes to.

    Parameters
    ----------
    start
        Pixels of the foreground, row-major indices (N,).
    flow
        dy, dx of each in pixels, (2, N).
    width, size
        Of the array, margin included.
    reach_px
        Pixels that a flow of length ½ must be able to travel.
    """
    unit = 1 << _FRACTION_BITS
    short = flow * (unit / np.maximum(1, np.hypot(flow[0], flow[1])))
    steps = np.zeros((size, 2), dtype=np.int32)
    steps[start] = np.rint(short).T
    at = np.stack((start // width, start % width), axis=1).astype(np.int32) * np.int32(unit) + np.int32(unit // 2)
    # Both components are fetched as one number.
    pairs = steps.view(np.int64).ravel()
    pixel = start
    for _ in range(_STEPS):
        at += pairs[pixel].view(np.int32).reshape(-1, 2)
        whole = at >> _FRACTION_BITS
        pixel = (whole[:, 0] * np.int32(width) + whole[:, 1]).astype(np.intp)
    leads_to = np.arange(size)
    way = _STEPS
    while way < 2 * reach_px:
        leads_to[start] = pixel
        pixel = leads_to[pixel]
        way *= 2
    return pixel
