"""DeepLabV3+: deep features are seen at several ranges and sharpened by shallow ones.

Modules carry the names of the common PyTorch implementation, so that its weights can be loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsiseg.errors import MethodError
from wsiseg.nets.encoders import Encoder, no_weights

if TYPE_CHECKING:
    from wsiseg.nets.encoders import Weights

OutputStride = Literal[8, 16]

RESNET101: Final = "resnet101"
# Channels of the features of pyramid and decoder.
FEATURES: Final = 256
_NARROW: Final = 48
_RATES: Final = {16: (1, 6, 12, 18), 8: (1, 12, 24, 36)}
# Dilation of the first, second and third block of the last stage, in units of that of the stage.
_MULTI_GRID: Final = (1, 2, 4)
_LOW_STRIDE: Final = 4
# Last layers of the decoder: a dropout and the classifier of single pixels.
_CLASSIFIER: Final = 2


class ResNet101(nn.Module):
    """ResNet-101 without its classifier, with dilated convolutions instead of its last strides.

    Parameters
    ----------
    output_stride
        Pixels of the image per position of the deep features.
    weights
        None for random ones; ``imagenet`` downloads trained ones.

    Notes
    -----
    The blocks of the last stage are dilated by 2, 4 and 8 at output stride 16, and by 4, 8 and 16 at output stride 8:
    the multi-grid of [2]_ at both. Networks without a decoder often have 4 in all three blocks instead.

    References
    ----------
    .. [1] He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
    .. [2] Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation",
       arXiv 1706.05587.
    """

    low_channels: Final = 256
    deep_channels: Final = 2048

    def __init__(self, output_stride: OutputStride = 16, *, weights: Weights | None = None) -> None:
        super().__init__()
        # Takes seconds to import, and other backbones do without.
        from torchvision.models import ResNet101_Weights, resnet101

        trained = None if weights is None else ResNet101_Weights.IMAGENET1K_V1
        dilated = output_stride == 8  # noqa: PLR2004 - then two stages keep the resolution
        try:
            net = resnet101(weights=trained, replace_stride_with_dilation=[False, dilated, True])
        except OSError as error:
            raise no_weights(RESNET101, error) from error
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        rate = 32 // output_stride
        _dilate(self.layer3, (rate // 2,) * len(self.layer3))
        _dilate(self.layer4, tuple(rate * unit for unit in _MULTI_GRID))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features at a quarter of the resolution and deep ones."""
        low: Tensor = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images)))))
        return low, self.layer4(self.layer3(self.layer2(low)))


class EncoderBackbone(nn.Module):
    """An encoder of timm as a backbone.

    Parameters
    ----------
    name
        Of a model in timm.
    output_stride
        Pixels of the image per position of the deep features, where the encoder can.
    weights
        None for random ones; ``imagenet`` downloads trained ones.

    Raises
    ------
    MethodError
        If there is no such encoder, it has no features at a quarter of the resolution, or its
        weights cannot be had.
    """

    def __init__(self, name: str, output_stride: OutputStride = 16, *, weights: Weights | None = None) -> None:
        super().__init__()
        self.encoder = Encoder(name, output_stride=output_stride, weights=weights)
        if _LOW_STRIDE not in self.encoder.strides:
            raise MethodError(
                f"the encoder {name} has no features at a quarter of the resolution",
                mend="Choose another encoder, such as resnet18",
            )
        self._low = self.encoder.strides.index(_LOW_STRIDE)
        self.low_channels: int = self.encoder.channels[self._low]
        self.deep_channels: int = self.encoder.channels[-1]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features at a quarter of the resolution and deep ones."""
        features = self.encoder(images)
        return features[self._low], features[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What the decoder makes of B images of H × W pixels.

    Parameters
    ----------
    features
        (B, 256, H / 4, W / 4), rounded up.
    coarse
        (B, num_classes, H / 4, W / 4): logits as they follow from the features.
    logits
        (B, num_classes, H, W): the same, interpolated.
    """

    features: Tensor
    coarse: Tensor
    logits: Tensor


