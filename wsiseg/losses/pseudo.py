"""Losses on several pseudo-masks of the same images.

Shapes: B images, C classes, H × W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import torch
from torch import Tensor
from torch.nn import functional

from wsiseg.labels import IGNORE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WhiteMean = Literal["all", "valid"]
Divisor = Literal["batch", "none"]

# Of the masks from shallow to deep layers.
LAYER_WEIGHTS: Final = (0.2, 0.2, 0.6)


def multi_layer(
    logits: Tensor,
    masks: Mapping[str, Tensor],
    *,
    weights: Sequence[float] = LAYER_WEIGHTS,
    white_mean: WhiteMean = "valid",
    divisor: Divisor = "none",
) -> dict[str, Tensor]:
    """Return the weighted sum of the cross-entropies with the masks of several layers.

    Parameters
    ----------
    logits
        float (B, C, H, W).
    masks
        int64 (B, H, W) by the name of their layer: class indices; 255 or C on white, which is ignored.
    weights
        Of the masks, in their order.
    white_mean
        ``valid`` divides the summed loss by the pixels that are not white, ``all`` by all pixels.
    divisor
        ``batch`` divides the mean by the number of images once more, as in the code that the
        authors released; its learning rates suit that. ``none`` does not.

    Returns
    -------
    dict[str, Tensor]
        ``loss``, and ``cross_entropy_<name>`` for each layer, unweighted.

    References
    ----------
    .. [1] Han et al., "Multi-Layer Pseudo-Supervision for Histopathology Tissue Semantic
       Segmentation using Patch-level Classification Labels", Medical Image Analysis 2022.
    """
    terms = {name: _cross_entropy(logits.float(), mask, white_mean, divisor) for name, mask in masks.items()}
    loss = torch.stack([weight * term for weight, term in zip(weights, terms.values(), strict=True)]).sum()
    return {"loss": loss, **{f"cross_entropy_{name}": term.detach() for name, term in terms.items()}}


def _cross_entropy(logits: Tensor, mask: Tensor, white_mean: WhiteMean, divisor: Divisor) -> Tensor:
    mask = torch.where(mask == logits.shape[1], IGNORE, mask)
    total = functional.cross_entropy(logits, mask, ignore_index=IGNORE, reduction="sum")
    pixels = (mask != IGNORE).sum().clamp(min=1) if white_mean == "valid" else mask.numel()
    return total / pixels / (len(mask) if divisor == "batch" else 1)
