"""What a network says of a whole volume: the mean over windows that overlap."""

from __future__ import annotations

import math
from contextlib import nullcontext
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from wsiseg.methods.base import Predictor


def window_starts(side: int, patch: int, stride: int) -> list[int]:
    """Return where windows begin along an axis; the last ends where the axis does.

    >>> window_starts(160, 96, 64)
    [0, 64]
    >>> window_starts(97, 96, 64)
    [0, 1]
    """
    slack = max(0, side - patch)
    return [min(number * stride, slack) for number in range(math.ceil(slack / stride) + 1)]


def window_means(
    predictor: Predictor,
    voxels: NDArray[np.float32],
    *,
    patch: Sequence[int],
    stride: Sequence[int],
    device: torch.device,
    dtype: torch.dtype | None = None,
    advance: Callable[[], None] | None = None,
) -> NDArray[np.float32]:
    """Return the probability of each class in a volume.

    Where a side is shorter than the window, the volume lies in its middle, with its least intensity around. Beside the
    result and what the network takes for one window there is hardly any memory in use, whatever the size of the volume.

    Parameters
    ----------
    predictor
        On `device`.
    voxels
        float32 (D, H, W), prepared as the network knows them.
    patch, stride
        Voxels of a window, and from one window to the next, along each axis.
    device
        Where the predictor computes.
    dtype
        Number format of mixed precision, or None.
    advance
        Called after each window.

    Returns
    -------
    NDArray[np.float32]
        (channels, D, H, W), sums to 1 over the channels.

    References
    ----------
    .. [1] Zhang et al., "Uncertainty-guided mutual consistency learning for semi-supervised medical image
       segmentation", Artificial Intelligence in Medicine 2022: windows of 96³ that move by 64, as in their code.
    """
    missing = [max(0, side - own) for own, side in zip(voxels.shape, patch, strict=True)]
    margins = [(lack // 2, lack - lack // 2) for lack in missing]
    padded = torch.from_numpy(np.pad(voxels, margins, constant_values=voxels.min()) if any(missing) else voxels)
    starts = [window_starts(*sides) for sides in zip(padded.shape, patch, stride, strict=True)]
    means = np.zeros((predictor.spec.channels, *padded.shape), dtype=np.float32)
    autocast = nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
    with torch.inference_mode(), autocast:
        for corner in product(*starts):
            box = tuple(slice(at, at + side) for at, side in zip(corner, patch, strict=True))
            output = predictor.forward(padded[box][None, None].to(device))[0]
            means[:, *box] += output.float().cpu().numpy()
            if advance is not None:
                advance()
    for axis, (places, side) in enumerate(zip(starts, patch, strict=True), start=1):
        # A voxel lies in as many windows as the product of these along its axes.
        counts = np.zeros(means.shape[axis], dtype=np.float32)
        for place in places:
            counts[place : place + side] += 1
        means /= counts.reshape([-1 if other == axis else 1 for other in range(means.ndim)])
    inside = tuple(slice(before, before + side) for (before, _), side in zip(margins, voxels.shape, strict=True))
    return means[:, *inside]
