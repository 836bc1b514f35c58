"""A 2D U-Net with dropout in its encoder, whose last features serve one or two tasks.

Shapes: B images, C channels, H × W pixels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

import torch
from pydantic import model_validator
from torch import nn
from torch.nn import functional

from wsiseg.nets.dual_task import DualTaskNet, DualTaskSpec, check_size, heads

if TYPE_CHECKING:
    from torch import Tensor

DUAL_UNET: Final = "dual-unet"
_SLOPE: Final = 0.01


class DualUNetSpec(DualTaskSpec):
    """A 2D U-Net for one or two tasks.

    Parameters
    ----------
    arch
        ``dual-unet``.
    dropouts
        Part of the activations that are dropped in the block of each level of the encoder.
    """

    arch: Literal["dual-unet"] = DUAL_UNET
    dropouts: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5)

    @model_validator(mode="after")
    def _check_dropouts(self) -> DualUNetSpec:
        if len(self.dropouts) != len(self.widths) or not all(0 <= part < 1 for part in self.dropouts):
            raise ValueError(f"dropouts are {len(self.widths)} numbers from 0 to below 1, as many as widths")
        return self


class _Block(nn.Sequential):
    """Two 3 × 3 convolutions, each normalised over the batch and rectified, with a dropout between them."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(_SLOPE),
            nn.Dropout(dropout),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(_SLOPE),
        )


class DualTaskUNet(DualTaskNet):
    """U-Net for images, with logits and level sets of the size of the input.

    Parameters
    ----------
    in_channels, out_channels
        Of images and of the output, which is raw.
    spec
        The rest; see `DualUNetSpec`.

    References
    ----------
    .. [1] Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015.
    .. [2] Luo et al., "Semi-supervised medical image segmentation via uncertainty rectified pyramid consistency",
       Medical Image Analysis 2022; the two-dimensional network of its code, SSL4MIS.
    """

    def __init__(self, in_channels: int, out_channels: int, spec: DualUNetSpec) -> None:
        seg, sdf = heads(nn.Conv2d, spec.widths[0], out_channels, spec, size=3)
        super().__init__(seg, sdf, joined=spec.joined)
        widths = spec.widths
        self.stride = 2 ** (len(widths) - 1)
        self.down = nn.ModuleList(
            _Block(inputs, width, dropout)
            for inputs, width, dropout in zip((in_channels, *widths[:-1]), widths, spec.dropouts, strict=True)
        )
        self.narrow = nn.ModuleList(nn.Conv2d(below, width, 1) for width, below in pairwise(widths))
        self.up = nn.ModuleList(_Block(2 * width, width, 0) for width in widths[:-1])

    def features(self, x: Tensor) -> Tensor:
        """Return features (B, C, H, W) for images (B, in_channels, H, W); H and W are multiples of ``stride``.

        Raises
        ------
        MethodError
            If they are not.
        """
        check_size(x, self.stride)
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for level in reversed(range(len(self.up))):
            x = functional.interpolate(self.narrow[level](x), scale_factor=2, mode="bilinear", align_corners=True)
            x = self.up[level](torch.cat((skips[level], x), dim=1))
        return x
