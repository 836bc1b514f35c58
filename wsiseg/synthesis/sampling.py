"""New images of a trained GAN, with the masks that they were made from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

from wsiseg.synthesis.pyramid import as_masks, as_pixels, draws, lifted, noise_like

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wsiseg.synthesis.gan_files import Gan

NoiseScales: TypeAlias = Literal["ends", "all"]


@torch.inference_mode()
def sample(
    gan: Gan, labels: NDArray[np.int32], *, seed: int, index: int, noise: NoiseScales = "ends"
) -> NDArray[np.uint8]:
    """Return a new image of the nuclei in a label map.

    Parameters
    ----------
    gan
        On the device that is to be used.
    labels
        int32 (S, S); what is not 0 becomes nuclei. S may differ from the side of the patch.
    seed, index
        Decide the noise: on one device the same give the same image, whichever others are made.
    noise
        Scales that get noise: ``ends``, the lowest and the highest, as in training; or ``all``, as the released code
        samples, for more variation.

    Returns
    -------
    NDArray[np.uint8]
        RGB (S, S, 3).
    """
    masks = as_masks(labels[None]).to(gan.star.device)
    rng = draws(seed, index)
    side_px = labels.shape[0]
    scales = [replace(scale, side_px=round(scale.side_px * side_px / gan.scales[-1].side_px)) for scale in gan.scales]
    noises = [
        noise_like(masks.new_empty((1, 3, scale.side_px, scale.side_px)), rng, is_grey=place == 0)
        if noise == "all" or place in (0, len(scales) - 1)
        else None
        for place, scale in enumerate(scales)
    ]
    image: NDArray[np.uint8] = as_pixels(lifted(scales, masks, side_px, noises))[0]
    return image


@torch.inference_mode()
def rebuilt(gan: Gan) -> NDArray[np.uint8]:
    """Return the patch as the GAN makes it from its own labels, RGB (S, S, 3)."""
    masks = as_masks(gan.example.labels[None]).to(gan.star.device)
    image = lifted(gan.scales, masks, gan.scales[-1].side_px, [gan.star, *[None] * (len(gan.scales) - 1)])
    pixels: NDArray[np.uint8] = as_pixels(image)[0]
    return pixels
