"""Networks by name: our own, and those of segmentation_models_pytorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field, model_validator

from wsiseg.config import Config
from wsiseg.errors import MethodError
from wsiseg.nets.attending import ATTENDING, AttendingSpec, build_attending
from wsiseg.nets.deeplab import build_deeplab
from wsiseg.nets.dual_unet import DUAL_UNET, DualTaskUNet, DualUNetSpec
from wsiseg.nets.encoders import no_weights, unknown
from wsiseg.nets.gated import CAM, GATED, CamSpec, GatedSpec, build_cam, build_gated
from wsiseg.nets.hce import HCE, HCENet, HCESpec
from wsiseg.nets.maskrcnn import MASKRCNN, MaskRCNNSpec, build_maskrcnn
from wsiseg.nets.pgfanet import PGFANET, PGFANetSpec, build_pgfanet
from wsiseg.nets.two_task import TWO_TASK, DroppingNet, TwoTaskNet, TwoTaskSpec
from wsiseg.nets.unet import UNet
from wsiseg.nets.unet3d import UNET3D, UNet3d, UNet3dSpec
from wsiseg.nets.vnet import VNET, VNet, VNetSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

OURS: Final = "unet-gn"
DEEPLAB: Final = "deeplabv3+"
# Our name of an architecture, and its name in segmentation_models_pytorch.
_LIBRARY: Final = {
    "unet": "Unet",
    "unet++": "UnetPlusPlus",
    "manet": "MAnet",
    "linknet": "Linknet",
    "fpn": "FPN",
    "pan": "PAN",
    "deeplabv3": "DeepLabV3",
    "upernet": "UPerNet",
    "segformer": "Segformer",
}
ARCHITECTURES: Final = (OURS, DEEPLAB, *_LIBRARY)
# Networks of volumes.
VOLUMETRIC: Final = (UNET3D, VNET)
_TIMM: Final = "tu-"
_GROUPS: Final = 8


class NetSpec(Config):
    """Which network; all that is needed to build it again.

    Parameters
    ----------
    arch
        One of `ARCHITECTURES`. `widths` and `skip` are settings of ``unet-gn``, our own small
        U-Net; `encoder` and `encoder_weights` are settings of the others. ``deeplabv3+`` is ours,
        too, and takes colours 0 … 1 as they are.
    widths
        Channels at each level, from full resolution down; multiples of 8.
    skip
        How features of a level meet those from below: ``add`` (cheaper) or ``concat``.
    encoder
        Encoder of segmentation_models_pytorch, or one of timm's as ``tu-<name>``; for
        ``deeplabv3+`` always one of timm's, with or without ``tu-``.
    encoder_weights
        None for random weights; ``imagenet`` downloads trained ones.
    dropout
        Part of the channels that are dropped of the deepest features, and of those that the output is made of;
        ``deeplabv3+`` has dropout of its own instead.
    """

    arch: str = OURS
    widths: tuple[int, ...] = Field(default=(32, 64, 128, 256), min_length=1, max_length=8)
    skip: Literal["add", "concat"] = "add"
    encoder: str = "resnet34"
    encoder_weights: Literal["imagenet"] | None = None
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _check(self) -> NetSpec:
        if any(width < 1 or width % _GROUPS for width in self.widths):
            raise ValueError(f"widths are multiples of {_GROUPS}, the number of groups they are normalised in")
        return self


def build_net(spec: NetSpec, in_channels: int, out_channels: int) -> nn.Module:
    """Return a network that maps images (B, in_channels, H, W) to raw output (B, out_channels, H, W).

    H and W are multiples of 32, or for ``unet-gn`` of its ``stride``. Only with
    ``encoder_weights = "imagenet"`` is the internet used; otherwise the weights depend on
    torch's random state alone.

    Raises
    ------
    MethodError
        If the architecture or encoder is unknown, the two do not go together, or weights
        cannot be downloaded.
    """
    if spec.arch == OURS:
        if spec.encoder_weights is not None:
            raise MethodError(
                f"there are no weights of {OURS} to download", mend="Pass a file of its weights, or do without"
            )
        return UNet(in_channels, out_channels, widths=spec.widths, skip=spec.skip, groups=_GROUPS, dropout=spec.dropout)
    if spec.arch == DEEPLAB:
        return build_deeplab(spec.encoder.removeprefix(_TIMM), out_channels, weights=spec.encoder_weights)
    if spec.arch not in _LIBRARY:
        raise unknown("network", spec.arch, [*ARCHITECTURES, DUAL_UNET, HCE, MASKRCNN, PGFANET, *VOLUMETRIC])
    _check_encoder(spec.encoder)
    try:
        net = _from_library(spec, in_channels, out_channels, weights=None)
    except (ValueError, KeyError, IndexError, RuntimeError, NotImplementedError, AssertionError, TypeError) as error:
        raise MethodError(
            f"{spec.arch} cannot be built on the encoder {spec.encoder} ({error})",
            mend="Choose another encoder, such as resnet34",
        ) from error
    if spec.encoder_weights is None:
        return net
    try:
        return _from_library(spec, in_channels, out_channels, weights=spec.encoder_weights)
    except Exception as error:  # the clients that download share no base class
        raise no_weights(spec.encoder, error) from error


def _from_library(spec: NetSpec, in_channels: int, out_channels: int, *, weights: str | None) -> nn.Module:
    # Takes seconds to import, and our own network does without.
    import segmentation_models_pytorch as smp

    # For timm's encoders the name says which weights; anything but a truth value gives a warning.
    trained = weights if weights is None or not spec.encoder.startswith(_TIMM) else True
    net: nn.Module = getattr(smp, _LIBRARY[spec.arch])(
        encoder_name=spec.encoder, encoder_weights=trained, in_channels=in_channels, classes=out_channels
    )
    return DroppingNet(net, spec.dropout) if spec.dropout else net


def _check_encoder(name: str) -> None:
    if name.startswith(_TIMM):
        import timm

        known = [_TIMM + model for model in timm.list_models()]
        # A tag after a full stop says which trained weights.
        if name.partition(".")[0] not in known:
            raise unknown("encoder", name, known)
    else:
        import segmentation_models_pytorch as smp

        known = [encoder for encoder in smp.encoders.encoders if not encoder.startswith("timm-")]
        if name not in known:
            raise unknown("encoder", name, known)


def _two_task(spec: TwoTaskSpec, in_channels: int, out_channels: int) -> nn.Module:
    maps = out_channels if spec.joined else out_channels + spec.level_sets
    net = build_net(NetSpec.model_validate(spec.net), in_channels, maps)
    return TwoTaskNet(net, maps, level_sets=spec.level_sets, joined=spec.joined)


# Networks with settings of their own: the type of these, and what makes the network from them, the channels of
# images and the maps of the output.
_OWN: Final[dict[str, tuple[type[Config], Callable[[Any, int, int], nn.Module]]]] = {
    ATTENDING: (AttendingSpec, lambda spec, _, maps: build_attending(spec, maps)),
    CAM: (CamSpec, lambda spec, _, maps: build_cam(spec, maps)),
    DUAL_UNET: (DualUNetSpec, lambda spec, channels, maps: DualTaskUNet(channels, maps, spec)),
    GATED: (GatedSpec, lambda spec, _, maps: build_gated(spec, maps)),
    HCE: (HCESpec, lambda spec, _, maps: HCENet(spec, maps)),
    MASKRCNN: (MaskRCNNSpec, lambda spec, *_: build_maskrcnn(spec)),
    PGFANET: (PGFANetSpec, lambda spec, _, maps: build_pgfanet(spec, maps)),
    TWO_TASK: (TwoTaskSpec, _two_task),
    UNET3D: (UNet3dSpec, lambda spec, channels, maps: UNet3d(channels, maps, spec)),
    VNET: (VNetSpec, lambda spec, channels, maps: VNet(channels, maps, spec)),
}


def spec_type(arch: str) -> type[Config]:
    """Return the type of the settings of a network; an unknown one is found out when it is built."""
    return _OWN[arch][0] if arch in _OWN else NetSpec


def build_described(net: Mapping[str, object], in_channels: int, out_channels: int) -> nn.Module:
    """Return the untrained network that a model's card describes, whatever its kind.

    Raises
    ------
    MethodError
        If something of it is unknown.
    ValidationError
        If the description is damaged.
    """
    arch = str(net.get("arch", OURS))
    if arch not in _OWN:
        return build_net(NetSpec.model_validate(net), in_channels, out_channels)
    settings, build = _OWN[arch]
    return build(settings.model_validate(net), in_channels, out_channels)
