"""ResNet-38 with dilated last stages: a wide residual network that keeps an eighth of the resolution.

Modules carry the names of the published weights, so that these can be loaded.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final

from torch import Tensor, nn
from torch.nn import functional

from wsiseg.nets.taps import TapClassifier

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsiseg.nets.taps import Taps

_TO_FIRST: Final = ("b2", "b2_1", "b2_2", "b3", "b3_1", "b3_2", "b4", "b4_1", "b4_2", "b4_3", "b4_4", "b4_5")
_TO_SECOND: Final = ("b5", "b5_1", "b5_2")
_TO_THIRD: Final = ("b6", "b7")
_EARLY: Final = ("conv1a", "b2", "b2_1", "b2_2")


class _Residual(nn.Module):
    """Two 3 × 3 convolutions, each after its norm and rectifier, beside a shortcut."""

    def __init__(
        self, inputs: int, middle: int, outputs: int, *, stride: int = 1, dilations: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        first, second = dilations
        self.bn_branch2a = nn.BatchNorm2d(inputs)
        self.conv_branch2a = nn.Conv2d(inputs, middle, 3, stride=stride, padding=first, dilation=first, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(middle)
        self.conv_branch2b1 = nn.Conv2d(middle, outputs, 3, padding=second, dilation=second, bias=False)
        self.is_plain = inputs == outputs and stride == 1
        if not self.is_plain:
            self.conv_branch1 = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = functional.relu(self.bn_branch2a(x), inplace=True)
        shortcut = x if self.is_plain else self.conv_branch1(active)
        branch = functional.relu(self.bn_branch2b1(self.conv_branch2a(active)), inplace=True)
        y: Tensor = shortcut + self.conv_branch2b1(branch)
        return y


class _Bottleneck(nn.Module):
    """A dilated 3 × 3 convolution between two of size 1, with dropout of channels, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, *, dilation: int, dropout: float) -> None:
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(inputs)
        self.conv_branch2a = nn.Conv2d(inputs, outputs // 4, 1, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(outputs // 4)
        self.conv_branch2b1 = nn.Conv2d(outputs // 4, outputs // 2, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn_branch2b2 = nn.BatchNorm2d(outputs // 2)
        self.conv_branch2b2 = nn.Conv2d(outputs // 2, outputs, 1, bias=False)
        self.conv_branch1 = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        active = functional.relu(self.bn_branch2a(x), inplace=True)
        branch = self.dropout(functional.relu(self.bn_branch2b1(self.conv_branch2a(active)), inplace=True))
        branch = self.dropout(functional.relu(self.bn_branch2b2(self.conv_branch2b1(branch)), inplace=True))
        y: Tensor = self.conv_branch1(active) + self.conv_branch2b2(branch)
        return y


class ResNet38d(TapClassifier):
    """ResNet-38d as a classifier with taps ``b4_5``, ``b5_2`` and ``bn7``.

    Parameters
    ----------
    num_classes
        Classes that an image may show.
    width
        Channels of the first layer; all others are multiples of it.

    References
    ----------
    .. [1] Wu et al., "Wider or Deeper: Revisiting the ResNet Model for Visual Recognition",
       Pattern Recognition 2019.
    .. [2] Ahn and Kwak, "Learning Pixel-level Semantic Affinity with Image-level Supervision
       for Weakly Supervised Semantic Segmentation", CVPR 2018.
    """

    tap_names = ("b4_5", "b5_2", "bn7")
    stride = 8

    def __init__(self, num_classes: int, *, width: int = 64) -> None:
        super().__init__(64 * width, num_classes)
        self.conv1a = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self._add_stage("b2", width, 2 * width, repeats=2)
        self._add_stage("b3", 2 * width, 4 * width, repeats=2)
        self._add_stage("b4", 4 * width, 8 * width, repeats=5)
        # From here on the resolution stays, and convolutions widen instead.
        self.b5 = _Residual(8 * width, 8 * width, 16 * width, dilations=(1, 2))
        self.b5_1 = _Residual(16 * width, 8 * width, 16 * width, dilations=(2, 2))
        self.b5_2 = _Residual(16 * width, 8 * width, 16 * width, dilations=(2, 2))
        self.b6 = _Bottleneck(16 * width, 32 * width, dilation=4, dropout=0.3)
        self.b7 = _Bottleneck(32 * width, 64 * width, dilation=4, dropout=0.5)
        self.bn7 = nn.BatchNorm2d(64 * width)

    def taps(self, images: Tensor) -> Taps:
        """Return the output of ``b4_5`` and ``b5_2`` as it is and that of ``bn7`` rectified; see `TapClassifier`."""
        first = self._through(_TO_FIRST, self.conv1a(images))
        second = self._through(_TO_SECOND, first)
        third = functional.relu(self.bn7(self._through(_TO_THIRD, second)), inplace=True)
        return first, second, third

    def early_parameters(self) -> Iterable[nn.Parameter]:
        """Return the parameters down to half the resolution."""
        return chain.from_iterable(self.get_submodule(name).parameters() for name in _EARLY)

    def _add_stage(self, name: str, inputs: int, outputs: int, *, repeats: int) -> None:
        self.add_module(name, _Residual(inputs, outputs, outputs, stride=2))
        for n in range(1, repeats + 1):
            self.add_module(f"{name}_{n}", _Residual(outputs, outputs, outputs))

    def _through(self, names: Iterable[str], x: Tensor) -> Tensor:
        for name in names:
            x = self.get_submodule(name)(x)
        return x
