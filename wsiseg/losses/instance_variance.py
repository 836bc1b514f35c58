"""Variance of probabilities within objects: the pixels of one object should look alike to the network."""

from __future__ import annotations

import torch
from torch import Tensor


def instance_variance(probs: Tensor, objects: Tensor) -> Tensor:
    """Return the variance of each class's probability within objects, summed over classes and averaged over objects.

    All objects of an image count alike, whatever their area; the variance is the unbiased one.

    Parameters
    ----------
    probs
        float (B, C, …): probabilities of classes.
    objects
        Integer (B, …): ids 1 … n in each image, 0 elsewhere. Ids may have gaps.

    Returns
    -------
    Tensor
        Scalar: the mean over the images. Images without objects count 0, and so do objects of one pixel.

    References
    ----------
    .. [1] Qu et al., "Improving Nuclei/Gland Instance Segmentation in Histopathology Images by Full Resolution
       Neural Network and Spatial Constrained Loss", MICCAI 2019.
    """
    images, classes = probs.shape[:2]
    ids = objects.reshape(images, -1).long()
    size = int(ids.max()) + 1
    # Each image has places of its own for the sums.
    at = (ids + size * torch.arange(images, device=ids.device)[:, None])[ids > 0]
    values = probs.float().reshape(images, classes, -1).movedim(1, -1)[ids > 0]
    count = torch.zeros(images * size, device=probs.device).index_add(0, at, torch.ones_like(values[:, 0]))
    zeros = torch.zeros(images * size, classes, device=probs.device)
    mean = zeros.index_add(0, at, values) / count.clamp(min=1)[:, None]
    # From the mean, not from the sum of squares: nearly equal values leave nothing of a difference of large sums.
    squares = zeros.index_add(0, at, (values - mean[at]).square()).sum(dim=1)
    variance = (squares / (count - 1).clamp(min=1)).reshape(images, size).sum(dim=1)
    number = (count > 0).reshape(images, size).sum(dim=1)
    return (variance / number.clamp(min=1)).mean()
