"""Encoders of timm as makers of features at several resolutions."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Literal

from wsiseg.errors import MethodError

if TYPE_CHECKING:
    from torch import nn

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
        mend="Check the connection or fetch them once on a machine that has one, or do without",
    )


def timm_features(name: str, *, output_stride: int, weights: Weights | None = None) -> nn.Module:
    """Return a network that maps images (B, 3, H, W) to a list of features, shallow to deep.

    The result has timm's ``feature_info``. Only with `weights` is the internet used.

    Parameters
    ----------
    name
        Of a model in timm, such as ``resnet18``.
    output_stride
        Pixels of the image per position of the deepest features, 8 or 16. Encoders that cannot
        dilate their convolutions keep their own, often 32.
    weights
        None for random ones.

    Raises
    ------
    MethodError
        If there is no such encoder, it gives no features, or its weights cannot be downloaded.
    """
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
