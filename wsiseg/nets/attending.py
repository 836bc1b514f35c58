"""An image classifier with residual attention, and where it sees each class.

Shapes: B images, C classes, H × W pixels, h × w positions of the features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field
from torch import Tensor, nn

from wsiseg.config import Config
from wsiseg.nets.classifiers import build_classifier
from wsiseg.nets.gate import shared_out
from wsiseg.nets.residual_attention import TEMPERATURES, ResidualAttention, attention_maps

if TYPE_CHECKING:
    from wsiseg.nets.encoders import Weights
    from wsiseg.nets.residual_attention import ClassAttention
    from wsiseg.nets.taps import TapClassifier

ATTENDING: Final = "residual-attention"


class AttendingSpec(Config):
    """A classifier with class-specific residual attention.

    Parameters
    ----------
    arch
        ``residual-attention``.
    backbone
        See `build_classifier`.
    output_stride
        Of encoders of timm.
    heads
        Number of heads, which decides their temperatures; see `TEMPERATURES`.
    residual_weight
        Weight of the attention beside average pooling.
    threshold
        Classes of no higher probability are not in the image.
    """

    arch: Literal["residual-attention"] = ATTENDING
    backbone: str
    output_stride: Literal[8, 16] = 8
    heads: Literal[1, 2, 4, 6, 8] = 1
    residual_weight: float = Field(default=0.3, ge=0)
    threshold: float = Field(default=0.25, ge=0, lt=1)


class AttendingClassifier(nn.Module):
    """The trunk of a classifier under a head with residual attention.

    Parameters
    ----------
    trunk
        Taken over; its own linear classifier is taken off.
    classes
        Classes that an image may show.
    heads, residual_weight
        See `AttendingSpec`.

    References
    ----------
    .. [1] Zhu and Wu, "Residual Attention: A Simple but Effective Method for Multi-Label
       Recognition", ICCV 2021.
    """

    def __init__(self, trunk: TapClassifier, classes: int, *, heads: int = 1, residual_weight: float = 0.3) -> None:
        super().__init__()
        self.stride = trunk.stride
        self.head = ResidualAttention(
            trunk.fc8.in_channels, classes, temperatures=TEMPERATURES[heads], residual_weight=residual_weight
        )
        del trunk.fc8
        self.trunk = trunk

    def attended(self, images: Tensor) -> ClassAttention:
        """Return logits, scores and attention for images (B, 3, H, W) within 0 … 1; h is H / `stride`, rounded up."""
        found: ClassAttention = self.head(self.trunk.dropout7(self.trunk.taps(images)[-1]))
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, C) of the classes in images (B, 3, H, W) within 0 … 1."""
        return self.attended(images).logits


class AttentionMaps(nn.Module):
    """Where a classifier sees each class: its rectified scores, as logarithms.

    Parameters
    ----------
    classifier
        Shared, not copied.
    threshold
        Classes of no higher probability are not in the image.
    """

    def __init__(self, classifier: AttendingClassifier, *, threshold: float) -> None:
        super().__init__()
        self.classifier = classifier
        self.stride = classifier.stride
        self._threshold = threshold

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, C, H, W) whose softmax shares each pixel out by the scores of its classes."""
        found = self.classifier.attended(images)
        size = (images.shape[2], images.shape[3])
        return shared_out(attention_maps(found.scores), found.logits, size, threshold=self._threshold)


def build_attending(spec: AttendingSpec, num_classes: int, *, weights: Weights | None = None) -> AttentionMaps:
    """Return an untrained classifier that shows where it sees each class; see `build_classifier`."""
    trunk = build_classifier(spec.backbone, num_classes, output_stride=spec.output_stride, weights=weights)
    classifier = AttendingClassifier(trunk, num_classes, heads=spec.heads, residual_weight=spec.residual_weight)
    return AttentionMaps(classifier, threshold=spec.threshold)