class DeepLabV3Plus(nn.Module):
    """DeepLabV3+ on a backbone.

    Parameters
    ----------
    backbone
        Gives shallow features at a quarter of the resolution, and deep ones.
    num_classes
        Channels of the output, which is raw.
    output_stride
        That of the backbone; decides how far apart the dilated convolutions look.

    Notes
    -----
    In training a batch has two images or more: features of the whole image are normalised over it.

    References
    ----------
    .. [1] Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image
       Segmentation", ECCV 2018.
    """

    def __init__(
        self, backbone: ResNet101 | EncoderBackbone, num_classes: int, *, output_stride: OutputStride = 16
    ) -> None:
        super().__init__()
        self.stride: int = output_stride
        self.backbone = backbone
        self.aspp = _Pyramid(backbone.deep_channels, _RATES[output_stride])
        self.decoder = _Decoder(backbone.low_channels, num_classes)
        for layer in (*self.aspp.modules(), *self.decoder.modules()):
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes, H, W) for images (B, 3, H, W) of any size."""
        low, deep = self.backbone(images)
        return _resized(self.decoder(low, self.aspp(deep)), images.shape[-2:])

    def decoded(self, images: Tensor) -> Decoded:
        """Return logits for images (B, 3, H, W) of any size, and what they are made of."""
        low, deep = self.backbone(images)
        features = self.decoder.features(low, self.aspp(deep))
        coarse = self.decoder.classified(features)
        return Decoded(features=features, coarse=coarse, logits=_resized(coarse, images.shape[-2:]))


class _Branch(nn.Module):
    """One range of the pyramid."""

    def __init__(self, inputs: int, rate: int) -> None:
        super().__init__()
        size, padding = (1, 0) if rate == 1 else (3, rate)
        self.atrous_conv = nn.Conv2d(inputs, FEATURES, size, padding=padding, dilation=rate, bias=False)
        self.bn = nn.BatchNorm2d(FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.atrous_conv(x)), inplace=True)


class _Pyramid(nn.Module):
    """Four ranges of convolutions and the mean of the image, side by side."""

    def __init__(self, inputs: int, rates: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.aspp1, self.aspp2, self.aspp3, self.aspp4 = (_Branch(inputs, rate) for rate in rates)
        self.global_avg_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, FEATURES, 1, bias=False), nn.BatchNorm2d(FEATURES), nn.ReLU()
        )
        self.conv1 = nn.Conv2d(5 * FEATURES, FEATURES, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(FEATURES)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        whole = _resized(self.global_avg_pool(x), x.shape[-2:])
        ranges = (self.aspp1(x), self.aspp2(x), self.aspp3(x), self.aspp4(x), whole)
        y: Tensor = self.dropout(functional.relu(self.bn1(self.conv1(torch.cat(ranges, dim=1))), inplace=True))
        return y


class _Decoder(nn.Module):
    """Deep features at a quarter of the resolution, beside shallow ones."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, _NARROW, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_NARROW)
        self.last_conv = nn.Sequential(
            nn.Conv2d(FEATURES + _NARROW, FEATURES, 3, padding=1, bias=False),
            nn.BatchNorm2d(FEATURES),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Conv2d(FEATURES, FEATURES, 3, padding=1, bias=False),
            nn.BatchNorm2d(FEATURES),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(FEATURES, num_classes, 1),
        )

    def forward(self, low: Tensor, deep: Tensor) -> Tensor:
        return self.classified(self.features(low, deep))

    def features(self, low: Tensor, deep: Tensor) -> Tensor:
        low = functional.relu(self.bn1(self.conv1(low)), inplace=True)
        y: Tensor = self.last_conv[:-_CLASSIFIER](torch.cat((_resized(deep, low.shape[-2:]), low), dim=1))
        return y

    def classified(self, features: Tensor) -> Tensor:
        y: Tensor = self.last_conv[-_CLASSIFIER:](features)
        return y


def build_deeplab(
    backbone: str, num_classes: int, *, output_stride: OutputStride = 16, weights: Weights | None = None
) -> DeepLabV3Plus:
    """Return a DeepLabV3+.

    Parameters
    ----------
    backbone
        ``resnet101`` with dilations that grow within the last stage, as published, or an encoder of timm.
    num_classes
        Channels of the output.
    output_stride
        Pixels of the image per position of the deep features, where the backbone can.
    weights
        Of the backbone: None for random ones; ``imagenet`` downloads trained ones.

    Raises
    ------
    MethodError
        If the backbone is unknown or does not suit, or its weights cannot be had.
    """
    features: ResNet101 | EncoderBackbone
    if backbone == RESNET101:
        features = ResNet101(output_stride, weights=weights)
    else:
        features = EncoderBackbone(backbone, output_stride, weights=weights)
    return DeepLabV3Plus(features, num_classes, output_stride=output_stride)


def _dilate(stage: nn.Sequential, dilations: tuple[int, ...]) -> None:
    wide = [layer for layer in stage.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)]
    for layer, dilation in zip(wide, dilations, strict=True):
        layer.dilation = layer.padding = (dilation, dilation)


def _resized(x: Tensor, size: torch.Size) -> Tensor:
    return functional.interpolate(x, size=list(size), mode="bilinear", align_corners=True)
