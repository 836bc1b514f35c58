"""PG-FANet: what a first stage takes for foreground guides a second one, and features of both are put together.

Shapes: B images, C classes, H × W pixels.
"""

from __future__ import annotations

from typing import Final, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from wsiseg.config import Config
from wsiseg.nets.dilated_resnet import BLOCKS, DilatedResNet, DilatedStages, shrunk

PGFANET: Final = "pgfanet"
# Part of the highest activation beyond which pixels are dropped, drawn anew for each batch.
_DROP_BEYOND: Final = (0.7, 0.9)
# Stages whose features are put together at all resolutions; the deepest comes in separately.
_SCALES: Final = 3


class FeatureNoise(Config):
    """How features of a student are disturbed.

    Parameters
    ----------
    dropout
        Chance that a channel before the last layer is left out.
    drop_chance
        Chance of a batch that the most active pixels of the first stage are left out.
    noise_chance
        Chance of a batch that the first stage is multiplied by noise.
    noise
        Largest part by which it grows or shrinks then.
    """

    dropout: float = Field(default=0.5, ge=0, lt=1)
    drop_chance: float = Field(default=0.5, ge=0, le=1)
    noise_chance: float = Field(default=0.5, ge=0, le=1)
    noise: float = Field(default=0.3, ge=0)


class PGFANetSpec(Config):
    """Settings of a PG-FANet.

    Parameters
    ----------
    arch
        ``pgfanet``.
    encoder
        Of both stages. ``resnet34`` as published; ``resnet18`` needs half the time.
    width
        Channels of its first layer, of which those of all others are multiples; trained weights have 64.
    rates
        Dilations of the last convolutions of each stage. The code that the authors released returns from
        within a loop, so that only 6 and 12 are ever used there.
    features
        Channels in which features of all stages are put together.
    feature_noise
        How features of a student are disturbed.
    """

    arch: Literal["pgfanet"] = PGFANET
    encoder: Literal["resnet18", "resnet34"] = "resnet34"
    width: int = Field(default=64, gt=0)
    rates: tuple[int, ...] = Field(default=(6, 12, 18, 24), min_length=1)
    features: int = Field(default=32, gt=0)
    feature_noise: FeatureNoise = FeatureNoise()


