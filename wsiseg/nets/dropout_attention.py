"""Progressive dropout attention: the regions that decide a class are switched off, so that others are learnt.

Shapes: B images, C classes, D channels, h × w positions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def attention(features: Tensor, weights: Tensor, mu: float) -> Tensor:
    """Return the map by which features are multiplied.

    It is the mean over all classes of their activation maps, in which positions above a part of
    the map's peak are set to 0. Nothing is normalised, so even ``mu = 1``, which switches nothing
    off, weights the positions. Gradients flow through the map into features and weights; the
    peak only steers a comparison.

    Parameters
    ----------
    features
        float (B, D, h, w): the features that are classified.
    weights
        float (C, D, 1, 1): of the linear classifier.
    mu
        Part of the peak, of each image and class, up to which activation is kept, 0 … 1.

    Returns
    -------
    Tensor
        float (B, 1, h, w), 0 or more.

    References
    ----------
    .. [1] Han et al., "Multi-Layer Pseudo-Supervision for Histopathology Tissue Semantic
       Segmentation using Patch-level Classification Labels", Medical Image Analysis 2022.
    """
    activation = functional.relu(functional.conv2d(features, weights))
    limit = mu * activation.detach().amax(dim=(2, 3), keepdim=True)
    return torch.where(activation <= limit, activation, 0).mean(dim=1, keepdim=True)
