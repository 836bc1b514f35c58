"""How far objects reach from each of their pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray


def unit_rays(count: int) -> NDArray[np.float64]:
    """Return (count, 2): dy, dx of rays of length 1, counted from the right by way of down."""
    angle = 2 * np.pi * np.arange(count) / count
    # Rounded: the sine of half a turn is 0, whatever floating point says.
    return np.round(np.stack((np.sin(angle), np.cos(angle)), axis=1), 12)


def ray_lengths(label_map: NDArray[np.int32], count: int) -> NDArray[np.float32]:
    """Return how far each pixel's object reaches along each ray, in steps of a pixel.

    Parameters
    ----------
    label_map
        int32 (H, W): object ids; 0 and less are background.
    count
        Number of rays.

    Returns
    -------
    NDArray[np.float32]
        (count, H, W) pixels: half a step beyond the last one inside; 0 in the background.
    """
    height, width = label_map.shape
    lengths = np.zeros((count, height * width), dtype=np.float32)
    padded = np.pad(np.maximum(label_map, 0), 1)
    labels, row = padded.ravel(), width + 2
    y, x = np.nonzero(label_map > 0)
    start = (y + 1) * row + x + 1
    ray, pixel = (grid.ravel() for grid in np.indices((count, len(y))))
    step = unit_rays(count)
    at = y * width + x
    length = 0
    while len(ray):
        lengths[ray, at[pixel]] = length + 0.5
        length += 1
        # Whole offsets from the start: the way does not depend on where in the image it begins.
        offset = np.floor(length * step + 0.5).astype(np.int64) @ np.array([row, 1])
        goes_on = labels[start[pixel] + offset[ray]] == labels[start[pixel]]
        ray, pixel = ray[goes_on], pixel[goes_on]
    return lengths.reshape(count, height, width)


def edge_distances(label_map: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the distance of each pixel to the outside of its object, as a share of the object's greatest, (H, W)."""
    shares = np.zeros(label_map.shape, dtype=np.float32)
    positive = np.maximum(label_map, 0)
    # Numbers without gaps: the list of boxes is as long as the highest one.
    _, dense = np.unique(positive, return_inverse=True)
    # Without any background, the first number is that of an object.
    dense = dense.reshape(positive.shape) + int(positive.all())
    for number, box in enumerate(ndimage.find_objects(dense), start=1):
        inside = dense[box] == number
        distance = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
        shares[box][inside] = (distance / distance.max())[inside]
    return shares
