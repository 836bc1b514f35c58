"""What classes of pixels and their level sets teach each other, on images and volumes alike.

Shapes: B images, C classes of which the first is the background, K = C - 1 level sets, … any spatial axes.
Level sets are negative inside. All is computed in full precision, whatever comes in.

References
----------
.. [1] Zhang et al., "Uncertainty-guided mutual consistency learning for semi-supervised medical image segmentation",
   Artificial Intelligence in Medicine 2022.
.. [2] Luo et al., "Semi-supervised Medical Image Segmentation through Dual-task Consistency", AAAI 2021.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor

Channels = Literal["mean", "sum"]
Distance = Literal["mse", "l1"]

# How steep the way back from level sets to masks is.
STEEPNESS: Final = 1500.0
_SMOOTH: Final = 1e-5
# Keeps the logarithm of probabilities of 0 finite.
_LEAST: Final = 1e-6


def squared_dice(prob: Tensor, truth: Tensor, known: Tensor, *, skips_absent: bool = False) -> Tensor:
    """Return 1 - 2 Σpg / (Σp² + Σg²), averaged over the classes.

    Sums run over all images. Where nothing is known, it is 0.

    Parameters
    ----------
    prob
        float (B, K, …): probabilities of the classes but the background.
    truth
        float (B, K, …), 0 or 1.
    known
        float (B, 1, …): 0 where nothing may be learnt.
    skips_absent
        Classes that no image shows have no part; otherwise they are drawn to 0 strongly, as published.
    """
    prob, truth = exact(prob) * known, exact(truth) * known
    dims = (0, *range(2, prob.ndim))
    total = prob.square().sum(dim=dims) + truth.square().sum(dim=dims)
    loss = 1 - (2 * (prob * truth).sum(dim=dims) + _SMOOTH) / (total + _SMOOTH)
    counts = truth.sum(dim=dims) > 0 if skips_absent else torch.ones_like(loss)
    return (loss * counts).sum() / counts.sum().clamp(min=1)


def distance(sdf: Tensor, truth: Tensor, known: Tensor, *, norm: Distance = "mse") -> Tensor:
    """Return the mean squared or absolute error of level sets; 0 where nothing is known.

    Parameters
    ----------
    sdf, truth
        float (B, K, …), -1 … 1.
    known
        float (B, 1, …) or (B, K, …): 0 where nothing may be learnt.
    norm
        ``mse`` or ``l1``. The paper [1]_ does not say which.
    """
    error = exact(sdf) - truth
    return masked_mean(error.square() if norm == "mse" else error.abs(), known)


def inverse(sdf: Tensor, *, steepness: float = STEEPNESS) -> Tensor:
    """Return the mask of a level set as probabilities, 1 / (1 + exp(k φ)), float32.

    The paper prints the exponent with the other sign, which would turn masks inside out.

    Parameters
    ----------
    sdf
        float, any shape.
    steepness
        k. Only pixels whose level set is within a few times 1 / k of 0 pass on a gradient.
    """
    return torch.sigmoid(-steepness * exact(sdf))


def cross_task(prob: Tensor, sdf: Tensor, *, steepness: float = STEEPNESS, mask: Tensor | None = None) -> Tensor:
    """Return the mean squared difference of probabilities and the masks of level sets; both learn.

    Parameters
    ----------
    prob
        float (B, K, …): probabilities of the classes but the background. The published code compares the background,
        too, with a map that is no level set of it.
    sdf
        float (B, K, …).
    steepness
        See `inverse`.
    mask
        float (B, 1, …): pixels that count; all, as published, where None.
    """
    difference = (exact(prob) - inverse(sdf, steepness=steepness)).square()
    return difference.mean() if mask is None else masked_mean(difference, mask)


def intra_task(student: Tensor, teacher: Tensor, mask: Tensor, *, channels: Channels = "mean") -> Tensor:
    """Return the mean squared difference of two networks over the pixels of a mask; 0 where it has none.

    Parameters
    ----------
    student, teacher
        float (B, C, …) or (B, K, …): what they say. A teacher's has no gradient.
    mask
        float (B, 1, …), 0 or 1.
    channels
        Their ``sum`` is the squared length of the difference, as printed; their ``mean`` does not grow with
        the number of classes.
    """
    mean = masked_mean((exact(student) - exact(teacher)).square(), mask)
    return mean * student.shape[1] if channels == "sum" else mean


def entropy(prob: Tensor) -> Tensor:
    """Return how unsure probabilities are, 0 … ln C, float32 (B, 1, …), for float (B, C, …)."""
    prob = exact(prob)
    return -(prob * (prob + _LEAST).log()).sum(dim=1, keepdim=True)


def certainty_limit(classes: int, share: float) -> float:
    """Return the entropy below which pixels count as certain: a share of the most there can be, ln C.

    The released code takes ln 2 whatever the number of classes.
    """
    return share * math.log(classes)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of (B, C, …) over what a mask (B, 1, …) or (B, C, …) has; 0 where it has nothing."""
    mask = mask.to(values.dtype)
    total = mask.expand_as(values).sum()
    return (values * mask).sum() / total.where(total > 0, 1.0)


def exact(values: Tensor) -> Tensor:
    """Return values in float32 or better."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
