"""Labels at the resolution of a loss. All losses of one method look at the same pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def nearest(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Return labels or masks at another size; each pixel takes the one under its centre.

    Parameters
    ----------
    labels
        Integer or bool (B, H, W). Values up to 16,777,216 stay exact.
    size
        Height and width of the result.

    Returns
    -------
    Tensor
        Of the type of `labels`, (B, *size).
    """
    if labels.shape[1:] == torch.Size(size):
        return labels
    # The centre, not the corner: images and maps are brought to the same size around their centres too.
    small = functional.interpolate(labels.unsqueeze(1).float(), size=size, mode="nearest-exact")
    return small.squeeze(1).to(labels.dtype)
