"""Classifiers with taps by the name of their backbone: ResNet-38d, or any encoder of timm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from wsiseg.errors import MethodError
from wsiseg.nets.encoders import Encoder
from wsiseg.nets.resnet38d import ResNet38d
from wsiseg.nets.taps import TapClassifier

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    from wsiseg.nets.encoders import Weights
    from wsiseg.nets.taps import Taps

RESNET38D: Final = "resnet38d"
# Any encoder makes something of images of this size.
_PROBE_PX: Final = 64


class EncoderClassifier(TapClassifier):
    """A classifier with taps after the last three stages of an encoder, the deepest rectified.

    Parameters
    ----------
    encoder
        Maps images to features.
    num_classes
        Classes that an image may show.
    """

    def __init__(self, encoder: Encoder, num_classes: int) -> None:
        super().__init__(encoder.channels[-1], num_classes)
        self.encoder = encoder
        first, second, third = encoder.names[-3:]
        self.tap_names = (first, second, third)
        self.stride = encoder.strides[-1]

    def taps(self, images: Tensor) -> Taps:
        """Return the features of the last three stages, the deepest 0 or more; see `TapClassifier`."""
        first, second, third = self.encoder(images)[-3:]
        # Maps of activation and the attention drawn from them are meant for features that are 0 or more, which those of
        # light encoders are not.
        return first, second, third.relu()

    def early_parameters(self) -> Iterable[nn.Parameter]:
        """Return the parameters that the shallowest features depend on, but for those that are frozen already."""
        parameters = [value for value in self.encoder.parameters() if value.requires_grad]
        probe = torch.zeros(2, 3, _PROBE_PX, _PROBE_PX, device=parameters[0].device)
        # Names of modules differ between encoders; what the features depend on does not need them.
        with torch.enable_grad():
            shallowest = self.encoder(probe)[0].sum()
        if not shallowest.requires_grad:
            return []
        found = torch.autograd.grad(shallowest, parameters, allow_unused=True)
        return [value for value, gradient in zip(parameters, found, strict=True) if gradient is not None]


def build_classifier(
    backbone: str, num_classes: int, *, output_stride: int = 8, weights: Weights | None = None
) -> TapClassifier:
    """Return an untrained classifier of images (B, 3, H, W).

    Parameters
    ----------
    backbone
        ``resnet38d``, or an encoder of timm such as ``resnet18``.
    num_classes
        Classes that an image may show.
    output_stride
        For encoders of timm: pixels of the image per position of the deepest tap, 8 or 16, where
        the encoder can.
    weights
        For encoders of timm: None for random ones; ``imagenet`` downloads trained ones.

    Raises
    ------
    MethodError
        If the backbone is unknown or does not suit, or its weights cannot be had.
    """
    if backbone == RESNET38D:
        if weights is not None:
            raise MethodError(
                "there are no weights of resnet38d to download",
                mend="Pass --init with a file of its weights, or none; --set options.init_segmenter=imagenet begins "
                "the segmentation network with downloaded ones all the same",
            )
        return ResNet38d(num_classes)
    return EncoderClassifier(Encoder(backbone, output_stride=output_stride, weights=weights), num_classes)
