"""Changes of look that make a network robust to laboratories, scanners and focus.

What changes is drawn per image by NumPy, from a number, and applied to whole batches of tensors on
their device. Geometry is not here: it concerns labels too and is applied where crops are cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from wsiseg.config import Config

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Optical densities of haematoxylin, eosin and their residue in red, green, blue (Ruifrok and Johnston, 2001).
STAINS: Final = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
# From RGB to brightness and two colour differences (YIQ), in which a turn is a change of hue.
YIQ: Final = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


class Augmentation(Config):
    """How far images may change. A value of 0 switches its change off.

    Of volumes only `symmetries`, `brightness`, `contrast` and `noise` may change, the last three as parts of the
    standard deviation of normalised intensities.

    Parameters
    ----------
    symmetries
        Turn and mirror crops, labels included.
    scale
        Crops are up to this fraction larger or smaller than they were.
    stain_strength
        Each stain is up to this fraction stronger or weaker, in optical density.
    stain_tone
        Standard deviation of the change of each stain's own colour, in optical density.
    stain_offset
        Up to this much is added to each channel's optical density, light areas included.
    brightness, contrast, saturation
        Up to these fractions more or less.
    hue
        Up to this turn of the colour circle, in degrees.
    gamma
        Up to this change of the logarithm of the exponent.
    blur_px
        Largest standard deviation of a Gaussian blur, in pixels; applied to half of the images.
    noise
        Largest standard deviation of Gaussian noise, as a fraction of full scale; applied to half of the images.
    """

    symmetries: bool = True
    scale: float = 0.2
    stain_strength: float = 0.25
    stain_tone: float = 0.03
    stain_offset: float = 0.03
    brightness: float = 0.1
    contrast: float = 0.15
    saturation: float = 0.15
    hue: float = 5.0
    gamma: float = 0.1
    blur_px: float = 1.2
    noise: float = 0.03

    @classmethod
    def none(cls) -> Augmentation:
        """Return settings that change nothing."""
        off = {name: 0.0 for name in cls.model_fields if name != "symmetries"}
        return cls.model_validate(off | {"symmetries": False})

    @property
    def changes_look(self) -> bool:
        """Tell whether anything but geometry changes."""
        geometry = {"symmetries", "scale"}
        return any(getattr(self, name) > 0 for name in type(self).model_fields if name not in geometry)


# Per image: a matrix and an offset for optical densities, a matrix for colours, five numbers.
Look = dict[str, "NDArray[np.float32]"]


def draw_scale(settings: Augmentation, rng: np.random.Generator) -> float:
    """Return a random factor of size, as likely above as below 1."""
    widest = np.log1p(settings.scale)
    return float(np.exp(rng.uniform(-widest, widest))) if settings.scale > 0 else 1.0


def draw_look(settings: Augmentation, rng: np.random.Generator) -> Look:
    """Return how one image will look; see `Augmentation`."""
    strength = np.diag(1 + settings.stain_strength * rng.uniform(-1, 1, 3))
    tones = STAINS + settings.stain_tone * rng.standard_normal((3, 3))
    turn = np.deg2rad(settings.hue * rng.uniform(-1, 1))
    saturation = 1 + settings.saturation * rng.uniform(-1, 1)
    cosine, sine = saturation * np.cos(turn), saturation * np.sin(turn)
    rotation = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    numbers = (
        1 + settings.contrast * rng.uniform(-1, 1),
        1 + settings.brightness * rng.uniform(-1, 1),
        np.exp(settings.gamma * rng.uniform(-1, 1)),
        settings.blur_px * max(0.0, rng.uniform(-1, 1)),
        settings.noise * max(0.0, rng.uniform(-1, 1)),
    )
    return {
        # Rows of densities from the right: into stains, changed, and back by their new tones.
        "density": (np.linalg.inv(STAINS) @ strength @ tones).astype(np.float32),
        "offset": (settings.stain_offset * rng.uniform(-1, 1, 3)).astype(np.float32),
        "colour": (np.linalg.inv(YIQ) @ rotation @ YIQ).T.astype(np.float32),
        "numbers": np.array(numbers, dtype=np.float32),
    }


def change_look(images: Tensor, look: dict[str, Tensor], *, seed: int) -> Tensor:
    """Return images that look as drawn.

    Parameters
    ----------
    images
        uint8 RGB (B, 3, H, W).
    look
        What `draw_look` gave for each, stacked, on the same device.
    seed
        Of the noise.

    Returns
    -------
    Tensor
        uint8 RGB of the same shape.
    """
    contrast, brightness, gamma, blur, noise = (look["numbers"][:, n].view(-1, 1, 1, 1) for n in range(5))
    # One grey level is added so that black has a density.
    density = -torch.log((images.float() + 1) / 256)
    density = torch.einsum("bchw,bcd->bdhw", density, look["density"]) + look["offset"][:, :, None, None]
    image = torch.exp(-density.clamp(min=0))
    image = torch.einsum("bchw,bcd->bdhw", image, look["colour"])
    middle = image.mean(dim=(1, 2, 3), keepdim=True)
    image = ((image - middle) * contrast + middle) * brightness
    image = image.clamp(0, 1) ** gamma
    blurred = torch.nonzero(blur.flatten() > 0).flatten()
    if len(blurred):
        image[blurred] = _blur(image[blurred], blur.flatten()[blurred])
    generator = torch.Generator(images.device).manual_seed(seed)
    if bool((noise > 0).any()):
        image = image + noise * torch.randn(image.shape, generator=generator, device=images.device)
    return image.clamp(0, 1).mul(255).round().to(torch.uint8)


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Return images (B, C, H, W) blurred by a Gaussian of its own standard deviation `sigma` (B,) each."""
    count, channels, height, width = images.shape
    radius = min(4, height - 1, width - 1)
    steps = torch.arange(-radius, radius + 1, device=images.device)
    kernel = torch.exp(-0.5 * (steps / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    flat = functional.pad(images.reshape(1, count * channels, height, width), (radius,) * 4, mode="reflect")
    flat = functional.conv2d(flat, kernel[:, None, None, :], groups=count * channels)
    flat = functional.conv2d(flat, kernel[:, None, :, None], groups=count * channels)
    return flat.reshape(images.shape)
