"""An encoder with a main decoder and auxiliary ones, which see disturbed copies of its features.

Shapes: B images, C classes, H × W pixels, h × w positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from wsiseg.config import Config
from wsiseg.nets.dilated_resnet import BLOCKS, DilatedResNet, shrunk
from wsiseg.nets.pgfanet import resized

if TYPE_CHECKING:
    from collections.abc import Sequence

HCE: Final = "hce"
# Part of the highest activity beyond which positions are dropped, drawn anew each time.
_DROP_BEYOND: Final = (0.7, 0.9)
_DISTURBANCES: Final = 3


class HCESpec(Config):
    """Settings of the network.

    Parameters
    ----------
    arch
        ``hce``.
    encoder
        ``resnet34`` or ``resnet18``.
    width
        Channels of its first layer, of which those of all others are multiples; trained weights have 64.
    features
        Channels of a decoder.
    decoders
        Auxiliary ones.
    noise
        Largest part by which features are made larger or smaller.
    dropout
        Chance that a channel of features is left out.
    """

    arch: Literal["hce"] = HCE
    encoder: Literal["resnet18", "resnet34"] = "resnet34"
    width: int = Field(default=64, gt=0)
    features: int = Field(default=32, gt=0)
    decoders: int = Field(default=3, gt=0)
    noise: float = Field(default=0.3, ge=0)
    dropout: float = Field(default=0.5, ge=0, lt=1)


class HCENet(nn.Module):
    """A network with several opinions of one image; the main one is what it predicts.

    Parameters
    ----------
    spec
        Its settings.
    num_classes
        Channels of the output, which is raw.

    References
    ----------
    .. [1] Jin et al., "Semi-supervised Histological Image Segmentation via Hierarchical Consistency Enforcement",
       MICCAI 2022. The decoders are chosen here.
    """

    stride: Final = 8

    def __init__(self, spec: HCESpec, num_classes: int) -> None:
        super().__init__()
        self._spec = spec
        self.encoder = DilatedResNet(BLOCKS[spec.encoder], width=spec.width)
        self.decoder = _Decoder(self.encoder.channels, spec.features, num_classes)
        self.others = nn.ModuleList(
            _Decoder(self.encoder.channels, spec.features, num_classes) for _ in range(spec.decoders)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of the main decoder for images (B, 3, H, W) of any size."""
        logits: Tensor = self.decoder(self._encoded(images), images.shape[-2:])
        return logits

    def opinions(self, images: Tensor, *, perturb: bool) -> list[Tensor]:
        """Return the logits (B, C, H, W) of all decoders, the main one first.

        Parameters
        ----------
        images
            float (B, 3, H, W), normalised.
        perturb
            Give each auxiliary decoder features that are disturbed in a way of its own: noise, without the most
            active positions, or without some channels. Draws on torch's random state.
        """
        features, size = self._encoded(images), images.shape[-2:]
        return [
            self.decoder(features, size),
            *(other(self._disturbed(features) if perturb else features, size) for other in self.others),
        ]

    def _encoded(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.encoder.staged(shrunk(self.encoder.stem(images)))

    def _disturbed(self, features: Sequence[Tensor]) -> list[Tensor]:
        # Drawn on the CPU: a GPU would be waited for.
        kind, share = int(torch.randint(_DISTURBANCES, ())), float(torch.rand(()))
        if kind == 0:
            noise = self._spec.noise
            return [x * (1 + torch.empty_like(x[0]).uniform_(-noise, noise)) for x in features]
        if kind == 1:
            least, most = _DROP_BEYOND
            return [_without_active(x, least + (most - least) * share) for x in features]
        return [functional.dropout2d(x, self._spec.dropout) for x in features]


class _Decoder(nn.Module):
    """Features of all stages at the size of the first, narrowed and added up."""

    def __init__(self, channels: Sequence[int], features: int, num_classes: int) -> None:
        super().__init__()
        self.narrow = nn.ModuleList(_block(inputs, features, size=1) for inputs in channels)
        self.fuse = _block(features, features, size=3)
        self.out = nn.Conv2d(features, num_classes, 1)

    def forward(self, features: Sequence[Tensor], size: torch.Size) -> Tensor:
        first = features[0].shape[-2:]
        parts = [resized(narrow(x), first) for narrow, x in zip(self.narrow, features, strict=True)]
        return resized(self.out(self.fuse(torch.stack(parts).sum(dim=0))), size)


def _block(inputs: int, outputs: int, *, size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _without_active(x: Tensor, share: float) -> Tensor:
    """Return features without the positions whose mean activity exceeds a share of the highest of their image."""
    activity = x.detach().mean(dim=1, keepdim=True)
    return x * (activity < activity.amax(dim=(2, 3), keepdim=True) * share)
