"""A 3D U-Net with instance normalisation, for one or two tasks.

Shapes: B volumes, C channels, D × H × W voxels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from wsiseg.nets.dual_task import DualTaskNet, DualTaskSpec, check_size, heads

if TYPE_CHECKING:
    from torch import Tensor

UNET3D: Final = "unet3d"


class UNet3dSpec(DualTaskSpec):
    """A 3D U-Net for one or two tasks.

    Parameters
    ----------
    arch
        ``unet3d``.
    dropout
        Part of the activations that are dropped behind the deepest block and before the heads.
    """

    arch: Literal["unet3d"] = UNET3D
    dropout: float = Field(default=0.3, ge=0, lt=1)


class _Block(nn.Sequential):
    """Two 3 × 3 × 3 convolutions, each normalised over the volume and rectified."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv3d(inputs, outputs, 3, padding=1),
            nn.InstanceNorm3d(outputs),
            nn.ReLU(),
            nn.Conv3d(outputs, outputs, 3, padding=1),
            nn.InstanceNorm3d(outputs),
            nn.ReLU(),
        )


class UNet3d(DualTaskNet):
    """U-Net for volumes, with logits and level sets of the size of the input.

    Parameters
    ----------
    in_channels, out_channels
        Of volumes and of the output, which is raw.
    spec
        The rest; see `UNet3dSpec`.

    Notes
    -----
    The released code of [2]_ has one head that is the logits and, under a tanh, the level sets, too. No weights
    please both, so that here each task has its own; without level sets the networks are the same.

    References
    ----------
    .. [1] Çiçek et al., "3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation", MICCAI 2016.
    .. [2] Zhang et al., "Uncertainty-guided mutual consistency learning for semi-supervised medical image
       segmentation", Artificial Intelligence in Medicine 2022.
    """

    def __init__(self, in_channels: int, out_channels: int, spec: UNet3dSpec) -> None:
        seg, sdf = heads(nn.Conv3d, spec.widths[0], out_channels, spec, size=1)
        super().__init__(seg, sdf, joined=spec.joined)
        widths = spec.widths
        self.stride = 2 ** (len(widths) - 1)
        self.down = nn.ModuleList(
            _Block(inputs, width) for inputs, width in zip((in_channels, *widths[:-1]), widths, strict=True)
        )
        self.up = nn.ModuleList(_Block(width + below, width) for width, below in pairwise(widths))
        self.drop = nn.Dropout(spec.dropout)
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight)

    def features(self, x: Tensor) -> Tensor:
        """Return features (B, C, D, H, W) for volumes (B, in_channels, D, H, W).

        Sides are multiples of ``stride``, and one of them is longer, since a single deepest voxel cannot be
        normalised.

        Raises
        ------
        MethodError
            If sides are no multiples.
        """
        check_size(x, self.stride)
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool3d(x, 2) if level else x)
            skips.append(x)
        x = self.drop(x)
        for level in reversed(range(len(self.up))):
            x = functional.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)
            x = self.up[level](torch.cat((skips[level], x), dim=1))
        y: Tensor = self.drop(x)
        return y
