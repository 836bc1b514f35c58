"""What a Mask R-CNN learns from objects, where parts of an image say nothing.

torchvision's own losses know no such parts: there an anchor without an object is background. Here boxes of which
more than half says nothing are not background either; who is an object stays one, with its full shape.

Boxes are x0, y0, x1, y1 in pixels, and the centre of the first pixel is (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth:
    """What is known of one image.

    Parameters
    ----------
    boxes
        float32 (n, 4): of objects of which any pixel may be learnt from.
    masks
        bool (n, H, W): these objects.
    unknown
        int64 (H + 1, W + 1): how many pixels above and left of each corner say nothing.
    """

    boxes: Tensor
    masks: Tensor
    unknown: Tensor

    @classmethod
    def of(cls, labels: Tensor, valid: Tensor) -> Self:
        """Return what labels (H, W), positive ids, say where they are `valid`, bool (H, W)."""
        ids = torch.unique(labels[valid & (labels > 0)])
        masks = labels == ids[:, None, None]
        (left, right), (top, bottom) = (_ends(masks.any(dim=axis)) for axis in (1, 2))
        low, high = torch.stack((left, top), dim=1) - 0.5, torch.stack((right, bottom), dim=1) + 0.5
        unknown = (~valid).long().cumsum(dim=0).cumsum(dim=1)
        return cls(
            boxes=torch.cat((low, high), dim=1),
            masks=masks,
            unknown=torch.nn.functional.pad(unknown, (1, 0, 1, 0)),
        )

    @property
    def classes(self) -> Tensor:
        """Return the class of each object: all are of class 1."""
        return torch.ones(len(self.boxes), dtype=torch.int64, device=self.boxes.device)

    def without_unknown(self, labels: Tensor, boxes: Tensor) -> Tensor:
        """Return the labels (m,) of boxes (m, 4), where -1 takes the place of background that nothing is known of."""
        corners = (boxes + 0.5).round().long()
        x0, x1 = corners[:, 0::2].clamp(0, self.unknown.shape[1] - 1).unbind(dim=1)
        y0, y1 = corners[:, 1::2].clamp(0, self.unknown.shape[0] - 1).unbind(dim=1)
        count = self.unknown[y1, x1] - self.unknown[y0, x1] - self.unknown[y1, x0] + self.unknown[y0, x0]
        return labels.masked_fill((labels == 0) & (2 * count > (x1 - x0) * (y1 - y0)), -1)


# torchvision has no types: `rpn` is its RegionProposalNetwork, and `roi_heads` are its RoIHeads.


def proposal_losses(
    rpn: Any,  # noqa: ANN401 - as above
    anchors: Sequence[Tensor],
    objectness: Tensor,
    deltas: Tensor,
    truth: Sequence[Truth],
) -> dict[str, Tensor]:
    """Return what is wrong with proposals: ``objectness``, and their boxes as ``proposal``.

    Parameters
    ----------
    rpn
        What has proposed.
    anchors
        Of each image, (m, 4).
    objectness, deltas
        Logits and changes of all anchors, (B m, 1) and (B m, 4).
    truth
        Of each image.
    """
    labels, boxes = rpn.assign_targets_to_anchors(anchors, [{"boxes": one.boxes} for one in truth])
    labels = [one.without_unknown(own, at) for one, own, at in zip(truth, labels, anchors, strict=True)]
    if all(bool((own < 0).all()) for own in labels):
        return dict.fromkeys(("objectness", "proposal"), _nothing(rpn))
    object_loss, box_loss = rpn.compute_loss(objectness, deltas, labels, rpn.box_coder.encode(boxes, anchors))
    return {"objectness": object_loss, "proposal": box_loss}


def object_losses(
    roi_heads: Any,  # noqa: ANN401 - as above
    features: dict[str, Tensor],
    proposals: Sequence[Tensor],
    truth: Sequence[Truth],
) -> dict[str, Tensor]:
    """Return what is wrong with objects: ``class``, ``box`` and ``mask``.

    Parameters
    ----------
    roi_heads
        What judges proposals.
    features
        Of all images by name of the level, (B, channels, h, w) each.
    proposals
        Of each image, (m, 4).
    truth
        Of each image.
    """
    from torchvision.models.detection.roi_heads import fastrcnn_loss, maskrcnn_loss

    boxes, classes = [one.boxes for one in truth], [one.classes for one in truth]
    proposals = roi_heads.add_gt_proposals(proposals, boxes)
    matched, labels = roi_heads.assign_targets_to_proposals(proposals, boxes, classes)
    labels = [one.without_unknown(own, at) for one, own, at in zip(truth, labels, proposals, strict=True)]
    drawn = roi_heads.subsample(labels)
    proposals, matched, labels = (
        [own[at] for own, at in zip(every, drawn, strict=True)] for every in (proposals, matched, labels)
    )
    if not any(len(own) for own in labels):
        return dict.fromkeys(("class", "box", "mask"), _nothing(roi_heads))
    sizes = [(one.masks.shape[1], one.masks.shape[2]) for one in truth]
    # Without objects all are background, whose box is not looked at.
    ends = [own[at] if len(own) else near for own, at, near in zip(boxes, matched, proposals, strict=True)]
    found = roi_heads.box_predictor(roi_heads.box_head(roi_heads.box_roi_pool(features, proposals, sizes)))
    class_loss, box_loss = fastrcnn_loss(*found, labels, roi_heads.box_coder.encode(ends, proposals))
    places, matched = ([own[at > 0] for own, at in zip(every, labels, strict=True)] for every in (proposals, matched))
    masks = roi_heads.mask_predictor(roi_heads.mask_head(roi_heads.mask_roi_pool(features, places, sizes)))
    mask_loss = maskrcnn_loss(masks, places, [one.masks for one in truth], classes, matched)
    return {"class": class_loss, "box": box_loss, "mask": mask_loss}


def _ends(is_there: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the last True of each row, (n,) each."""
    there = is_there.long()
    return there.argmax(dim=1), there.shape[1] - 1 - there.flip(1).argmax(dim=1)


def _nothing(module: nn.Module) -> Tensor:
    """Return 0, with a gradient of 0 for every parameter: ranks that train together expect one of each."""
    return torch.stack([value.sum() for value in module.parameters()]).sum() * 0
