"""DeepLabV3: what DeepLabV3+ is without its decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

from wsiseg.nets.deeplab import FEATURES, Decoded

if TYPE_CHECKING:
    from wsiseg.nets.deeplab import DeepLabV3Plus


class DeepLabV3(nn.Module):
    """Deep features, seen at several ranges, under a linear classifier.

    Parameters
    ----------
    whole
        Its backbone and pyramid are taken over; its decoder is left out.
    num_classes
        Channels of the output, which is raw.

    Notes
    -----
    In training a batch has two images or more, as for `DeepLabV3Plus`.

    References
    ----------
    .. [1] Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv 1706.05587.
    """

    def __init__(self, whole: DeepLabV3Plus, num_classes: int) -> None:
        super().__init__()
        self.stride = whole.stride
        self.backbone, self.aspp = whole.backbone, whole.aspp
        self.classifier = nn.Conv2d(FEATURES, num_classes, 1)
        nn.init.kaiming_normal_(self.classifier.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes, H, W) for images (B, 3, H, W) of any size."""
        return self.decoded(images).logits

    def decoded(self, images: Tensor) -> Decoded:
        """Return logits for images (B, 3, H, W) of any size, and what they are made of, at `stride`."""
        _, deep = self.backbone(images)
        features = self.aspp(deep)
        coarse = self.classifier(features)
        logits = functional.interpolate(coarse, size=images.shape[-2:], mode="bilinear", align_corners=True)
        return Decoded(features=features, coarse=coarse, logits=logits)