class PGFANet(nn.Module):
    """Two stages of a dilated ResNet, with the first one's foreground as a guide between them.

    Parameters
    ----------
    encoder
        Of the first stage.
    encoder2
        Of the second stage; takes features as wide as the stem of the first.
    num_classes
        Channels of the output, which is raw. Class 0 is the background.
    rates, features, feature_noise
        See `PGFANetSpec`.

    References
    ----------
    .. [1] Jin et al., "Inter- and intra-uncertainty based feature aggregation model for semi-supervised
       histopathology image segmentation", Expert Systems with Applications 238, 2024.
    """

    stride: Final = 8

    def __init__(
        self,
        encoder: DilatedResNet,
        encoder2: DilatedStages,
        num_classes: int,
        *,
        rates: tuple[int, ...] = (6, 12, 18, 24),
        features: int = 32,
        feature_noise: FeatureNoise | None = None,
    ) -> None:
        super().__init__()
        self._noise = feature_noise or FeatureNoise()
        deep = encoder.channels[-1]
        self.encoder, self.encoder2 = encoder, encoder2
        self.head = _Pyramid(deep, num_classes, rates)
        self.head2 = _Pyramid(deep, num_classes, rates)
        self.aux = nn.Conv2d(num_classes, num_classes, 1)
        width = encoder.channels[0]
        self.enhance = nn.Conv2d(width + 1, width, 1, bias=False)
        scales = encoder.channels[:_SCALES]
        self.scales = nn.ModuleList(_Narrow(channels, features) for channels in scales)
        self.scales2 = nn.ModuleList(_Narrow(channels, features) for channels in scales)
        self.fuse = _Narrow(features, features)
        self.deep = _Narrow(deep, features)
        self.deep2 = _Narrow(deep, features)
        self.out = nn.Conv2d(features + num_classes, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, C, H, W) for images (B, 3, H, W) of any size."""
        return self.both(images, perturb=False)[0]

    def both(self, images: Tensor, *, perturb: bool) -> tuple[Tensor, Tensor]:
        """Return the logits of the second and of the first stage.

        Parameters
        ----------
        images
            float (B, 3, H, W), normalised.
        perturb
            Disturb features, as those of a student that learns from images without labels. Draws on torch's
            random state, whether or not the network is in training mode.

        Returns
        -------
        tuple[Tensor, Tensor]
            float (B, C, H, W) each. The guide between the stages has no gradient.
        """
        size = images.shape[-2:]
        stem = self.encoder.stem(images)
        early = self.encoder.staged(shrunk(stem))
        coarse = self.head(early[-1])
        late = self.encoder2.staged(shrunk(self.enhance(torch.cat((stem, _foreground(coarse, stem)), dim=1))))
        aux = resized(coarse, size)
        if perturb:
            aux = self._disturbed(aux)
        z = torch.cat((self._joined(early, late), resized(self.head2(late[-1]), early[0].shape[-2:])), dim=1)
        if perturb:
            z = functional.dropout2d(z, self._noise.dropout)
        return resized(self.out(z), size), self.aux(aux)

    def _joined(self, early: tuple[Tensor, ...], late: tuple[Tensor, ...]) -> Tensor:
        """Return features of all scales and of both stages, at the size of the first."""
        size = early[0].shape[-2:]
        sources = [*zip(self.scales, early[:_SCALES], strict=True), *zip(self.scales2, late[:_SCALES], strict=True)]
        scales = torch.stack([resized(narrow(x), size) for narrow, x in sources]).sum(dim=0)
        fused: Tensor = self.fuse(scales)
        return fused + resized(self.deep(early[-1]), size) + resized(self.deep2(late[-1]), size)

    def _disturbed(self, logits: Tensor) -> Tensor:
        """Return logits of the first stage without the most active pixels, with noise, with both or as they are."""
        # Chances are drawn on the CPU: a GPU would be waited for.
        drops, is_noisy = (torch.rand(2) < torch.tensor([self._noise.drop_chance, self._noise.noise_chance])).tolist()
        if drops:
            activity = logits.detach().mean(dim=1, keepdim=True)
            least, most = _DROP_BEYOND
            limit = activity.amax(dim=(2, 3), keepdim=True) * (least + (most - least) * float(torch.rand(())))
            logits = logits * (activity < limit)
        if is_noisy:
            noise = torch.empty_like(logits[0]).uniform_(-self._noise.noise, self._noise.noise)
            logits = logits * (1 + noise)
        return logits


class _Pyramid(nn.Module):
    """The sum of convolutions that look at several ranges."""

    def __init__(self, inputs: int, outputs: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        convs = [nn.Conv2d(inputs, outputs, 3, padding=rate, dilation=rate) for rate in rates]
        for conv in convs:
            nn.init.normal_(conv.weight, std=0.01)
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([conv(x) for conv in self.convs]).sum(dim=0)


class _Narrow(nn.Sequential):
    """A convolution of single pixels, normalised and rectified with a slope for each channel."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.PReLU(outputs))


def resized(x: Tensor, size: torch.Size) -> Tensor:
    """Return maps (B, C, *size)."""
    return functional.interpolate(x, size=list(size), mode="bilinear", align_corners=True)


def build_pgfanet(spec: PGFANetSpec, num_classes: int) -> PGFANet:
    """Return an untrained PG-FANet, whose weights depend on torch's random state alone.

    Parameters
    ----------
    spec
        Its settings.
    num_classes
        Channels of the output.
    """
    blocks = BLOCKS[spec.encoder]
    return PGFANet(
        DilatedResNet(blocks, width=spec.width),
        DilatedStages(blocks, width=spec.width),
        num_classes,
        rates=spec.rates,
        features=spec.features,
        feature_noise=spec.feature_noise,
    )


@torch.no_grad()
def _foreground(coarse: Tensor, stem: Tensor) -> Tensor:
    """Return where the first stage sees any class but the background, 0 or 1, (B, 1, *size of the stem)."""
    is_foreground = resized(coarse, stem.shape[-2:]).argmax(dim=1, keepdim=True) > 0
    return is_foreground.to(stem.dtype)
