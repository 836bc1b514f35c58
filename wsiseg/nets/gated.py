"""Networks of two parts: a classifier of whole images, and what says where its classes are.

Both take images (B, 3, H, W) as they are normalised for them and give logits (B, C, H, W).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from wsiseg.config import Config
from wsiseg.nets.attending import AttendingClassifier, AttendingSpec, build_attending
from wsiseg.nets.classifiers import build_classifier
from wsiseg.nets.deeplab import build_deeplab
from wsiseg.nets.deeplabv3 import DeepLabV3
from wsiseg.nets.gate import gated, shared_out

if TYPE_CHECKING:
    from wsiseg.nets.deeplab import DeepLabV3Plus
    from wsiseg.nets.encoders import Weights
    from wsiseg.nets.taps import TapClassifier

CAM: Final = "cam"
GATED: Final = "gated-deeplabv3+"


class CamSpec(Config):
    """A classifier's class activation maps.

    Parameters
    ----------
    arch
        ``cam``.
    backbone
        Of the classifier; see `build_classifier`.
    output_stride
        Of encoders of timm.
    threshold
        Classes of no higher probability are not in the image.
    """

    arch: Literal["cam"] = CAM
    backbone: str
    output_stride: int = 8
    threshold: float = Field(default=0.25, ge=0, lt=1)


class GatedSpec(Config):
    """DeepLab whose classes a classifier of the same image lets through.

    Parameters
    ----------
    arch
        ``gated-deeplabv3+``.
    backbone
        Of DeepLab; see `build_deeplab`.
    output_stride
        Of DeepLab.
    decoder
        ``v3plus``, or ``none`` for DeepLabV3, whose maps are as coarse as its deep features.
    classifier
        The classifier; None leaves the gate out.
    epsilon
        Classes of no higher probability are shut out.
    """

    arch: Literal["gated-deeplabv3+"] = GATED
    backbone: str
    output_stride: Literal[8, 16] = 16
    decoder: Literal["v3plus", "none"] = "v3plus"
    classifier: CamSpec | AttendingSpec | None
    epsilon: float = Field(default=0.1, ge=0, lt=1)


class ActivationMaps(nn.Module):
    """Where a classifier sees each class: its rectified class activation maps, as logarithms.

    Parameters
    ----------
    classifier
        Shared, not copied.
    threshold
        Classes of no higher probability are not in the image.

    References
    ----------
    .. [1] Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016.
    """

    def __init__(self, classifier: TapClassifier, *, threshold: float) -> None:
        super().__init__()
        self.classifier = classifier
        self.stride = classifier.stride
        self._threshold = threshold

    def forward(self, images: Tensor) -> Tensor:
        """Return logits whose softmax shares each pixel out by the activation of its classes."""
        taps, logits = self.classifier.tapped(images)
        maps = functional.relu(functional.conv2d(taps[-1], self.classifier.fc8.weight))
        return shared_out(maps, logits, (images.shape[2], images.shape[3]), threshold=self._threshold)


class GatedDeepLab(nn.Module):
    """Segmentation of images whose classes a classifier lets through.

    Parameters
    ----------
    segmenter, classifier
        Shared, not copied; without a classifier there is no gate.
    epsilon
        Classes of no higher probability are shut out.
    """

    def __init__(
        self,
        segmenter: DeepLabV3Plus | DeepLabV3,
        classifier: TapClassifier | AttendingClassifier | None,
        *,
        epsilon: float,
    ) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.classifier = classifier
        self.stride = segmenter.stride
        self._epsilon = epsilon

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, minus infinity for the classes that are shut out of an image."""
        logits: Tensor = self.segmenter(images)
        if self.classifier is None:
            return logits
        return gated(logits, self.classifier(images).sigmoid(), epsilon=self._epsilon)


def build_cam(spec: CamSpec, num_classes: int, *, weights: Weights | None = None) -> ActivationMaps:
    """Return a classifier that shows its activation maps; see `build_classifier`."""
    classifier = build_classifier(spec.backbone, num_classes, output_stride=spec.output_stride, weights=weights)
    return ActivationMaps(classifier, threshold=spec.threshold)


def build_gated(spec: GatedSpec, num_classes: int, *, weights: Weights | None = None) -> GatedDeepLab:
    """Return a pair, where `weights` are those of the segmenter's backbone; see `build_deeplab`."""
    whole = build_deeplab(spec.backbone, num_classes, output_stride=spec.output_stride, weights=weights)
    segmenter = whole if spec.decoder == "v3plus" else DeepLabV3(whole, num_classes)
    classifier: TapClassifier | AttendingClassifier | None = None
    if isinstance(spec.classifier, AttendingSpec):
        classifier = build_attending(spec.classifier, num_classes).classifier
    elif spec.classifier is not None:
        classifier = build_cam(spec.classifier, num_classes).classifier
    return GatedDeepLab(segmenter, classifier, epsilon=spec.epsilon)
