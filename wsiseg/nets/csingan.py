"""Generator and critics of one scale of CSinGAN, which learns from a single image and its mask.

Shapes: B images, N channels, H × W pixels. Images are RGB in -1 … 1, masks 0 or 1.

References
----------
.. [1] Lou et al., "Which Pixel to Annotate: a Label-Efficient Nuclei Segmentation Framework", IEEE TMI 42(4), 2023.
.. [2] Shaham et al., "SinGAN: Learning a Generative Model from a Single Natural Image", ICCV 2019.
.. [3] Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Norm: TypeAlias = Literal["none", "instance", "batch"]
CriticOutput: TypeAlias = Literal["linear", "relu6"]
# Five unpadded convolutions of 3 × 3 take so much off each side.
HALO_PX: Final = 5
# Of smaller images critics have nothing to say.
SMALLEST_SIDE_PX: Final = 2 * HALO_PX + 1
# Whole image, foreground, background: the order of scores and of views.
VIEWS: Final = ("whole", "foreground", "background")
_CONVOLUTIONS: Final = 5
_SPREAD: Final = 0.02
_LEAK: Final = 0.2


class Generator(nn.Module):
    """Adds detail to an image from the scale below, where a mask says that nuclei are.

    The input is padded by zeros once, so that beyond the border the mask is neither nucleus nor background, and the
    convolutions take the padding off again.

    Parameters
    ----------
    width
        Channels N between the convolutions.
    norm
        ``instance`` sees the same in training and afterwards. ``batch``, as published, keeps running statistics that
        mix random images with reconstructions, and drifts when a scale is frozen. With ``none`` a place looks the same
        however many nuclei there are elsewhere.
    """

    def __init__(self, width: int, *, norm: Norm = "instance") -> None:
        super().__init__()
        hidden = [
            layer
            for channels in (4, *[width] * (_CONVOLUTIONS - 2))
            # No bias where a norm follows, which would take it off.
            for layer in (nn.Conv2d(channels, width, 3, bias=norm == "none"), _norm(norm, width), nn.LeakyReLU(_LEAK))
        ]
        self.body = nn.Sequential(*hidden, nn.Conv2d(width, 3, 3), nn.Tanh())
        _initialise(self)
        if norm == "none":
            _spread_evenly(hidden)

    def forward(self, noisy: Tensor, coarse: Tensor, mask: Tensor) -> Tensor:
        """Return the image at this scale, not clamped.

        Parameters
        ----------
        noisy
            (B, 3, H, W): `coarse` with noise added.
        coarse
            (B, 3, H, W): the image of the scale below at this size, zeros at the lowest scale. The result is what is
            added to it, so that noise comes in only through the network.
        mask
            (B, 1, H, W), 0 or 1.

        Returns
        -------
        Tensor
            (B, 3, H, W).
        """
        seen = functional.pad(torch.cat((noisy, 2 * mask - 1), dim=1), [HALO_PX] * 4)
        detail: Tensor = self.body(seen)
        return detail + coarse


class Critics(nn.Module):
    """The critics of the whole image, of its nuclei and of its background, which share nothing.

    Parameters
    ----------
    width
        Channels N of each between its convolutions.
    norm
        ``batch``, as published, or ``instance``: with either the critic of the whole image does not see its brightness,
        contrast and tint, as each image is measured against itself, and the others see them only against the black
        around, so that colours take long to come right. With ``none`` all see them from the first step; [3] advises
        against batch norm where gradients are penalised.
    output
        ``linear``, or ``relu6`` as published, which bounds scores to 0 … 6 and passes no gradient where they are 0.
    """

    def __init__(self, width: int, *, norm: Norm = "instance", output: CriticOutput = "linear") -> None:
        super().__init__()
        # One network of grouped convolutions would be as good, but takes almost three times as long on a CPU.
        self.parts = nn.ModuleList(_critic(width, norm, output) for _ in VIEWS)
        self._is_batched = norm != "batch"
        _initialise(self)
        if norm == "none":
            _spread_evenly(self.modules())

    def forward(self, views: Tensor) -> Tensor:
        """Return a map of scores for each critic, (B, 3, H - 10, W - 10), of views (B, 9, H, W); see `VIEWS`."""
        seen = torch.chunk(views, len(VIEWS), dim=1)
        return torch.cat([part(view) for part, view in zip(self.parts, seen, strict=True)], dim=1)

    def compare(self, several: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the scores of several stacks of views, each of which is normalised by itself."""
        if not self._is_batched:
            return [self(views) for views in several]
        scores: Tensor = self(torch.cat(tuple(several)))
        return torch.split(scores, [len(views) for views in several])


def _critic(width: int, norm: Norm, output: CriticOutput) -> nn.Sequential:
    hidden = [
        layer
        for channels in (3, *[width] * (_CONVOLUTIONS - 2))
        for layer in (nn.Conv2d(channels, width, 3, bias=norm == "none"), _norm(norm, width), nn.ReLU6())
    ]
    last: list[nn.Module] = [nn.ReLU6()] if output == "relu6" else []
    return nn.Sequential(*hidden, nn.Conv2d(width, 1, 3), *last)


def _norm(name: Norm, channels: int) -> nn.Module:
    match name:
        case "none":
            return nn.Identity()
        case "instance":
            return nn.InstanceNorm2d(channels, affine=True)
        case "batch":
            return nn.BatchNorm2d(channels)


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, 0.0, _SPREAD)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.InstanceNorm2d | nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, _SPREAD)
            nn.init.zeros_(part.bias)


@torch.no_grad()
def _spread_evenly(layers: Iterable[nn.Module]) -> None:
    """Begin with weights that pass on what they get as strongly as it came, which no norm does for them."""
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, a=_LEAK)
