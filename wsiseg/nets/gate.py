"""What an image shows as a whole decides which classes its pixels may have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

# What a class has that is not seen at all, so that its logarithm is a number.
_FAINT: Final = 1e-6


def gated(logits: Tensor, prob: Tensor, *, epsilon: float = 0.1) -> Tensor:
    """Return the logits of pixels without the classes that their image hardly shows.

    A gated class gets minus infinity, so that after a softmax its probability is 0 and those
    of the others still sum to 1; its logit is never the highest, whatever the signs.

    Parameters
    ----------
    logits
        float (B, C, H, W), of the pixels.
    prob
        float (B, C): probability of each class to be somewhere in the image, 0 … 1.
    epsilon
        Classes up to this probability are gated. Where that would be all of them, the most
        probable stays.

    References
    ----------
    .. [1] Han et al., "Multi-Layer Pseudo-Supervision for Histopathology Tissue Semantic
       Segmentation using Patch-level Classification Labels", Medical Image Analysis 2022.
    """
    is_open = prob > epsilon
    # If any class is open, so is the most probable one.
    is_open = is_open.scatter(1, prob.argmax(dim=1, keepdim=True), value=True)
    return logits.masked_fill(~is_open[:, :, None, None], -torch.inf)


def shared_out(maps: Tensor, logits: Tensor, size: tuple[int, int], *, threshold: float) -> Tensor:
    """Return logits of pixels whose softmax shares each pixel out by how much each class is seen there.

    Parameters
    ----------
    maps
        float (B, C, h, w), 0 or more: how much each class is seen; interpolated.
    logits
        float (B, C), of the image.
    size
        (H, W) of the image.
    threshold
        Classes of no higher probability are not in the image.

    Returns
    -------
    Tensor
        float32 (B, C, H, W).
    """
    maps = functional.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False)
    prob = logits.sigmoid().float()
    seen = maps * (prob > threshold)[:, :, None, None]
    seen = seen / seen.amax(dim=(1, 2, 3), keepdim=True).clamp(min=torch.finfo(seen.dtype).tiny)
    # Where nothing is seen, the class that the image most probably shows is the best guess.
    return (seen + _FAINT * (1 + prob[:, :, None, None])).log()
