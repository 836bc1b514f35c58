"""Where an image shows its classes, from gradients of a classifier: maps, masks and pictures of them.

Shapes: B images, C classes, D channels, H × W pixels, h × w positions of a layer.

References
----------
.. [1] Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
   Localization", ICCV 2017.
.. [2] Han et al., "Multi-Layer Pseudo-Supervision for Histopathology Tissue Semantic Segmentation
   using Patch-level Classification Labels", Medical Image Analysis 2022.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from wsiseg.errors import DataError
from wsiseg.labels import IGNORE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def grad_cam(tapped: Callable[[Tensor], tuple[Sequence[Tensor], Tensor]], images: Tensor) -> tuple[Tensor, ...]:
    """Return the maps of all classes at several layers of a classifier.

    A map is the sum of a layer's channels, each weighted with the mean gradient of the class's
    logit. It is not rectified. There is one forward pass, and one backward pass for each class.

    Parameters
    ----------
    tapped
        Gives for images the features (B, D, h, w) of some layers and the logits (B, C) that
        follow from them. The network is in evaluation mode, so that images of a batch do not
        touch each other; its parameters may be frozen.
    images
        float (B, 3, H, W).

    Returns
    -------
    tuple[Tensor, ...]
        float (B, C, h, w) for each layer, of any sign, without gradient.
    """
    with torch.enable_grad():
        # Frozen parameters alone would leave the layers without a gradient.
        taps, logits = tapped(images.detach().requires_grad_())
        # Images do not touch each other, so the gradient of a sum is that of each image.
        totals = logits.sum(dim=0).unbind()
    maps: list[list[Tensor]] = [[] for _ in taps]
    for total in totals:
        gradients = torch.autograd.grad(total, list(taps), retain_graph=True)
        for planes, features, gradient in zip(maps, taps, gradients, strict=True):
            weights = gradient.mean(dim=(2, 3), keepdim=True)
            planes.append((weights * features.detach()).sum(dim=1))
    return tuple(torch.stack(planes, dim=1) for planes in maps)


def pseudo_masks(maps: Tensor, present: Tensor, size: tuple[int, int], white: Tensor | None = None) -> Tensor:
    """Return for each pixel the class whose map is highest among those that the image is known to show.

    There is no threshold: a pixel that is not white belongs to a class. Maps are compared as they
    are; adding a number to all of them, or scaling them, changes nothing.

    Parameters
    ----------
    maps
        float (B, C, h, w), as `grad_cam` gives them.
    present
        bool (B, C): the classes that each image shows.
    size
        Height and width of the masks; maps are interpolated to it.
    white
        bool (B, H, W): pixels without tissue; None where there is no such class of pixels.

    Returns
    -------
    Tensor
        uint8 (B, H, W): class indices, 255 on white.

    Raises
    ------
    DataError
        If an image shows no class at all.
    """
    _check_present(present)
    scores = _interpolated(maps, size).masked_fill(~present[:, :, None, None], -torch.inf)
    masks = scores.argmax(dim=1).to(torch.uint8)
    return masks if white is None else masks.masked_fill(white, IGNORE)


def pseudo_confidence(maps: Tensor, present: Tensor, size: tuple[int, int], white: Tensor | None = None) -> Tensor:
    """Return how clearly the class of each pixel of `pseudo_masks` wins, in percent.

    It is (1 + lead) / 2, the lead being that of the highest map over the second, as a part of the
    range of the maps of all classes that the image shows: 50 where two classes are equal, and 100
    all over an image that shows one class. Like the masks it does not change when a number is added
    to all maps, or when they are scaled. It is no probability, and an addition to [2]_, where
    nothing of the kind is kept.

    Parameters
    ----------
    maps, present, size, white
        As for `pseudo_masks`.

    Returns
    -------
    Tensor
        uint8 (B, H, W): 50 … 100, and 255 on white.

    Raises
    ------
    DataError
        If an image shows no class at all.
    """
    _check_present(present)
    planes, absent = _interpolated(maps, size), ~present[:, :, None, None]
    scores, depths = planes.masked_fill(absent, -torch.inf), planes.masked_fill(absent, torch.inf)
    span = scores.amax(dim=(1, 2, 3)) - depths.amin(dim=(1, 2, 3))
    span = span.clamp(min=torch.finfo(planes.dtype).tiny)[:, None, None]
    # One class alone leads over one that is infinitely low.
    rivals = functional.pad(scores, (0, 0, 0, 0, 0, 1), value=-torch.inf)
    first, second = rivals.topk(2, dim=1).values.unbind(dim=1)
    percent = (50 + 50 * ((first - second) / span).clamp(max=1)).round().to(torch.uint8)
    return percent if white is None else percent.masked_fill(white, IGNORE)


def heat_maps(maps: Tensor, present: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps on one scale for all classes of an image, to look at.

    Parameters
    ----------
    maps
        float (B, C, h, w), as `grad_cam` gives them.
    present
        bool (B, C): the classes that each image shows; others stay 0.
    size
        Height and width of the result.

    Returns
    -------
    Tensor
        float (B, C, H, W), 0 … 1 from the lowest to the highest value of any class in the image;
        0 where all are equal.
    """
    maps = _interpolated(maps, size)
    lowest, highest = maps.amin(dim=(1, 2, 3), keepdim=True), maps.amax(dim=(1, 2, 3), keepdim=True)
    scaled = (maps - lowest) / (highest - lowest).clamp(min=torch.finfo(maps.dtype).tiny)
    return scaled * present[:, :, None, None]


def _interpolated(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False)


def _check_present(present: Tensor) -> None:
    empty = (~present.any(dim=1)).nonzero().flatten().tolist()
    if empty:
        raise DataError(
            f"image {empty[0]} of the batch shows no class",
            mend="Leave images without a label out",
        )
