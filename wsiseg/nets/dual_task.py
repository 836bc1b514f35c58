"""Networks with two heads on one decoder: classes of pixels, and level sets of the classes.

Shapes: B images, C classes, K level sets, … spatial axes: H × W of images, D × H × W of volumes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from wsiseg.config import Config
from wsiseg.errors import MethodError


class DualTaskSpec(Config):
    """What networks with two heads have in common.

    Parameters
    ----------
    widths
        Channels at each level, from full resolution down.
    level_sets
        Maps of the second head; 0 leaves it out.
    joined
        The level sets, before their tanh, are the last maps of the output, as instance heads want them. Otherwise
        they come beside the output.
    """

    widths: tuple[int, ...] = Field(default=(16, 32, 64, 128, 256), min_length=2, max_length=8)
    level_sets: int = Field(default=0, ge=0)
    joined: bool = False

    @model_validator(mode="after")
    def _check(self) -> DualTaskSpec:
        if min(self.widths) < 1:
            raise ValueError("a level has one channel or more")
        return self


class DualTaskNet(nn.Module, ABC):
    """A network whose last features two heads share, so that each task learns from the other.

    Parameters
    ----------
    seg, sdf
        The heads: one makes the logits of classes, and the other the level sets before their tanh. None where the
        network has one task.
    joined
        See `DualTaskSpec`.
    """

    def __init__(self, seg: nn.Module, sdf: nn.Module | None, *, joined: bool = False) -> None:
        super().__init__()
        self.seg = seg
        self.sdf = sdf
        self.joined = joined

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return the features that both heads see, for images (B, channels, …)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, C, …), and behind them the level sets before their tanh where they are joined."""
        features = self.features(x)
        logits: Tensor = self.seg(features)
        return torch.cat((logits, self.sdf(features)), dim=1) if self.joined and self.sdf is not None else logits

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the level sets (B, K, …), -1 … 1, float32 or better, and the logits (B, C, …).

        In half precision neighbouring level sets are so far apart that the way back to masks, which is steep, would
        jump.

        Raises
        ------
        MethodError
            If the network has one task only.
        """
        if self.sdf is None:
            raise MethodError("this network has no level sets", mend="Build it with level_sets of 1 or more")
        features = self.features(x)
        depths = self.sdf(features)
        return depths.to(torch.promote_types(depths.dtype, torch.float32)).tanh(), self.seg(features)


def heads(
    conv: type[nn.Conv2d | nn.Conv3d], width: int, out_channels: int, spec: DualTaskSpec, *, size: int
) -> tuple[nn.Module, nn.Module | None]:
    """Return the two heads of a network: convolutions of one size side by side.

    Parameters
    ----------
    conv
        Kind of convolution.
    width
        Channels of the features.
    out_channels
        Maps of the network's output.
    spec
        How many level sets there are, and whether the output holds them.
    size
        Side of the convolutions, odd.

    Raises
    ------
    MethodError
        If the output has no room for them.
    """
    logits = out_channels - spec.level_sets if spec.joined else out_channels
    if logits < 1:
        raise MethodError(f"an output of {out_channels} maps has no room for {spec.level_sets} level sets and classes")
    seg = conv(width, logits, size, padding=size // 2)
    return seg, conv(width, spec.level_sets, size, padding=size // 2) if spec.level_sets else None


def check_size(x: Tensor, stride: int) -> None:
    """Refuse images whose sides are no multiples of the stride of a network; of them nothing is cut or padded.

    Raises
    ------
    MethodError
        If a side of `x` (B, channels, …) is none.
    """
    sides = tuple(x.shape[2:])
    if any(side % stride for side in sides):
        raise MethodError(
            f"images of {' × '.join(map(str, sides))} do not fit the network", mend=f"Use multiples of {stride}"
        )
