"""ResNet-18 and ResNet-34 whose last stages dilate their convolutions instead of shrinking the features.

Modules carry the names of torchvision, so that its weights can be loaded.
Shapes: B images, H × W pixels, h × w positions; h is H / 8, rounded up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

# Residual blocks of each stage.
BLOCKS: Final = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
# Of each stage: the stride of its first block, the dilation of the first convolution and that of all others.
_STAGES: Final = ((1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 4))


class _BasicBlock(nn.Module):
    """Two 3 × 3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, dilations: tuple[int, int]) -> None:
        super().__init__()
        first, second = dilations
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=first, dilation=first, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=second, dilation=second, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if inputs != outputs or stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)), inplace=True)))
        return functional.relu(y + shortcut, inplace=True)


class DilatedStages(nn.Module):
    """The four stages of residual blocks, which make features of an eighth of the resolution.

    Strides of the third and fourth stage are 1, and their convolutions look 2 and 4 times as far; the
    first convolution of each still looks as far as the stage before.

    Parameters
    ----------
    blocks
        Residual blocks of each stage; see `BLOCKS`.
    width
        Channels of the input and of the first stage; each later stage has twice those of the one before.

    Attributes
    ----------
    channels
        Of the features of the stages.

    References
    ----------
    .. [1] He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
    .. [2] Yu et al., "Dilated Residual Networks", CVPR 2017.
    """

    def __init__(self, blocks: Sequence[int], *, width: int = 64) -> None:
        super().__init__()
        self.channels: tuple[int, ...] = tuple(width * 2**stage for stage in range(len(_STAGES)))
        inputs = (width, *self.channels[:-1])
        stages = [
            _stage(*sizes, repeats=repeats, stride=stride, dilations=(first, others))
            for *sizes, repeats, (stride, first, others) in zip(inputs, self.channels, blocks, _STAGES, strict=True)
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def staged(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the features of all stages for an input (B, width, H / 4, W / 4).

        The first has the size of the input; the others are (B, channels, h, w).
        """
        first = self.layer1(x)
        second = self.layer2(first)
        third = self.layer3(second)
        return first, second, third, self.layer4(third)


class DilatedResNet(DilatedStages):
    """The stages after the usual first layers, from images on; see `DilatedStages`."""

    def __init__(self, blocks: Sequence[int], *, width: int = 64) -> None:
        super().__init__(blocks, width=width)
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")

    def stem(self, images: Tensor) -> Tensor:
        """Return features (B, width, H / 2, W / 2), rounded up, of images (B, 3, H, W)."""
        return functional.relu(self.bn1(self.conv1(images)), inplace=True)


def shrunk(x: Tensor) -> Tensor:
    """Return features of the stem as stages take them: at half the size, the largest of 3 × 3 each."""
    return functional.max_pool2d(x, 3, stride=2, padding=1)


def _stage(inputs: int, outputs: int, *, repeats: int, stride: int, dilations: tuple[int, int]) -> nn.Sequential:
    first, others = dilations
    return nn.Sequential(
        _BasicBlock(inputs, outputs, stride=stride, dilations=(first, others)),
        *(_BasicBlock(outputs, outputs, stride=1, dilations=(others, others)) for _ in range(repeats - 1)),
    )
