"""Patches that show one or two of three textures, as a data set with labels in file names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SIDE = 64
# The classes of the left and the right half.
TRAIN = ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0))
VAL = ((0, 2), (1, 0))
COLOURS = np.array([[110, 60, 140], [220, 150, 185], [160, 90, 60]])
WHITE_PX = 12


def texture(left: int, right: int, *, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return an image (64, 64, 3) with a white corner, and its mask (64, 64) in which white is 3."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    mask = np.where(x < SIDE // 2, left, right).astype(np.uint8)
    stripes = np.stack([(x // 4) % 2, (y // 4) % 2, ((x + y) // 4) % 2])
    shade = np.take_along_axis(stripes, mask[None].astype(np.int64), axis=0)[0]
    image = COLOURS[mask] - 25 * shade[..., None] + rng.integers(-8, 9, (SIDE, SIDE, 1))
    mask[:WHITE_PX, :WHITE_PX] = 3
    image[mask == 3] = 245
    return image.clip(0, 255).astype(np.uint8), mask


def write_patches(folder: Path, *, repeats: int = 1) -> Path:
    """Write training patches with labels in their names and two validation patches with masks; return the folder."""
    for part in ("train", "val/img", "val/mask"):
        (folder / part).mkdir(parents=True)
    for number, (left, right) in enumerate(TRAIN * repeats):
        present = [int(k in (left, right)) for k in range(3)]
        Image.fromarray(texture(left, right, seed=number)[0]).save(folder / "train" / f"{number}-0-0-{present}.png")
    for number, (left, right) in enumerate(VAL, start=100):
        image, mask = texture(left, right, seed=number)
        Image.fromarray(image).save(folder / "val" / "img" / f"{number}.png")
        palette = Image.fromarray(mask)
        palette.putpalette([value for colour in (*COLOURS.tolist(), [255] * 3) for value in colour])
        palette.save(folder / "val" / "mask" / f"{number}.png")
    return folder
