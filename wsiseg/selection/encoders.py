"""Encoders that make one vector of an image, and where their weights come from.

Nothing is fetched from the network unless the user allows it: what lies in the caches of torch and of the Hugging Face
hub is used, and where it does not, one error says what can be done.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsiseg.config import Config
from wsiseg.errors import MethodError
from wsiseg.initial_weights import initialise, read_weights
from wsiseg.nets.encoders import no_weights, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT: Final = "resnet50"
TRAINED: Final = "imagenet"
RANDOM: Final = "none"
_TORCHVISION: Final = "torchvision/"
_HUB: Final = "hf-hub:"
_FOLDER: Final = "local-dir:"
_PUBLISHED: Final = "IMAGENET1K_V1"
_IMAGENET: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HUB_WEIGHTS: Final = ("model.safetensors", "pytorch_model.bin")
_TRIED_PX: Final = (64, 128)
# What networks raise at images of a size that they do not take.
_REFUSALS: Final = (RuntimeError, AssertionError, ValueError)
_WHITE: Final = 255.0


class EncoderSpec(Config):
    """Which encoder, and how images are given to it.

    Parameters
    ----------
    encoder
        ``resnet50``, torchvision's, as published; another one of torchvision's as ``torchvision/<name>``; the name of a
        model of timm; a folder with the ``config.json`` and the weights of one; or ``hf-hub:<owner>/<name>``.
    init
        ``imagenet`` for the weights that were published with it (for ``resnet50`` the first ones of torchvision, which
        the published method used), ``none`` for random ones, or a file of weights.
    preproc
        ``imagenet`` gives colours the mean and the standard deviation that the weights were trained with, for most
        encoders those of ImageNet; ``unit`` leaves them at 0 … 1, as published.
    download
        Fetch from the network what is not on this machine.
    """

    encoder: str = DEFAULT
    init: str = TRAINED
    preproc: Literal["imagenet", "unit"] = "imagenet"
    download: bool = False


class ImageEncoder(nn.Module):
    """A frozen network that makes one vector of each image.

    Parameters
    ----------
    net
        Maps (B, 3, H, W) to (B, D).
    mean, std
        Of the colours 0 … 1 that it wants, for each channel.
    side_px
        Edge of the images that it takes, to which others are resized; None where it takes any.
    tried_px
        Edge of an image that it is tried with if it takes any.

    Raises
    ------
    MethodError
        If it takes no such images, or does not make one vector of each.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        mean: tuple[float, ...] = (0.0, 0.0, 0.0),
        std: tuple[float, ...] = (1.0, 1.0, 1.0),
        side_px: int | None = None,
        tried_px: int = _TRIED_PX[0],
    ) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(requires_grad=False)
        self.side_px = side_px
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        try:
            tried = _tried(self.net, side_px or tried_px)
        except _REFUSALS as error:
            raise MethodError(
                f"the encoder takes no images of {side_px or tried_px} px ({_first_line(error)})",
                mend="Choose another --encoder",
            ) from error
        if not isinstance(tried, Tensor) or tried.shape != (1, tried.numel()):
            raise MethodError("the encoder does not make one vector of an image", mend="Choose another --encoder")
        self.dimensions = int(tried.numel())

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (B, D) of RGB images (B, 3, H, W), uint8."""
        colours = images.float() / _WHITE
        if self.side_px is not None and colours.shape[2:] != (self.side_px, self.side_px):
            colours = functional.interpolate(
                colours, size=(self.side_px, self.side_px), mode="bilinear", align_corners=False, antialias=True
            )
        features: Tensor = self.net((colours - self.get_buffer("mean")) / self.get_buffer("std"))
        return features

    def fingerprint(self) -> str:
        """Return a hash of the weights."""
        digest = hashlib.blake2b(digest_size=16)
        for name, value in sorted(self.net.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def build_encoder(spec: EncoderSpec, *, sides_px: tuple[int, int] = _TRIED_PX) -> ImageEncoder:
    """Return the encoder that `spec` names, on the CPU.

    Random weights are always the same.

    Parameters
    ----------
    spec
        Which.
    sides_px
        Smallest and largest side of the images that it will get. If it does not take both as they are, images are
        resized to the side that its weights were published for.

    Raises
    ------
    MethodError
        If there is no such encoder, or its weights are not on this machine and may not or cannot be fetched.
    DataError
        If a file of weights cannot be read or does not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if spec.encoder == DEFAULT or spec.encoder.startswith(_TORCHVISION):
            net, (mean, std), published_px, is_fixed = _from_torchvision(spec)
        else:
            net, (mean, std), published_px, is_fixed = _from_timm(spec)
    side = published_px if is_fixed or not _takes(net.eval(), sides_px) else None
    if spec.preproc == "unit":
        return ImageEncoder(net, side_px=side, tried_px=sides_px[0])
    return ImageEncoder(net, mean=tuple(mean), std=tuple(std), side_px=side, tried_px=sides_px[0])


