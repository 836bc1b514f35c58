"""What networks learn from labels of pixels, whatever else they learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from wsiseg.heads.terms import with_total
from wsiseg.losses.semantic import combo
from wsiseg.methods.predictor import head_of
from wsiseg.nets.hce import HCENet
from wsiseg.nets.maskrcnn import MaskRCNN
from wsiseg.nets.pgfanet import PGFANet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from wsiseg.checkpoint import ModelCard


def outputs_of(net: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    """Return what a network says of images: its output, float32 (B, maps, H, W), and those beside it if any.

    Beside it are the output of the first of two stages, or those of auxiliary decoders.
    Of Mask R-CNN, which must know what is there to learn it, the features that all of its heads look at.

    Parameters
    ----------
    net
        The network.
    images
        float (B, 3, H, W), normalised.
    """
    if isinstance(net, MaskRCNN):
        return net.features(images)
    said: Sequence[Tensor]
    if isinstance(net, PGFANet):
        # Its first stage guides the second one, and learns what to show it from labels alone.
        said = net.both(images, perturb=False)
    else:
        said = net.opinions(images, perturb=False) if isinstance(net, HCENet) else (net(images),)
    return tuple(maps.float() for maps in said)


def loss_of(
    net: nn.Module, card: ModelCard, *, dice_weight: float
) -> Callable[[Sequence[Tensor], dict[str, Tensor]], dict[str, Tensor]]:
    """Return what makes of `outputs_of` some images, and of their targets, ``loss`` and its parts.

    Parameters
    ----------
    net, card
        The network, and the model to be.
    dice_weight
        Weight of the soft Dice loss, for classes of pixels.
    """
    return ObjectLoss(net) if isinstance(net, MaskRCNN) else LabelLoss(card, dice_weight=dice_weight)


class ObjectLoss:
    """The losses of the heads of a Mask R-CNN, which all count the same.

    Parameters
    ----------
    net
        The network.
    """

    def __init__(self, net: MaskRCNN) -> None:
        self._net = net

    def __call__(self, outputs: Sequence[Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``loss`` and its parts; see `loss_of`."""
        return with_total(**self._net.losses(outputs, targets["objects"], targets["valid"]))


class LabelLoss:
    """For classes of pixels cross-entropy and Dice, for objects the loss of their head.

    Parameters
    ----------
    card
        The model to be.
    dice_weight
        Weight of the soft Dice loss, for classes of pixels.
    """

    def __init__(self, card: ModelCard, *, dice_weight: float) -> None:
        self._head = head_of(card)
        self._dice_weight = dice_weight

    def __call__(self, outputs: Sequence[Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``loss`` and its parts; what is beside the output learns, too, and ``aux`` is its mean loss.

        Parameters
        ----------
        outputs
            Those of the images with labels; see `outputs_of`.
        targets
            Of these images.
        """
        losses, *others = (self._of(maps, targets) for maps in outputs)
        if not others:
            return losses
        aux = torch.stack([other["loss"] for other in others]).mean()
        return {**losses, "loss": losses["loss"] + aux, "aux": aux.detach()}

    def _of(self, maps: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        if self._head is not None:
            return self._head.loss(maps, targets)
        return combo(maps, targets["classes"].long(), dice_weight=self._dice_weight)
