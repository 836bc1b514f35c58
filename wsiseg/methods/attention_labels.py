"""Labels of pixels from maps of attention, and which of them can be relied on.

Shapes: C classes, h × w positions of a map, H × W pixels.

References
----------
.. [1] Jiang et al., "Integral Object Mining via Online Attention Accumulation", ICCV 2019.
.. [2] Zhang et al., "Reliability Does Matter: An End-to-End Weakly Supervised Semantic
   Segmentation Approach", AAAI 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import Field

from wsiseg.config import Config
from wsiseg.errors import DataError
from wsiseg.labels import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Accumulated maps often tie; the last epoch decides then, and only then.
_TIE: Final = 1e-3


class ReliabilitySettings(Config):
    """Which labels can be relied on.

    Parameters
    ----------
    fraction
        Part of the pixels of each class that is reliable: those with the highest attention.
    min_attention
        Attention, 0 … 1, that a reliable pixel exceeds.
    conflict
        A pixel where two classes exceed this attention is not reliable; None lets it be.
    """

    fraction: float = Field(default=0.6, ge=0, le=1)
    min_attention: float = Field(default=0.1, ge=0, lt=1)
    conflict: float | None = Field(default=None, ge=0, lt=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionLabels:
    """Labels of the pixels of one patch.

    Parameters
    ----------
    labels
        uint8 (H, W): class indices, 255 on white.
    is_reliable
        bool (H, W); never on white.
    confidence
        uint8 (H, W): attention of the label's class in percent, by which reliable pixels are chosen; 100 in a patch
        with a single class, and 255 on white. It is no probability.
    """

    labels: NDArray[np.uint8]
    is_reliable: NDArray[np.bool_]
    confidence: NDArray[np.uint8]

    @property
    def targets(self) -> NDArray[np.uint8]:
        """Return the labels that may be learnt from, 255 elsewhere."""
        return np.where(self.is_reliable, self.labels, np.uint8(IGNORE))


def attention_labels(
    maps: NDArray[np.floating[Any]],
    present: NDArray[np.bool_],
    size: tuple[int, int],
    *,
    last: NDArray[np.floating[Any]] | None = None,
    white: NDArray[np.bool_] | None = None,
    settings: ReliabilitySettings | None = None,
) -> AttentionLabels:
    """Return for each pixel the class that has the highest attention among those of the patch.

    The map of each class is stretched to 0 … 1 first. In a patch with a single class every pixel
    that is not white is of that class, and reliable.

    Where `last` is given, attention + 0.001 × last decides, of which class a pixel is and which part of each class is
    reliable: [2]_ ranks by attention alone, which often ties where it was accumulated. Pixels whose attention differs
    by less than 0.001 may so change places; what a reliable pixel must exceed is attention alone.

    Parameters
    ----------
    maps
        float (C, h, w): accumulated attention.
    present
        bool (C,): the classes of the patch.
    size
        (H, W) of the patch; maps are interpolated to it.
    last
        float (C, h, w): attention in the last epoch, which decides where accumulated maps are equal.
    white
        bool (H, W): pixels without tissue; None where there is no such class of pixels.
    settings
        Which labels can be relied on.

    Raises
    ------
    DataError
        If the patch shows no class.
    """
    settings = settings or ReliabilitySettings()
    classes = np.flatnonzero(present)
    if len(classes) == 0:
        raise DataError("a patch shows no class", mend="Leave patches without a label out")
    tissue = np.ones(size, dtype=np.bool_) if white is None else ~white
    attention = _stretched(maps[classes], size)
    ranking = attention if last is None else attention + _TIE * _stretched(last[classes], size)
    winner = ranking.argmax(axis=0)
    reliable = tissue if len(classes) == 1 else tissue & _reliable(attention, ranking, winner, tissue, settings)
    labels = np.where(tissue, classes[winner], IGNORE).astype(np.uint8)
    # What a patch shows says everything where that is one class.
    seen = np.ones_like(attention[0]) if len(classes) == 1 else np.take_along_axis(attention, winner[None], axis=0)[0]
    confidence = np.where(tissue, (100 * seen).round(), IGNORE).astype(np.uint8)
    return AttentionLabels(labels=labels, is_reliable=reliable, confidence=confidence)


def _reliable(
    attention: NDArray[np.float32],
    ranking: NDArray[np.float32],
    winner: NDArray[np.intp],
    tissue: NDArray[np.bool_],
    settings: ReliabilitySettings,
) -> NDArray[np.bool_]:
    """Return the reliable pixels of a patch with several classes."""
    reliable = np.zeros(winner.shape, dtype=np.bool_)
    for label, values in enumerate(ranking):
        pixels = np.flatnonzero((winner == label) & tissue & (attention[label] > settings.min_attention))
        # Stable: equal values keep their order, on any machine.
        order = np.argsort(-values.ravel()[pixels], kind="stable")
        reliable.ravel()[pixels[order[: round(settings.fraction * len(pixels))]]] = True
    if settings.conflict is not None:
        reliable &= (attention > settings.conflict).sum(axis=0) < 2  # noqa: PLR2004 - two classes are a conflict
    return reliable


def _stretched(maps: NDArray[np.floating[Any]], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return maps at another size, each from 0 to 1; 0 where all its values are equal."""
    rows, columns = _bilinear(maps.shape[1], size[0]), _bilinear(maps.shape[2], size[1])
    large = rows @ maps.astype(np.float32) @ columns.T
    lowest, highest = large.min(axis=(1, 2), keepdims=True), large.max(axis=(1, 2), keepdims=True)
    stretched: NDArray[np.float32] = (large - lowest) / np.where(highest > lowest, highest - lowest, 1)
    return stretched


@lru_cache(maxsize=8)
def _bilinear(old: int, new: int) -> NDArray[np.float32]:
    """Return the matrix (new, old) of linear interpolation between the centres of pixels; edges are repeated."""
    place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    left = np.minimum(place.astype(np.int64), max(0, old - 2))
    matrix = np.zeros((new, old), dtype=np.float32)
    share = place - left
    matrix[np.arange(new), left] = 1 - share
    if old > 1:
        matrix[np.arange(new), left + 1] = share
    return matrix
