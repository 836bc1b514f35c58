"""The eight symmetries of a square, on images and on maps of vectors and of rays.

Symmetries 4 … 7 mirror left and right first; then ``symmetry % 4`` quarters are turned,
as `numpy.rot90` does.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

_FIRST_MIRRORED: Final = 4


def turned(images: Tensor, symmetry: int) -> Tensor:
    """Return images or scalar maps (…, H, W) seen under a symmetry."""
    mirrored = images.flip(-1) if symmetry >= _FIRST_MIRRORED else images
    return torch.rot90(mirrored, symmetry % 4, (-2, -1))


def turned_back(maps: Tensor, symmetry: int) -> Tensor:
    """Undo `turned`."""
    back = torch.rot90(maps, -(symmetry % 4), (-2, -1))
    return back.flip(-1) if symmetry >= _FIRST_MIRRORED else back


def vectors_turned_back(y: Tensor, x: Tensor, symmetry: int) -> tuple[Tensor, Tensor]:
    """Return the components (…, H, W) of vectors found in a turned image, in the image itself."""
    y, x = turned_back(y, symmetry), turned_back(x, symmetry)
    for _ in range(symmetry % 4):
        y, x = x, -y
    return (y, -x) if symmetry >= _FIRST_MIRRORED else (y, x)


def rays_turned_back(rays: Tensor, symmetry: int) -> Tensor:
    """Return lengths of rays (…, R, H, W) found in a turned image, in the image itself.

    Ray k points along (cos, sin) of 2 π k / R in (x, y), y down; R is a multiple of 4.
    """
    count = rays.shape[-3]
    # A quarter turn of the image takes a quarter off the angle of a ray; a mirror takes it from half a turn.
    ray = torch.arange(count, device=rays.device)
    if symmetry >= _FIRST_MIRRORED:
        ray = count // 2 - ray
    return turned_back(rays, symmetry).index_select(-3, (ray - symmetry % 4 * count // 4) % count)
