"""A small U-Net with group normalisation: it learns from few images and small batches, on a CPU too.

Shapes: B images, C channels, H × W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Block(nn.Module):
    """Two 3 × 3 convolutions, each normalised and rectified."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        # The norms subtract what a bias would add.
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(groups, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        return functional.relu(self.norm2(self.conv2(x)), inplace=True)


class UNet(nn.Module):
    """U-Net whose output has the size of its input.

    Parameters
    ----------
    in_channels, out_channels
        Of images and of the output, which is raw.
    widths
        Channels at each level, from full resolution down; multiples of `groups`.
    skip
        How a level's features meet those from below: ``add`` (cheaper) or ``concat``.
    groups
        Groups of channels that are normalised together.
    dropout
        Part of the channels that are dropped of the deepest features, and of those that the output is made of.

    References
    ----------
    .. [1] Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image
       Segmentation", MICCAI 2015.
    .. [2] Wu and He, "Group Normalization", ECCV 2018.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        widths: Sequence[int] = (32, 64, 128, 256),
        skip: Literal["add", "concat"] = "add",
        groups: int = 8,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.stride = 2 ** (len(widths) - 1)
        self._concat = skip == "concat"
        joined = 2 if self._concat else 1
        shallow, deep = widths[:-1], widths[1:]
        self.down = nn.ModuleList(
            _Block(inputs, width, groups) for inputs, width in zip((in_channels, *shallow), widths, strict=True)
        )
        self.narrow = nn.ModuleList(
            nn.Conv2d(below, width, 1, bias=False) for width, below in zip(shallow, deep, strict=True)
        )
        self.up = nn.ModuleList(_Block(joined * width, width, groups) for width in shallow)
        self.drop = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(widths[0], out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output (B, out_channels, H, W) for images (B, in_channels, H, W).

        H and W are multiples of ``stride``.
        """
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        x = self.drop(x)
        for level in reversed(range(len(self.up))):
            # Narrowed first: a convolution of size 1 and interpolation change places, at a quarter of the cost.
            x = functional.interpolate(self.narrow[level](x), scale_factor=2, mode="bilinear", align_corners=False)
            x = torch.cat((skips[level], x), dim=1) if self._concat else skips[level] + x
            x = self.up[level](x)
        y: Tensor = self.out(self.drop(x))
        return y
