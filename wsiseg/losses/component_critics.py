"""Adversarial losses of images whose nuclei and background have critics of their own.

Shapes: B images, H × W pixels, V views (whole image, foreground, background). Images are RGB in -1 … 1, masks 0 or 1.

References
----------
.. [1] Lou et al., "Which Pixel to Annotate: a Label-Efficient Nuclei Segmentation Framework", IEEE TMI 42(4), 2023.
.. [2] Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Reduction: TypeAlias = Literal["all", "masked"]
# Keeps the gradient of a length finite where the length is 0.
_TINY = 1e-12


def component(images: Tensor, masks: Tensor) -> Tensor:
    """Return images (B, 3, H, W) that are black (-1) outside masks (B, 1, H, W).

    It is differentiable: what critics of components say reaches whoever made the image. (In the released code of [1]
    it does not, as components are cut from a detached copy in 8 bits.)
    """
    return masks * images + (masks - 1)


def views(images: Tensor, masks: Tensor) -> Tensor:
    """Return what each critic sees, (B, 9, H, W): the whole image, its foreground, its background."""
    return torch.cat((images, component(images, masks), component(images, 1 - masks)), dim=1)


def mean_scores(scores: Tensor, masks: Tensor, *, reduction: Reduction = "all") -> Tensor:
    """Return the mean score of each view, (V,).

    Parameters
    ----------
    scores
        (B, V, h, w), smaller than the images by the same margin on all sides.
    masks
        (B, 1, H, W). They are cropped around the centre, so that each score meets the mask over its own middle.
    reduction
        ``all`` takes the mean over all positions, zeros outside the component included, as published. ``masked``
        divides by the size of the component, so that few nuclei weigh as much as many.
    """
    height, width = scores.shape[-2:]
    top, left = ((have - want) // 2 for have, want in zip(masks.shape[-2:], (height, width), strict=True))
    inside = masks[..., top : top + height, left : left + width]
    weights = torch.cat((torch.ones_like(inside), inside, 1 - inside), dim=1)
    weighted = weights * scores
    if reduction == "all":
        return weighted.mean(dim=(0, 2, 3))
    return weighted.sum(dim=(0, 2, 3)) / weights.sum(dim=(0, 2, 3)).clamp_min(1)


def gradient_penalty(critics: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mixture: Tensor) -> Tensor:
    """Return by how much the slope of critics between real and fake images differs from 1, for each view, (V,).

    The slope is taken at each pixel, over its three channels, which is the convention of SinGAN.

    Parameters
    ----------
    critics
        Takes views (B, 3 V, H, W) and returns scores (B, V, h, w).
    real, fake
        (B, 3 V, H, W).
    mixture
        (V,), the share of the real image for each view, 0 … 1.
    """
    share = mixture.repeat_interleave(3)[:, None, None]
    between = (share * real.detach() + (1 - share) * fake.detach()).requires_grad_()
    scores = critics(between)
    (slopes,) = torch.autograd.grad(scores.sum(), between, create_graph=True)
    squares = slopes.square().reshape(len(slopes), -1, 3, *slopes.shape[2:]).sum(dim=2)
    return ((squares + _TINY).sqrt() - 1).square().mean(dim=(0, 2, 3))
