"""A space in which features of pixels are compared; needed in training only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ProjectionHead(nn.Module):
    """Turns the features of each pixel into a vector of length 1.

    It stands beside the classifier of a network and is left out of what is kept.

    Parameters
    ----------
    in_channels
        Channels of the features.
    out_channels
        Length of the vectors before they are normalised.

    References
    ----------
    .. [1] Wang et al., "Exploring Cross-Image Pixel Contrast for Semantic Segmentation", ICCV 2021.
    """

    def __init__(self, in_channels: int, out_channels: int = 128) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, in_channels, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv2 = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return vectors (B, out_channels, H, W), float32, for features (B, in_channels, H, W)."""
        vectors = self.conv2(functional.relu(self.norm1(self.conv1(features)), inplace=True))
        # Lengths and later products of half precision are too coarse beside a temperature of 0.1.
        return functional.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=1)
