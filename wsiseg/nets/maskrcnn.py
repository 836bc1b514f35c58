"""Mask R-CNN: a network that finds one object after the other, and says so in maps.

Shapes: B images, H × W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Self

import numpy as np
import torch
from pydantic import Field
from scipy.special import logit
from torch import Tensor, nn

from wsiseg.centroids import ways_to_centroids
from wsiseg.config import Config
from wsiseg.errors import MethodError
from wsiseg.nets.detection_losses import Truth, object_losses, proposal_losses
from wsiseg.nets.encoders import no_weights, unknown
from wsiseg.nets.painting import painted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MASKRCNN: Final = "maskrcnn"
# Of torchvision: all that are made of residual layers.
_ENCODERS: Final = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2",
)  # fmt: skip
_LAYERS: Final = ("layer1", "layer2", "layer3", "layer4")
# From the deepest; its first ones learn last.
_STAGES: Final = (*reversed(_LAYERS), "conv1", "bn1")
# Of the feature pyramid, from fine to coarse.
_LEVELS: Final = ("0", "1", "2", "3", "pool")
_RATIOS: Final = (0.5, 1.0, 2.0)
# Overlaps, IoU, beyond which the less sure of two proposals is dropped, in training and in prediction.
_PROPOSAL_NMS: Final = {True: 0.9, False: 0.7}
# Best proposals of each level that come to that at all.
_MOST_PROPOSALS: Final = 2000
# Less sure detections are none. Decoding asks for more; what lies between makes a model unsure.
_LEAST_SCORE: Final = 0.05
# Scores that are certain have no logit.
_CERTAIN: Final = 1e-3


class MaskRCNNSpec(Config):
    """Settings of the network; the usual ones are those of [1]_, as far as torchvision has them.

    There an RPN learns from 64 anchors of each image, half of them with objects (IoU ≥ 0.7, or the best there is) and
    the others without (< 0.3); a third of the regions that the heads learn from holds objects (IoU ≥ 0.5), and of
    detections that overlap by more than 0.3 the surest stays. Here the encoder normalises by batches where it learns,
    as weights of COCO, from which it begins there, may not be at hand.

    As torchvision has them, changes of anchors are not counted in standard deviations (0.1 of a place, 0.2 of a size),
    losses of boxes are quadratic up to 1/9, not 1, and of each level the best 2000 anchors go on, not the best 6000 of
    all; overlapping ones are suppressed within each level, not among all. Colours are normalised as on ImageNet; there
    the mean colour of other images is taken off.

    Parameters
    ----------
    arch
        ``maskrcnn``.
    encoder
        ``resnet50`` or another residual network of torchvision, such as ``resnet18``.
    encoder_weights
        None for random weights; ``imagenet`` downloads trained ones.
    trained_stages
        Stages of the encoder that learn, from the deepest: 5 are all. Published with weights of COCO is 0; fewer than 5
        suit no encoder that begins with random weights.
    width
        Channels of the feature pyramid and of the heads' convolutions; their linear layers have four times as many.
    anchors_px
        Side of the anchors of each level, at strides of 4, 8, 16, 32 and 64 pixels.
    proposals
        Regions of an image that are looked at, in training and in prediction.
    rois
        Those of them that an image is learnt from.
    max_objects
        Most detections in an image.

    References
    ----------
    .. [1] Lou et al., "Which Pixel to Annotate: a Label-Efficient Nuclei Segmentation Framework", IEEE TMI 42(4), 2023.
    """

    arch: Literal["maskrcnn"] = MASKRCNN
    encoder: str = "resnet50"
    encoder_weights: Literal["imagenet"] | None = None
    trained_stages: int = Field(default=5, ge=0, le=5)
    width: int = Field(default=256, gt=0)
    anchors_px: tuple[int, int, int, int, int] = (8, 16, 32, 64, 128)
    proposals: tuple[int, int] = (1000, 2000)
    rois: int = Field(default=500, gt=0)
    max_objects: int = Field(default=1000, gt=0)


class MaskRCNN(nn.Module):
    """A network that finds objects of one class.

    Its parts have the names of torchvision, so that its weights can be loaded.

    Parameters
    ----------
    model
        torchvision's Mask R-CNN, of which it takes the backbone and the heads.

    Attributes
    ----------
    stride
        H and W are multiples of this.

    References
    ----------
    .. [1] He et al., "Mask R-CNN", ICCV 2017.
    """

    stride: Final = 32

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - torchvision has no types
        super().__init__()
        self.backbone, self.rpn, self.roi_heads = model.backbone, model.rpn, model.roi_heads
        self.train()

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - as torch has it
        """Set the mode of all parts; what does not learn normalises as it has learnt to."""
        super().train(mode)
        self.rpn.nms_thresh = _PROPOSAL_NMS[mode]
        for part in self.backbone.modules():
            if isinstance(part, nn.BatchNorm2d) and not part.weight.requires_grad:
                part.eval()
        return self

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the levels of the feature pyramid, float32 (B, width, h, w), for normalised images (B, 3, H, W)."""
        # Anchors are made in the precision of features, and 16 bits do not tell pixels apart.
        return tuple(level.float() for level in self.backbone(images).values())

    def losses(self, features: Sequence[Tensor], labels: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Return scalars, whose sum is to be minimised; all are 0 where nothing is valid.

        Parameters
        ----------
        features
            Of the images; see `features`.
        labels
            Integer (B, H, W): positive ids are objects. They keep their full shape beyond what is valid.
        valid
            bool (B, H, W): what may be learnt from.
        """
        truth = [Truth.of(*known) for known in zip(labels, valid, strict=True)]
        anchors, objectness, deltas, proposals = self._proposed(features, labels)
        return proposal_losses(self.rpn, anchors, objectness, deltas, truth) | object_losses(
            self.roi_heads, dict(zip(_LEVELS, features, strict=True)), proposals, truth
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return what is found in normalised images (B, 3, H, W), in evaluation mode.

        Returns
        -------
        Tensor
            float32 (B, 3, H, W), as the head ``centre`` reads them: the logit of the score of the object that a pixel
            belongs to, and the way dy, dx in pixels to its centroid. See `painted` for who a pixel belongs to.
        """
        features = self.features(images)
        # Compilers spend minutes on loops over detections, and win nothing.
        if torch.compiler.is_compiling():
            return torch.compiler.disable(self._detected)(features, images)  # type: ignore[no-any-return, no-untyped-call]
        return self._detected(features, images)

    def _detected(self, features: tuple[Tensor, ...], images: Tensor) -> Tensor:
        *_, proposals = self._proposed(features, images)
        height, width = images.shape[-2:]
        found, _ = self.roi_heads(dict(zip(_LEVELS, features, strict=True)), proposals, [(height, width)] * len(images))
        maps = [
            detection_maps(
                *(one[name].float().cpu().numpy() for name in ("boxes", "masks", "scores")), height=height, width=width
            )
            for one in found
        ]
        return torch.from_numpy(np.stack(maps)).to(images.device)

    def _proposed(
        self, features: Sequence[Tensor], images: Tensor
    ) -> tuple[list[Tensor], Tensor, Tensor, list[Tensor]]:
        """Return the anchors of each image, their objectness and changes, and the proposals of each image.

        Parameters
        ----------
        features
            Of the images.
        images
            (B, …, H, W): whatever has their size.
        """
        from torchvision.models.detection.image_list import ImageList
        from torchvision.models.detection.rpn import concat_box_prediction_layers

        levels = list(features)
        objectness, deltas = self.rpn.head(levels)
        sizes = [(images.shape[-2], images.shape[-1])] * len(images)
        anchors = self.rpn.anchor_generator(ImageList(images, sizes), levels)
        counts = [level[0].numel() for level in objectness]
        objectness, deltas = concat_box_prediction_layers(objectness, deltas)
        boxes = self.rpn.box_coder.decode(deltas.detach().float(), anchors).view(len(images), -1, 4)
        proposals, _ = self.rpn.filter_proposals(boxes, objectness.float(), sizes, counts)
        return anchors, objectness, deltas, proposals


def detection_maps(
    boxes: NDArray[np.float32], masks: NDArray[np.float32], scores: NDArray[np.float32], *, height: int, width: int
) -> NDArray[np.float32]:
    """Return the maps, float32 (3, height, width), of what was detected in one image.

    Parameters
    ----------
    boxes, scores, height, width
        See `painted`.
    masks
        (n, 1, S, S); see there, too.
    """
    labels, kept = painted(boxes, masks[:, 0], scores, height=height, width=width)
    sure = np.concatenate((np.zeros(1, dtype=np.float32), kept))[labels].clip(_CERTAIN, 1 - _CERTAIN)
    return np.concatenate((logit(sure)[None], ways_to_centroids(labels)), dtype=np.float32)


def build_maskrcnn(spec: MaskRCNNSpec) -> MaskRCNN:
    """Return an untrained network; only with ``encoder_weights = "imagenet"`` is the internet used.

    Raises
    ------
    MethodError
        If torchvision cannot be imported, there is no such encoder, or its weights cannot be downloaded.
    """
    try:
        from torchvision.models import detection
        from torchvision.models.detection import anchor_utils, backbone_utils, faster_rcnn, mask_rcnn
    except (ImportError, RuntimeError) as error:
        raise MethodError(
            f"torchvision cannot be imported ({error})",
            where=MASKRCNN,
            mend="Install torch and torchvision of the same release from the same registry",
        ) from error
    body = _encoder(spec)
    channels = [body.inplanes // 2**halvings for halvings in (3, 2, 1, 0)]
    names = {layer: level for level, layer in zip(_LEVELS, _LAYERS, strict=False)}
    linear = 4 * spec.width
    model = detection.MaskRCNN(
        backbone_utils.BackboneWithFPN(body, names, channels, spec.width),
        rpn_anchor_generator=anchor_utils.AnchorGenerator(
            tuple((side,) for side in spec.anchors_px), (_RATIOS,) * len(_LEVELS)
        ),
        rpn_pre_nms_top_n_train=_MOST_PROPOSALS,
        rpn_pre_nms_top_n_test=_MOST_PROPOSALS,
        rpn_post_nms_top_n_train=spec.proposals[0],
        rpn_post_nms_top_n_test=spec.proposals[1],
        rpn_fg_iou_thresh=0.7,
        rpn_bg_iou_thresh=0.3,
        rpn_batch_size_per_image=64,
        rpn_positive_fraction=0.5,
        box_head=faster_rcnn.TwoMLPHead(spec.width * 7**2, linear),
        box_predictor=faster_rcnn.FastRCNNPredictor(linear, 2),
        box_score_thresh=_LEAST_SCORE,
        box_nms_thresh=0.3,
        box_detections_per_img=spec.max_objects,
        box_fg_iou_thresh=0.5,
        box_bg_iou_thresh=0.5,
        box_batch_size_per_image=spec.rois,
        box_positive_fraction=0.33,
        mask_head=mask_rcnn.MaskRCNNHeads(spec.width, (spec.width,) * 4, 1),
        mask_predictor=mask_rcnn.MaskRCNNPredictor(spec.width, spec.width, 2),
    )
    return MaskRCNN(model)


def _encoder(spec: MaskRCNNSpec) -> Any:  # noqa: ANN401 - torchvision has no types
    from torchvision import models

    if spec.encoder not in _ENCODERS:
        raise unknown("encoder", spec.encoder, list(_ENCODERS))
    body = models.get_model(spec.encoder, weights=None)
    if spec.encoder_weights is not None:
        try:
            body = models.get_model(spec.encoder, weights="IMAGENET1K_V1")
        except Exception as error:  # clients that download share no base class
            raise no_weights(spec.encoder, error) from error
    learning = _STAGES if spec.trained_stages == len(_STAGES) - 1 else _STAGES[: spec.trained_stages]
    for name, value in body.named_parameters():
        value.requires_grad_(name.startswith(learning))
    return body
