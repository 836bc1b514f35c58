"""Losses on classes of pixels. Ignored pixels carry neither loss nor gradient.

Shapes: B images, C classes, H × W pixels; or B volumes of D × H × W voxels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from wsiseg.labels import IGNORE


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over the pixels that are not ignored.

    Parameters
    ----------
    logits
        float (B, C, H, W).
    labels
        int64 (B, H, W): class indices, 255 ignored.

    Returns
    -------
    Tensor
        Scalar; 0 where every pixel is ignored.
    """
    total = functional.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def soft_dice(logits: Tensor, labels: Tensor, *, smooth: float = 1.0) -> Tensor:
    """Return 1 - the soft Dice coefficient, averaged over the classes in the batch.

    Sums run over the whole batch, so that a class that is small in one image does not
    dominate; classes that appear neither in labels nor in predictions count as found.

    Parameters
    ----------
    logits
        float (B, C, H, W).
    labels
        int64 (B, H, W): class indices, 255 ignored.
    smooth
        Pixels added to both sides of the fraction.

    Returns
    -------
    Tensor
        Scalar, 0 … 1.
    """
    known = labels != IGNORE
    # Multiplied, not selected: the shape stays fixed, and ignored pixels get a gradient of exactly 0.
    prob = logits.float().softmax(dim=1) * known.unsqueeze(1)
    truth = functional.one_hot(torch.where(known, labels, 0), logits.shape[1]).movedim(-1, 1) * known.unsqueeze(1)
    pixels = (0, *range(2, prob.ndim))
    overlap = (prob * truth).sum(dim=pixels)
    total = prob.sum(dim=pixels) + truth.sum(dim=pixels)
    return 1 - ((2 * overlap + smooth) / (total + smooth)).mean()


def combo(logits: Tensor, labels: Tensor, *, dice_weight: float) -> dict[str, Tensor]:
    """Return cross-entropy, soft Dice loss and their weighted sum.

    Parameters
    ----------
    logits
        float (B, C, H, W).
    labels
        int64 (B, H, W): class indices, 255 ignored.
    dice_weight
        Weight of the Dice loss beside a cross-entropy of weight 1.

    Returns
    -------
    dict[str, Tensor]
        ``loss``, ``cross_entropy`` and ``dice``.
    """
    entropy, dice = cross_entropy(logits, labels), soft_dice(logits, labels)
    return {"loss": entropy + dice_weight * dice, "cross_entropy": entropy.detach(), "dice": dice.detach()}
