"""Terms that the losses of the heads share. Pixels of weight 0 carry neither loss nor gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


def masked_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean of `values`; 0 where the weights, of the same shape, add up to 0."""
    total = weight.sum()
    return (values * weight).sum() / total.where(total > 0, 1.0)


def foreground_entropy(logit: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Return the mean binary cross-entropy; all (B, H, W), `logit` raw, `truth` 0 … 1."""
    entropy = functional.binary_cross_entropy_with_logits(logit, truth, reduction="none")
    return masked_mean(entropy, valid)


def with_total(**parts: Tensor) -> dict[str, Tensor]:
    """Return the sum of the parts as ``loss``, and the parts without gradient."""
    return {"loss": sum(parts.values(), start=next(iter(parts.values())) * 0)} | {
        name: part.detach() for name, part in parts.items()
    }


def dice_loss(prob: Tensor, truth: Tensor, valid: Tensor, *, smooth: float = 1e-3) -> Tensor:
    """Return 1 - the soft Dice coefficient over all pixels; all (B, H, W)."""
    overlap = (prob * truth * valid).sum()
    return 1 - (2 * overlap + smooth) / ((prob * valid).sum() + (truth * valid).sum() + smooth)