def _takes(net: nn.Module, sides_px: tuple[int, ...]) -> bool:
    """Tell whether a network makes vectors of one length of images of several sizes."""
    try:
        return len({_tried(net, side).numel() for side in sides_px}) == 1
    except _REFUSALS:
        return False


@torch.inference_mode()
def _tried(net: nn.Module, side_px: int) -> Tensor:
    found: Tensor = net(torch.zeros(1, 3, side_px, side_px))
    return found


# The network, the colours and the side that its weights were published for, and whether it was for that side alone.
_Built = tuple[nn.Module, tuple[tuple[float, ...], tuple[float, ...]], int, bool]


def _from_torchvision(spec: EncoderSpec) -> _Built:
    import torchvision.models as zoo

    name = spec.encoder.removeprefix(_TORCHVISION)
    known = zoo.list_models(module=zoo)
    if name not in known:
        raise unknown("encoder", spec.encoder, [_TORCHVISION + model for model in known])
    net: nn.Module = zoo.get_model(name, weights=None)
    published = zoo.get_model_weights(name)
    weights = published[_PUBLISHED] if _PUBLISHED in published.__members__ else published.DEFAULT
    _begin(
        net,
        spec,
        cached=lambda: _existing(Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]),
        fetch=lambda: weights.get_state_dict(progress=False, check_hash=True),
    )
    # The classifier is the last module of each of them.
    head = list(dict(net.named_children()))[-1]
    setattr(net, head, nn.Identity())
    return nn.Sequential(net, nn.Flatten()), _IMAGENET, int(weights.transforms().crop_size[0]), False


def _from_timm(spec: EncoderSpec) -> _Built:
    import timm

    name = _timm_name(spec)
    is_own = not name.startswith((_HUB, _FOLDER))
    # A tag after a full stop says which trained weights.
    if is_own and name.partition(".")[0] not in timm.list_models():
        raise unknown("encoder", name, [DEFAULT, *timm.list_models()])
    try:
        # A model of the hub is described there, so that both come from one place.
        net: Any = timm.create_model(name, pretrained=not is_own and spec.init == TRAINED)  # timm has no types
    except Exception as error:  # descriptions, networks and clients that download fail in many ways
        raise MethodError(
            f"the encoder {spec.encoder} cannot be built ({_first_line(error)})", mend="Choose another --encoder"
        ) from error
    colours: dict[str, Any] = net.pretrained_cfg
    if is_own or spec.init != TRAINED:
        _begin(net, spec, cached=lambda: _cached(colours), fetch=lambda: timm.create_model(name, pretrained=True))
    net.reset_classifier(0)
    side_px, is_fixed = int(colours["input_size"][-1]), bool(colours.get("fixed_input_size"))
    return net, (tuple(colours["mean"]), tuple(colours["std"])), side_px, is_fixed


def _timm_name(spec: EncoderSpec) -> str:
    """Return what timm calls the encoder; a model of the hub that was fetched before is a folder of its cache."""
    name = spec.encoder.removeprefix(_FOLDER)
    if Path(name).is_dir():
        return _FOLDER + name
    if not name.startswith(_HUB):
        return name
    if spec.download:
        return name
    found = _in_hub_cache(name.removeprefix(_HUB), ("config.json",))
    if found is None:
        raise _not_here(spec.encoder)
    return f"{_FOLDER}{found.parent}"


def _begin(
    net: nn.Module,
    spec: EncoderSpec,
    *,
    cached: Callable[[], Path | None],
    fetch: Callable[[], Any],
) -> None:
    """Give a network its weights: tensors by name, or those of another network of the kind."""
    if spec.init == RANDOM:
        return
    if spec.init != TRAINED:
        initialise(net, read_weights(Path(spec.init)), where=Path(spec.init))
        return
    path = cached()
    if path is not None:
        initialise(net, read_weights(path), where=path)
        return
    if not spec.download:
        raise _not_here(spec.encoder)
    try:
        found = fetch()
    except Exception as error:  # the clients that download share no base class
        raise no_weights(spec.encoder, error) from error
    net.load_state_dict(found.state_dict() if isinstance(found, nn.Module) else found)


def _cached(about: dict[str, Any]) -> Path | None:
    """Return the file of the weights that timm would load, if it was fetched before."""
    if about.get("hf_hub_id"):
        return _in_hub_cache(about["hf_hub_id"], (about.get("hf_hub_filename") or _HUB_WEIGHTS[0], *_HUB_WEIGHTS))
    if about.get("url"):
        return _existing(Path(torch.hub.get_dir()) / "checkpoints" / about["url"].rpartition("/")[2])
    return None


def _in_hub_cache(model: str, files: tuple[str, ...]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(model, file) for file in files)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _not_here(encoder: str) -> MethodError:
    return MethodError(
        f"the trained weights of {encoder} are not on this machine, and nothing is fetched unasked",
        mend="Pass --download to fetch them once, --init FILE with weights that lie here, or --init none: random "
        "weights tell colours and coarse texture, but little of tissue",
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
