"""Masks of detections, which may overlap, as objects that do not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Masks hold pixels of at least this probability.
_INSIDE: Final = 0.5
# Of its mask, what an object must keep.
_MIN_KEPT: Final = 0.5


def painted(
    boxes: NDArray[np.float32], masks: NDArray[np.float32], scores: NDArray[np.float32], *, height: int, width: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the objects of an image, painted from the highest score down on pixels that are still free.

    Who would keep less than half of its mask is left out, and its pixels stay free for others.

    Parameters
    ----------
    boxes
        (n, 4): x0, y0, x1, y1 in pixels; the centre of the first pixel is (0, 0), as networks that sample maps have it.
    masks
        (n, S, S): the probability, 0 … 1, at S × S places that cover a box.
    scores
        (n,), in any order.
    height, width
        Of the image, in pixels.

    Returns
    -------
    tuple
        int32 (height, width), ids 1 … m from the highest score down, 0 background; and the scores of these, (m,).
    """
    labels = np.zeros((height, width), dtype=np.int32)
    kept = []
    for at in np.argsort(-scores, kind="stable"):
        x0, y0, x1, y1 = boxes[at].tolist()
        rows, columns = _pixels(y0, y1, height), _pixels(x0, x1, width)
        # Of a pixel in the box the mask is the mean of the places around it, bilinear.
        prob = _weights(rows, y0, y1, len(masks[at])) @ masks[at] @ _weights(columns, x0, x1, len(masks[at])).T
        is_inside = prob >= _INSIDE
        window = labels[rows.start : rows.stop, columns.start : columns.stop]
        is_free = is_inside & (window == 0)
        if is_free.sum() < max(1, _MIN_KEPT * is_inside.sum()):
            continue
        kept.append(at)
        window[is_free] = len(kept)
    return labels, scores[kept]


def _pixels(low: float, high: float, side: int) -> range:
    """Return the pixels along one axis whose centres lie in a box."""
    return range(max(0, math.ceil(low)), min(side, math.floor(high) + 1))


def _weights(pixels: range, low: float, high: float, places: int) -> NDArray[np.float32]:
    """Return how much each place of a mask counts at each pixel along one axis, (pixels, places)."""
    at = (np.array(pixels, dtype=np.float32) - low) * (places / max(high - low, 1e-6)) - 0.5
    # Beyond the outermost places, which lie half a step inside the box, the mask goes on as it is there.
    weights: NDArray[np.float32] = np.clip(1 - np.abs(at.clip(0, places - 1)[:, None] - np.arange(places)), 0, 1)
    return weights.astype(np.float32, copy=False)
