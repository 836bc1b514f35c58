"""Objects as insides: a pixel is background, inside an object, or at its boundary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import Field
from scipy import ndimage
from scipy.special import softmax
from torch.nn import functional

from wsiseg.config import Config
from wsiseg.heads.base import Instances, above
from wsiseg.heads.symmetry import turned_back
from wsiseg.heads.terms import dice_loss, masked_mean, with_total
from wsiseg.heads.tidying import mean_in_objects, tidied
from wsiseg.labels import IGNORE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

INSIDE: Final = 1
BOUNDARY: Final = 2
_CLASSES: Final = 3
_LOGIT: Final = 20.0
_SURE: Final = 10.0
_NEIGHBOURS: Final = np.ones((3, 3), dtype=np.bool_)


class TernaryOptions(Config):
    """How objects become classes of pixels, and these become objects again.

    Parameters
    ----------
    erosion_px
        Layers of pixels that are taken off an object at first. What touches the cut from either side is boundary,
        so that insides lack one layer more.
    min_area_px
        Smaller insides are dropped.
    dilation_px
        Radius by which insides grow to be objects.
    reach_px
        Largest radius of an object that is found alike in all tiles.
    """

    erosion_px: int = Field(default=1, ge=1, le=16)
    min_area_px: int = Field(default=20, ge=1)
    dilation_px: int = Field(default=2, ge=0, le=16)
    reach_px: int = Field(default=32, ge=1, le=512)


class TernaryHead:
    """Three maps: logits of background, of the inside of an object and of its boundary.

    For its target an object loses its outermost pixels, those that touch anything else by a side; the pixels on
    both sides of the cut are the boundary, and what is left are insides, apart even where objects touch. Where the
    image ends, or what is known of it, nothing is taken off: the object may go on there. The loss
    is that of PG-FANet [1]_ on labels, cross-entropy and a Dice loss over all classes at once.

    Decoding takes each connected inside, drops the small ones and lets the others grow; where two meet, the one
    that comes later in the image wins. Unlike there, nothing grows over the inside of another object, and objects
    end up connected and without holes, as those of all heads.

    Parameters
    ----------
    options
        How to encode and decode. The defaults are those for nuclei, where both fit each other; [1]_ grows glands by
        4 pixels, which suits labels from which more was taken off.

    References
    ----------
    .. [1] Jin et al., "Inter- and intra-uncertainty based feature aggregation model for semi-supervised
       histopathology image segmentation", Expert Systems with Applications 238, 2024.
    .. [2] Qu et al., "Improving Nuclei/Gland Instance Segmentation in Histopathology Images by Full Resolution
       Neural Network and Spatial Constrained Loss", MICCAI 2019 (the three classes).
    """

    kind: Final = "ternary"
    channels: Final = _CLASSES
    background: Final = (_LOGIT, 0.0, 0.0)

    def __init__(self, options: TernaryOptions) -> None:
        self.options = options

    @property
    def halo(self) -> int:
        """Return how many pixels around an object its decoding may look at."""
        return self.options.reach_px + self.options.dilation_px

    def targets(self, label_map: NDArray[np.int32], valid: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        """Return classes and numbered insides.

        Returns
        -------
        dict[str, NDArray[Any]]
            ``classes`` uint8 (H, W): 0 background, 1 inside, 2 boundary, 255 where nothing may be learnt, and
            ``objects`` int32 (H, W): connected insides, numbered from 1.
        """
        left = np.where(label_map > 0, label_map, 0)
        unknown = ~valid & (left == 0)
        for _ in range(self.options.erosion_px):
            left = _eroded(left, unknown)
        inside = _eroded(left, unknown) > 0
        touched = left > 0
        for neighbour in list(_neighbours(touched)):
            touched = touched | neighbour
        classes = np.where(inside, INSIDE, np.where(touched, BOUNDARY, 0))
        classes = np.where(valid, classes, IGNORE).astype(np.uint8)
        objects, _ = ndimage.label(classes == INSIDE, structure=_NEIGHBOURS)
        return {"classes": classes, "objects": objects.astype(np.int32)}

    def perfect(self, targets: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the raw maps of a network that has learnt `targets` by heart; see `InstanceHead`."""
        known = np.where(targets["classes"] == IGNORE, 0, targets["classes"])
        return np.where(np.arange(_CLASSES)[:, None, None] == known, _SURE, 0).astype(np.float32)

    def loss(self, outputs: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``loss`` and its parts ``cross_entropy`` and ``dice``."""
        outputs, classes = outputs.float(), targets["classes"].long()
        valid = (classes != IGNORE).float()
        classes = classes.where(classes != IGNORE, 0)
        truth = functional.one_hot(classes, _CLASSES).movedim(-1, 1).float()
        return with_total(
            cross_entropy=masked_mean(functional.cross_entropy(outputs, classes, reduction="none"), valid),
            dice=dice_loss(outputs.softmax(dim=1), truth, valid[:, None], smooth=1.0),
        )

    def decode(self, outputs: NDArray[np.float32]) -> Instances:
        """Return the objects in raw maps, float32 (3, H, W)."""
        insides, count = ndimage.label(outputs.argmax(axis=0) == INSIDE, structure=_NEIGHBOURS)
        kept = np.bincount(insides.ravel(), minlength=count + 1) >= self.options.min_area_px
        kept[0] = False
        insides = (np.cumsum(kept) * kept).astype(np.int32)[insides]
        reach = np.arange(-self.options.dilation_px, self.options.dilation_px + 1)
        disc = reach[:, None] ** 2 + reach**2 <= self.options.dilation_px**2
        grown = ndimage.grey_dilation(insides, footprint=disc, mode="constant")
        labels, _ = tidied(np.where(insides > 0, insides, grown), min_area_px=1)
        return Instances.from_labels(labels, mean_in_objects(self.foreground(outputs), labels))

    def certainty(self, outputs: NDArray[np.float32], found: Instances) -> NDArray[np.float32]:  # noqa: ARG002 - scores say it
        """Return how far the scores are above one half, 0 … 1; see `InstanceHead`."""
        return above(found.scores, 0.5)

    def foreground(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability, float32 (H, W), that a pixel belongs to any object, its boundary included."""
        probability: NDArray[np.float32] = softmax(outputs, axis=0)[INSIDE:].sum(axis=0)
        return probability

    def turned_back(self, outputs: Tensor, symmetry: int) -> Tensor:
        """Return the maps of a turned image as those of the image itself, both (B, 3, H, W)."""
        return turned_back(outputs, symmetry)


def _neighbours(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield (H, W) what lies above, below, left and right of each pixel; beyond the array it goes on as it ends."""
    padded = np.pad(values, 1, mode="edge")
    yield from (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])


def _eroded(labels: NDArray[np.int32], unknown: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return the objects without the pixels that touch by a side anything else that is known."""
    is_left = labels > 0
    for neighbour, is_unknown in zip(_neighbours(labels), _neighbours(unknown), strict=True):
        is_left &= (neighbour == labels) | is_unknown
    return np.where(is_left, labels, 0)
