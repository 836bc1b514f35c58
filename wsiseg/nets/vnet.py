"""V-Net: a 3D network whose levels are added, for one or two tasks.

Shapes: B volumes, C channels, D × H × W voxels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field
from torch import nn

from wsiseg.nets.dual_task import DualTaskNet, DualTaskSpec, check_size, heads

if TYPE_CHECKING:
    from torch import Tensor

VNET: Final = "vnet"
# Convolutions at the first levels; deeper ones have as many as the last.
_UNITS: Final = (1, 2, 3)


class VNetSpec(DualTaskSpec):
    """A V-Net for one or two tasks.

    Parameters
    ----------
    arch
        ``vnet``.
    dropout
        Part of the channels that are dropped behind the deepest level and before the heads.
    """

    arch: Literal["vnet"] = VNET
    dropout: float = Field(default=0.5, ge=0, lt=1)


class _Unit(nn.Sequential):
    """A convolution, normalised over the batch and rectified."""

    def __init__(self, conv: nn.Conv3d | nn.ConvTranspose3d) -> None:
        super().__init__(conv, nn.BatchNorm3d(conv.out_channels), nn.ReLU())


class VNet(DualTaskNet):
    """V-Net for volumes, with logits and level sets of the size of the input.

    Parameters
    ----------
    in_channels, out_channels
        Of volumes and of the output, which is raw.
    spec
        The rest; see `VNetSpec`.

    Notes
    -----
    As in the code for semi-supervised learning that goes by this name, stages have no residuals of their own, and
    features of a level are added to those from below.

    References
    ----------
    .. [1] Milletari et al., "V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image Segmentation",
       3DV 2016.
    .. [2] Luo et al., "Semi-supervised Medical Image Segmentation through Dual-task Consistency", AAAI 2021.
    """

    def __init__(self, in_channels: int, out_channels: int, spec: VNetSpec) -> None:
        seg, sdf = heads(nn.Conv3d, spec.widths[0], out_channels, spec, size=1)
        super().__init__(seg, sdf, joined=spec.joined)
        widths = spec.widths
        self.stride = 2 ** (len(widths) - 1)
        units = [_UNITS[min(level, len(_UNITS) - 1)] for level in range(len(widths))]
        self.down = nn.ModuleList(
            _stage(in_channels if level == 0 else width, width, count)
            for level, (width, count) in enumerate(zip(widths, units, strict=True))
        )
        self.shrink = nn.ModuleList(_Unit(nn.Conv3d(width, below, 2, stride=2)) for width, below in pairwise(widths))
        self.grow = nn.ModuleList(
            _Unit(nn.ConvTranspose3d(below, width, 2, stride=2)) for width, below in pairwise(widths)
        )
        self.up = nn.ModuleList(
            _stage(width, width, count) for width, count in zip(widths[:-1], units[:-1], strict=True)
        )
        self.drop = nn.Dropout3d(spec.dropout)

    def features(self, x: Tensor) -> Tensor:
        """Return features (B, C, D, H, W) for volumes (B, in_channels, D, H, W); sides are multiples of ``stride``.

        Raises
        ------
        MethodError
            If they are not.
        """
        check_size(x, self.stride)
        skips: list[Tensor] = []
        for level, stage in enumerate(self.down):
            x = stage(self.shrink[level - 1](x) if level else x)
            skips.append(x)
        x = self.drop(x)
        for level in reversed(range(len(self.up))):
            x = self.up[level](skips[level] + self.grow[level](x))
        y: Tensor = self.drop(x)
        return y


def _stage(inputs: int, width: int, count: int) -> nn.Sequential:
    return nn.Sequential(
        *(_Unit(nn.Conv3d(inputs if number == 0 else width, width, 3, padding=1)) for number in range(count))
    )
