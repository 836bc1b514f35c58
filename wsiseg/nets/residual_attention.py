"""Class-specific residual attention: a classifier that says where it sees each class.

Shapes: B images, K heads, C classes, D channels, H × W positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

# Temperatures for each number of heads, as published.
TEMPERATURES: Final[dict[int, tuple[float, ...]]] = {
    1: (1.0,),
    2: (1.0, math.inf),
    4: (1.0, 2.0, 4.0, math.inf),
    6: (1.0, 2.0, 3.0, 4.0, 5.0, math.inf),
    8: (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, math.inf),
}
_SHORTEST: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAttention:
    """What the head found. Scores and attention are float32, whatever the features were.

    Parameters
    ----------
    logits
        (B, C); the heads are summed.
    scores
        (B, K, C, H, W): how much each position looks like each class.
    attention
        (B, K, C, H, W): weight of each position for each class; sums to 1 over positions.
    parts
        (B, K, C, H, W): what each position adds to the logit of each class.
    """

    logits: Tensor
    scores: Tensor
    attention: Tensor
    parts: Tensor


class ResidualAttention(nn.Module):
    """Multi-label classifier that adds a class's own spatial attention to average pooling.

    Each head scores every position with a linear classifier whose rows have length 1. A logit is
    the mean score of its class plus `residual_weight` times the mean score under the attention
    of the class, a softmax of its scores over positions.

    Parameters
    ----------
    channels
        Channels of the features.
    classes
        Number of classes.
    temperatures
        Sharpness of the attention, one for each head; infinity is the exact maximum. See `TEMPERATURES`.
    residual_weight
        Weight of the attention beside average pooling; with 0 the head is plain average pooling.

    References
    ----------
    .. [1] Zhu and Wu, "Residual Attention: A Simple but Effective Method for Multi-Label
       Recognition", ICCV 2021.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        temperatures: Sequence[float] = TEMPERATURES[1],
        residual_weight: float = 0.3,
    ) -> None:
        super().__init__()
        self.temperatures = tuple(temperatures)
        self.residual_weight = residual_weight
        self.weight = nn.Parameter(torch.empty(len(self.temperatures), classes, channels))
        with torch.no_grad():
            for head in self.weight:
                nn.init.xavier_uniform_(head)

    def forward(self, features: Tensor) -> ClassAttention:
        """Return logits, scores and attention for features (B, D, H, W)."""
        heads, classes, channels = self.weight.shape
        rows = self.weight / self.weight.norm(dim=2, keepdim=True).clamp(min=_SHORTEST)
        scores = functional.conv2d(features, rows.reshape(heads * classes, channels, 1, 1))
        # The logits of half precision are too coarse for a softmax over hundreds of positions.
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        scores = scores.reshape(-1, heads, classes, *features.shape[2:])
        flat = scores.flatten(3)
        attention = torch.stack(
            [_attention(flat[:, head], temperature) for head, temperature in enumerate(self.temperatures)], dim=1
        )
        parts = (1 / flat.shape[-1] + self.residual_weight * attention) * flat
        return ClassAttention(
            logits=parts.sum(dim=(1, 3)),
            scores=scores,
            attention=attention.view_as(scores),
            parts=parts.view_as(scores),
        )


def attention_maps(values: Tensor) -> Tensor:
    """Return where each class was seen, for keeping: no gradient, and a maximum of 1 for each class.

    Parameters
    ----------
    values
        `ClassAttention.scores`, or its `parts` for maps with sharper peaks.

    Returns
    -------
    Tensor
        float32 (B, C, H, W), 0 … 1; all 0 for a class with no positive score.
    """
    seen = values.detach().relu().mean(dim=1)
    return seen / (seen.amax(dim=(2, 3), keepdim=True) + 1e-8)


def _attention(scores: Tensor, temperature: float) -> Tensor:
    """Return the softmax over the last axis of scores (B, C, H × W)."""
    if math.isinf(temperature):
        # Positions that share the maximum share its weight, as their gradients do.
        is_highest = (scores == scores.amax(dim=-1, keepdim=True)).to(scores.dtype)
        return is_highest / is_highest.sum(dim=-1, keepdim=True)
    return (temperature * scores).softmax(dim=-1)
