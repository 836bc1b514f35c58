"""Encoders of timm as makers of features at several resolutions."""

from __future__ import annotations

import difflib
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wsiseg.errors import MethodError

Weights = Literal["imagenet"]


def unknown(what: str, name: str, known: list[str]) -> MethodError:
    """Return the error for a name that is not in a list, with what was probably meant."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    mend = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known[:12])}"
    return MethodError(f"there is no {what} {name!r}", mend=mend)


def no_weights(name: str, error: Exception) -> MethodError:
    """Return the error for trained weights that cannot be downloaded."""
    first = str(error).strip().partition("\n")[0]
    return MethodError(
        f"the trained weights of the encoder {name} cannot be had ({first or type(error).__name__})",
        mend="Check the connection, pass a file of them with --init FILE, or copy the caches of a machine that has "
        f"them: {torch.hub.get_dir()}, and that of the Hugging Face hub",
    )


class Encoder(nn.Module):
    """An encoder of timm, which maps images to features at several resolutions, shallow to deep.

    Colours 0 … 1 become what the encoder's published weights were trained on: each family has a mean and a standard
    deviation of its own.

    Parameters
    ----------
    name
        Of a model in timm, such as ``resnet18``.
    output_stride
        Pixels of the image per position of the deepest features, 8 or 16. Encoders that cannot
        dilate their convolutions keep their own, often 32.
    weights
        None for random ones; ``imagenet`` downloads trained ones.

    Attributes
    ----------
    channels, strides, names
        Of the features: channels, pixels per position, and modules that they come from.

    Raises
    ------
    MethodError
        If there is no such encoder, it gives no features, or its weights cannot be downloaded.
    """

    def __init__(self, name: str, *, output_stride: int, weights: Weights | None = None) -> None:
        super().__init__()
        # timm has no types for what its encoders tell about themselves.
        features: Any = _features(name, output_stride=output_stride, weights=weights)
        info, colours = features.feature_info, features.pretrained_cfg
        self.features = features
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())
        self.names: tuple[str, ...] = tuple(info.module_name())
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(colours[key]).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return features of RGB images (B, 3, H, W), 0 … 1."""
        found: list[Tensor] = self.features((images - self.get_buffer("mean")) / self.get_buffer("std"))
        return found


def _features(name: str, *, output_stride: int, weights: Weights | None) -> nn.Module:
    import timm

    # A tag after a full stop says which trained weights.
    if name.partition(".")[0] not in timm.list_models():
        raise unknown("encoder", name, timm.list_models())
    stride: int | None = output_stride
    try:
        try:
            net = _created(name, stride)
        except (TypeError, NotImplementedError):
            stride = None
            net = _created(name, stride)
    except (RuntimeError, TypeError, NotImplementedError, AssertionError, ValueError, AttributeError) as error:
        raise MethodError(
            f"the encoder {name} gives no features ({error})", mend="Choose another encoder, such as resnet18"
        ) from error
    if weights is None:
        return net
    try:
        return _created(name, stride, pretrained=True)
    except Exception as error:  # the clients that download share no base class
        raise no_weights(name, error) from error


def _created(name: str, output_stride: int | None, *, pretrained: bool = False) -> nn.Module:
    import timm

    # Encoders that cannot dilate do not know the setting, not even as None.
    if output_stride is None:
        return timm.create_model(name, pretrained=pretrained, features_only=True)
    return timm.create_model(name, pretrained=pretrained, features_only=True, output_stride=output_stride)
