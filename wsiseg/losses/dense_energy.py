"""Dense energy: pixels that are near each other and of one colour should be of one class.

Shapes: B images, C classes, H × W pixels, P pixels of one image at the scale of the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from wsiseg.losses.resampling import nearest


def dense_energy(
    logits: Tensor,
    images: Tensor,
    is_labelled: Tensor,
    *,
    is_white: Tensor | None = None,
    sigma_px: float = 100.0,
    sigma_rgb: float = 15.0,
    scale: float = 0.25,
) -> Tensor:
    """Return how much similar pixels disagree, as a part of how much they could.

    For each image it is Σ G_i W_ij (1 − S_i · S_j) / Σ W_ij over pairs of different pixels. S are
    probabilities and W_ij is Gaussian in place and colour. G_i is 1 for a pixel without a label;
    one with a label counts the less, the surer the network is. Neither W nor G has a gradient. The
    sums are exact: P² weights of one image are in memory at a time.

    Parameters
    ----------
    logits
        float (B, C, H, W).
    images
        RGB (B, 3, H, W), 0 … 255, of any type.
    is_labelled
        bool (B, H, W): pixels that have a reliable label.
    is_white
        bool (B, H, W): pixels that neither ask nor are asked; None where there are none.
    sigma_px
        Standard deviation of W in place, in pixels of the images.
    sigma_rgb
        Standard deviation of W in colour, in grey levels.
    scale
        Size at which pixels are compared, as a fraction of that of the images.

    Returns
    -------
    Tensor
        Scalar, 0 … 1: the mean over the images. An image without two pixels to compare counts 0.

    References
    ----------
    .. [1] Tang et al., "On Regularized Losses for Weakly-supervised CNN Segmentation", ECCV 2018.
    .. [2] Zhang et al., "Reliability Does Matter: An End-to-End Weakly Supervised Semantic
       Segmentation Approach", AAAI 2020.
    """
    height, width = (max(1, round(length * scale)) for length in logits.shape[2:])
    size = (height, width)
    with torch.autocast(logits.device.type, enabled=False):
        exact = torch.promote_types(logits.dtype, torch.float32)
        prob = functional.interpolate(logits.to(exact).softmax(dim=1), size=size, mode="bilinear", align_corners=False)
        # Single pixels of a stained section are noise; means are not.
        colours = functional.interpolate(images.to(exact), size=size, mode="area") / sigma_rgb
        places = _places(images, size) / sigma_px
        doubt = torch.where(nearest(is_labelled, size), 1 - prob.detach().amax(dim=1), 1.0).clamp(min=0)
        is_compared = torch.ones_like(doubt, dtype=torch.bool) if is_white is None else ~nearest(is_white, size)
        energies = [
            _energy(prob[n, :, pixels].T, torch.cat((places, colours[n]))[:, pixels].T, doubt[n, pixels])
            for n, pixels in enumerate(is_compared)
        ]
    return torch.stack(energies).mean()


def _places(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Return y and x of the pixels of a smaller image, (2, *size), in pixels of `images`."""
    lines = [
        torch.arange(small, device=images.device) * (large / small)
        for small, large in zip(size, images.shape[2:], strict=True)
    ]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"))


def _energy(prob: Tensor, places: Tensor, doubt: Tensor) -> Tensor:
    """Return the energy of one image, from (P, C), (P, 5) in standard deviations and (P,)."""
    with torch.no_grad():
        affinity = torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist")
        affinity = affinity.square_().mul_(-0.5).exp_().fill_diagonal_(0)
        total = affinity.sum().clamp(min=torch.finfo(affinity.dtype).tiny)
        # Multiplied out, not subtracted from the sum: every term is positive, and agreement is exactly 0.
        disagreement = affinity @ (1 - prob)
        gradient = (doubt[:, None] * disagreement - affinity @ (doubt[:, None] * prob)) / total
        energy = (doubt[:, None] * prob * disagreement).sum() / total
    # The gradient is put in by hand, since P² weights would otherwise be kept for every image of the batch.
    return energy + (gradient * (prob - prob.detach())).sum()
