"""Scales of a GAN: images and masks at each, and the way up through those that are trained.

Shapes: B images, S × S pixels. Images are RGB in -1 … 1, masks 0 or 1, both float32.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from wsiseg.nets.csingan import Generator

_MIDDLE = 127.5
# What rounding may add to a power before it counts as more.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scale:
    """A scale that is trained, or is being trained.

    Parameters
    ----------
    generator
        Its network.
    side_px
        Side of its images.
    amplitude
        Standard deviation of its noise.
    colours
        (2, 3, 1, 1), the least and the greatest value of each channel in the patch at this scale; what the scale above
        gets, and what is kept of the last one, lies between. Else what is a little beyond gets further beyond at each
        scale, until small dark nuclei are black or green.
    """

    generator: Generator
    side_px: int
    amplitude: float
    colours: Tensor

    def within(self, images: Tensor) -> Tensor:
        """Return images (B, 3, s, s) with each channel clamped to `colours`."""
        return images.clamp(self.colours[0], self.colours[1])


def sides(smallest_px: int, largest_px: int, scales: int) -> tuple[int, ...]:
    """Return the sides of the images of all scales, in a geometric row, rounded up.

    >>> sides(128, 256, 5)
    (128, 153, 182, 216, 256)
    """
    ratio = (smallest_px / largest_px) ** (1 / (scales - 1))
    return tuple(math.ceil(largest_px * ratio**steps - _ROUNDING) for steps in reversed(range(scales)))


def resized(images: Tensor, side_px: int) -> Tensor:
    """Return images (B, 3, S, S) at another size, bicubic without aliases, and clamped to -1 … 1."""
    if images.shape[-1] == side_px:
        return images.clamp(-1, 1)
    return functional.interpolate(
        images, size=(side_px, side_px), mode="bicubic", align_corners=False, antialias=True
    ).clamp(-1, 1)


def colours_of(image: Tensor) -> Tensor:
    """Return the least and the greatest value of each channel of an image (1, 3, S, S), as (2, 3, 1, 1)."""
    return torch.stack((image.amin(dim=(0, 2, 3)), image.amax(dim=(0, 2, 3))))[..., None, None]


def resized_masks(masks: Tensor, side_px: int) -> Tensor:
    """Return masks (B, 1, S, S) at another size; each pixel takes the one under its middle."""
    return functional.interpolate(masks, size=(side_px, side_px), mode="nearest-exact")


def as_images(pixels: NDArray[np.uint8]) -> Tensor:
    """Return RGB uint8 (B, S, S, 3) as images (B, 3, S, S)."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, 1).float() / _MIDDLE - 1


def as_pixels(images: Tensor) -> NDArray[np.uint8]:
    """Return images (B, 3, S, S) as RGB uint8 (B, S, S, 3)."""
    pixels = ((images.clamp(-1, 1) + 1) * _MIDDLE).round().to(torch.uint8).movedim(1, -1)
    array: NDArray[np.uint8] = pixels.contiguous().cpu().numpy()
    return array


def as_masks(labels: NDArray[np.integer]) -> Tensor:
    """Return label maps (B, S, S) as masks (B, 1, S, S) of what is labelled."""
    return torch.from_numpy(labels > 0).unsqueeze(1).float()


def draws(*key: int) -> torch.Generator:
    """Return random numbers that depend on a key alone, on the CPU.

    Training draws by scale and step, so that it goes on after a stop as if there had been none.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def noise_like(images: Tensor, generator: torch.Generator, *, is_grey: bool) -> Tensor:
    """Return Gaussian noise of the shape of images (B, 3, S, S); if `is_grey`, the same in all channels."""
    batch, channels, *size = images.shape
    noise = torch.randn((batch, 1 if is_grey else channels, *size), generator=generator)
    return noise.expand(images.shape).to(images.device)


def lifted(scales: Sequence[Scale], masks: Tensor, side_px: int, noises: Sequence[Tensor | None]) -> Tensor:
    """Return what the lower scales make of masks, at the size of the next, (B, 3, side_px, side_px).

    Parameters
    ----------
    scales
        From the lowest; none gives zeros.
    masks
        (B, 1, S, S) at full size; each scale sees them resized from there.
    side_px
        Side of the next scale.
    noises
        Standard normal noise (B, 3, s, s) for each scale, scaled here; None for none.
    """
    images = masks.new_zeros((len(masks), 3, side_px, side_px))
    for place, (scale, noise) in enumerate(zip(scales, noises, strict=True)):
        coarse = resized(images, scale.side_px) if place else images.new_zeros((len(masks), 3, *[scale.side_px] * 2))
        noisy = coarse if noise is None else coarse + scale.amplitude * noise
        images = scale.within(scale.generator(noisy, coarse, resized_masks(masks, scale.side_px)))
    return resized(images, side_px)
