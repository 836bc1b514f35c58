"""What methods that learn from labels of pixels have in common: a network, what labels mean to it, and its card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import Field, JsonValue

from wsiseg.checkpoint import HeadSpec, ModelCard, Normalisation
from wsiseg.config import Config, load
from wsiseg.errors import MethodError
from wsiseg.heads.registry import make_head
from wsiseg.initial_weights import initialise, read_weights
from wsiseg.labels import IGNORE
from wsiseg.methods.predictor import head_of
from wsiseg.nets.factory import DEEPLAB, VOLUMETRIC, spec_type
from wsiseg.nets.hce import HCE
from wsiseg.nets.maskrcnn import MASKRCNN
from wsiseg.nets.pgfanet import PGFANET

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from wsiseg.methods.base import Encode, TrainingFacts

SEMANTIC: Final = "semantic"
# The head in whose words Mask R-CNN says what it has found.
_CENTRE: Final = "centre"
# Networks that do not tell theirs shrink images by this at most.
LARGEST_STRIDE: Final = 32


class NetOptions(Config):
    """Which network learns, and what its output means.

    Parameters
    ----------
    arch
        ``unet-gn``, a small U-Net with group normalisation; ``deeplabv3+``, the network of methods that learn from
        patch labels; ``pgfanet``, ``dual-unet`` or ``hce``, the networks of the methods ``pgfanet``, ``ugmcl`` and
        ``hce``; ``maskrcnn``, which finds objects one by one; an architecture of segmentation-models-pytorch; or for
        volumes ``unet3d`` or ``vnet``.
    encoder
        A timm or segmentation-models-pytorch encoder, for architectures that take one; for ``maskrcnn`` one of
        torchvision.
    init
        Weights that the network begins with: ``none``, ``imagenet`` for its encoder (downloaded), or a file or
        model of any part of it.
    net
        Further settings of the network, such as ``widths`` of ``unet-gn``.
    head
        ``semantic`` for classes of pixels, or an instance head such as ``flow`` for objects; ``auto`` takes
        ``semantic`` for layers of classes, and for layers of instances the head that is usual for the method; for
        ``maskrcnn`` it is ``centre``.
    head_options
        Settings of the instance head, those of its decoding included.
    normalisation
        Mean and standard deviation of the colours, 0 … 1. None leaves them to the network where that is ``deeplabv3+``:
        encoders of timm take those of their published weights, and ``resnet101`` takes 0 … 1 as they are, as published
        for the task. ``pgfanet``, ``hce`` and ``maskrcnn`` get colours as their encoders do on ImageNet. Other networks
        get colours as usual in H&E, with weights of ImageNet, too.
    tile_px
        Side of the tiles in prediction; the crop's where None.
    halo_px
        Pixels at a tile's edge whose output is not used; None takes what the head needs, or an eighth of the tile.
    description, licence
        Kept with the model.
    """

    arch: str = "unet-gn"
    encoder: str | None = None
    init: str = "none"
    net: dict[str, JsonValue] = Field(default_factory=dict)
    head: str = "auto"
    head_options: dict[str, JsonValue] = Field(default_factory=dict)
    normalisation: Normalisation | None = None
    tile_px: int | None = Field(default=None, gt=0)
    halo_px: int | None = Field(default=None, ge=0)
    description: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTargets:
    """Makes targets for classes of pixels.

    Parameters
    ----------
    num_classes
        Classes 0 … n - 1.
    kind
        What the labels are; every object of a layer of instances is of class 1.
    """

    num_classes: int
    kind: str

    def __call__(self, labels: NDArray[np.int32], valid: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        """Return ``classes``, uint8 (H, W), 255 where nothing may be learnt.

        Raises
        ------
        MethodError
            If a label belongs to no class.
        """
        if self.kind == "instances":
            labels = (labels > 0).astype(np.int32)
        classes = np.where(valid, labels, IGNORE).astype(np.uint8)
        unknown = (classes >= self.num_classes) & (classes != IGNORE)
        if unknown.any():
            raise MethodError(
                f"the labels hold class {classes[unknown][0]}, and the layer names only {self.num_classes} classes",
                mend="Make the store again with a complete list of classes",
            )
        return {"classes": classes}


def make_card(options: NetOptions, facts: TrainingFacts, *, objects: str = "flow") -> ModelCard:
    """Return the card of the model to be.

    Parameters
    ----------
    options, facts
        What is asked for, and what is known of the data.
    objects
        Head that ``auto`` takes for layers of instances.

    Raises
    ------
    MethodError
        If the classes have gaps, the head does not suit the labels, or the network does not suit the data.
    """
    of_volumes = facts.volume is not None
    if (options.arch in VOLUMETRIC) != of_volumes:
        raise MethodError(
            f"{options.arch} is no network of {'volumes' if of_volumes else 'images'}",
            where="--arch",
            mend=f"Take {' or '.join(VOLUMETRIC)}" if of_volumes else "Take one of images, such as unet-gn",
        )
    indices = [label.index for label in facts.labels.labels]
    if indices != list(range(len(indices))) or len(indices) < 2:  # noqa: PLR2004 - background and something
        raise MethodError(
            f"classes must be numbered 0, 1, … without gaps, two at least; the layer has {indices}",
            mend="Make the store again with other class indices",
        )
    head = _head_spec(options, facts.kind, objects)
    tile_px = options.tile_px or facts.crop_px
    return ModelCard(
        name=facts.name,
        description=options.description,
        task="semantic" if head is None else "instance",
        labels=facts.labels,
        mpp=facts.mpp,
        tile_px=tile_px,
        halo_px=_halo_px(head, tile_px) if options.halo_px is None else options.halo_px,
        normalisation=options.normalisation or _normalisation(options.arch),
        net=_net_spec(options),
        head=head,
        volume=facts.volume,
        training_data=facts.training_data,
        licence=options.licence,
    )


def make_encode(card: ModelCard, kind: str) -> Encode:
    """Return what makes targets out of labels of a kind for a model."""
    head = head_of(card)
    if head is None:
        return ClassTargets(num_classes=len(card.labels), kind=kind)
    return object_targets if card.net["arch"] == MASKRCNN else head.targets


def object_targets(labels: NDArray[np.int32], valid: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """Return ``objects``, int32 (H, W) with positive ids, and ``valid``, bool (H, W)."""
    return {"objects": labels, "valid": valid}


def begin(net: nn.Module, options: NetOptions, card: ModelCard, facts: TrainingFacts) -> None:
    """Give a network the weights that it begins with, and see that crops and tiles fit it.

    Raises
    ------
    MethodError
        If they do not.
    DataError
        If the weights cannot be read or are not of the network.
    """
    if options.init not in ("none", "imagenet"):
        initialise(net, read_weights(Path(options.init)), where=Path(options.init))
    stride = getattr(net, "stride", LARGEST_STRIDE)
    if facts.volume is not None:
        if any(side % stride for side in facts.volume.patch):
            raise MethodError(
                f"windows of {' × '.join(map(str, facts.volume.patch))} voxels do not fit the network {options.arch}",
                mend=f"Use multiples of {stride}",
            )
    elif facts.crop_px % stride or card.tile_px % stride:
        raise MethodError(
            f"crops of {facts.crop_px} px and tiles of {card.tile_px} px do not fit the network {options.arch}",
            mend=f"Use multiples of {stride}",
        )


def _head_spec(options: NetOptions, kind: str, objects: str) -> HeadSpec | None:
    name = options.head
    if name == "auto":
        name = objects if kind == "instances" else SEMANTIC
        if options.arch == MASKRCNN:
            name = _CENTRE
    if options.arch == MASKRCNN and name != _CENTRE:
        raise MethodError(
            f"{MASKRCNN} finds objects without the maps of the head {name!r}",
            where="--head",
            mend="Leave it out",
        )
    if name == SEMANTIC:
        return None
    if kind != "instances":
        raise MethodError(
            f"the head {name!r} learns single objects, and the layer holds classes of pixels",
            where="--head",
            mend="Use --head semantic, or a layer of instances",
        )
    return HeadSpec(kind=name, options=options.head_options)


def _normalisation(arch: str) -> Normalisation:
    if arch == DEEPLAB:
        # Its encoders know the colours that they were trained on.
        return Normalisation.none()
    return Normalisation.imagenet() if arch in (HCE, MASKRCNN, PGFANET) else Normalisation()


def _halo_px(head: HeadSpec | None, tile_px: int) -> int:
    if head is None:
        return tile_px // 8
    # Small tiles must keep something of themselves.
    return min(make_head(head.kind, **head.options).halo, tile_px // 4)


def _net_spec(options: NetOptions) -> dict[str, JsonValue]:
    settings = spec_type(options.arch)
    if options.init == "imagenet" and "encoder_weights" not in settings.model_fields:
        raise MethodError(
            f"there are no weights of {options.arch} to download",
            where="--init",
            mend="Pass a file of its weights, or do without",
        )
    weights = "imagenet" if options.init == "imagenet" else None
    given = {"arch": options.arch, "encoder": options.encoder, "encoder_weights": weights, **options.net}
    spec: dict[str, JsonValue] = load(settings, options=given).model_dump(mode="json")
    return spec
