"""What the model learns from: labelled cells in other stains, and one H&E slide without labels.

Densities are optical densities, -log((RGB + 1) / 256). "Diameter" is that of a disk with the
area of a nucleus, in pixels.
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from skimage.draw import polygon
from skimage.filters import threshold_otsu
from torch.nn import functional

from wsiseg.classical import classical_nuclei
from wsiseg.geometry import Window
from wsiseg.rasters import read_labels
from wsiseg.slides.open import open_slide

if TYPE_CHECKING:
    from numpy.typing import NDArray

MPP = 0.5
# Median diameter of nuclei on the slide at 0.5 µm per pixel; other images are brought to it.
DIAMETER_PX = 13.0
SMALLEST_PX, LARGEST_PX = 30, 500  # areas of objects on the slide that are believed
GLASS = 0.12  # mean optical density that tissue exceeds
HELD_OUT_EVERY, HELD_OUT_AT = 5, 2  # images 2, 7, 12, … of each stain class are only scored, at the end
CHOICE_EVERY, CHOICE_AT = 10, 4  # by images 4, 14, 24, … settings are chosen
SMALLEST_LEVEL_PX = 50
_STEP = math.sqrt(2)
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
UNMIX = np.linalg.inv(_STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Pixels with labels at several sizes, so that shrinking does not alias.

    Parameters
    ----------
    levels
        float32 (H, W, channels), each smaller than the one before by the square root of 2.
    labels, valid
        Object ids and what of them may be learnt from, at the first level's size.
    diameter_px
        Median diameter of the objects at the first level.
    """

    levels: list[NDArray[np.float32]]
    labels: NDArray[np.int32]
    valid: NDArray[np.bool_]
    diameter_px: float

    @classmethod
    def of(
        cls, pixels: NDArray[np.float32], labels: NDArray[np.int32], valid: NDArray[np.bool_], diameter_px: float
    ) -> Picture:
        """Return a picture with levels down to 50 px or so."""
        levels = [pixels.astype(np.float32)]
        while min(levels[-1].shape[:2]) > SMALLEST_LEVEL_PX * _STEP:
            levels.append(resized(pixels, _STEP ** -len(levels)))
        return cls(levels=levels, labels=labels, valid=valid, diameter_px=diameter_px)


@dataclass(frozen=True, kw_only=True)
class Cells:
    """One labelled image of the CC0 set.

    Parameters
    ----------
    name, stain
        As in the set's index.
    rgb
        uint8 (H, W, 3).
    labels
        int32 (H, W).
    """

    name: str
    stain: str
    rgb: NDArray[np.uint8]
    labels: NDArray[np.int32]


def read_cells(folder: Path) -> tuple[list[Cells], list[Cells], list[Cells]]:
    """Return the images to train on, to choose by, and those held out, split by image within each stain class."""
    from PIL import Image

    by_stain: dict[str, list[Cells]] = {}
    with (folder / "index.csv").open(newline="") as file:
        for row in sorted(csv.DictReader(file), key=lambda row: row["id"]):
            rgb = np.asarray(Image.open(folder / "images" / f"{row['id']}.png").convert("RGB"))
            labels = read_labels(folder / "labels" / f"{row['id']}.png").astype(np.int32)
            cells = Cells(name=row["id"], stain=row["class"], rgb=rgb, labels=labels)
            by_stain.setdefault(cells.stain, []).append(cells)
    train, choice, held_out = [], [], []
    for stain in sorted(by_stain):
        for number, cells in enumerate(by_stain[stain]):
            if number % HELD_OUT_EVERY == HELD_OUT_AT:
                held_out.append(cells)
            elif number % CHOICE_EVERY == CHOICE_AT:
                choice.append(cells)
            else:
                train.append(cells)
    return train, choice, held_out


def read_slide(path: Path) -> NDArray[np.uint8]:
    """Return level 0 of the slide, RGB (H, W, 3); its 0.499 µm per pixel are taken for 0.5."""
    with open_slide(path) as slide:
        size = slide.info.size
        return slide.read_level(0, Window(0, 0, size.width, size.height))


@dataclass(frozen=True, kw_only=True)
class Regions:
    """Parts of the slide that a person has outlined, bool (H, W)."""

    bare: NDArray[np.bool_]
    unclear: NDArray[np.bool_]

    @classmethod
    def read(cls, shape: tuple[int, int]) -> Regions:
        """Return the regions of `regions.json`."""
        outlines = json.loads((Path(__file__).parent / "regions.json").read_text())
        return cls(bare=_filled(outlines["bare"], shape), unclear=_filled(outlines["unclear"], shape))


def first_labels(rgb: NDArray[np.uint8], regions: Regions) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return labels of the slide by the classical method, and where they may be believed."""
    labels = classical_nuclei(rgb, MPP)
    labels[regions.bare] = 0
    area = np.bincount(labels.ravel())
    doubtful = (area > LARGEST_PX) | (area < SMALLEST_PX)
    doubtful[0] = False
    border = ndimage.binary_dilation(regions.bare, iterations=8) & ~ndimage.binary_erosion(regions.bare, iterations=3)
    valid = ~regions.unclear & ~border & ~ndimage.binary_dilation(doubtful[labels], iterations=2)
    labels = np.where(doubtful[labels], 0, labels).astype(np.int32)
    # Thin and crushed nuclei escape the method: what is dark and unlabelled is not called background.
    optical = density(rgb)
    tissue = ndimage.gaussian_filter(optical.mean(axis=-1), 1) > GLASS
    haematoxylin = ndimage.gaussian_filter((optical @ UNMIX)[..., 0], 1)
    dark = haematoxylin > 0.85 * threshold_otsu(haematoxylin[tissue])
    return labels, valid & ~(dark & (labels == 0) & ~regions.bare)


def diameter_px(labels: NDArray[np.int32]) -> float:
    """Return the median diameter of the objects, or the slide's where there are fewer than three."""
    area = np.bincount(labels.ravel())[1:]
    area = area[area > 0]
    return 2 * math.sqrt(float(np.median(area)) / math.pi) if len(area) > 2 else DIAMETER_PX  # noqa: PLR2004


def density(rgb: NDArray[np.float32] | NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return optical densities, float32 (H, W, 3)."""
    return -np.log((np.clip(rgb, 0, 255).astype(np.float32) + 1) / 256)


def dye(cells: Cells) -> NDArray[np.float32]:
    """Return how much nuclear dye lies where, (H, W): 0 in the background, about 1 in dark nuclei."""
    optical = density(cells.rgb)
    amount = (optical @ UNMIX)[..., 0] if cells.stain == "HE_pink" else optical.mean(axis=-1)
    inside = cells.labels > 0
    light, dark = np.median(amount[~inside]), np.percentile(amount[inside], 90)
    return np.clip((amount - light) / (dark - light), -0.3, 2).astype(np.float32)


def ground(rgb: NDArray[np.uint8], labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the slide without its nuclei: eosin and faint haematoxylin, float32 (H, W, 2)."""
    haematoxylin, eosin, _ = np.moveaxis(density(rgb) @ UNMIX, -1, 0)
    hidden = ndimage.binary_dilation(labels > 0, iterations=2)
    weight = ndimage.gaussian_filter((~hidden).astype(np.float32), 4) + 1e-3

    def around(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return ndimage.gaussian_filter(np.where(hidden, 0, values), 4) / weight

    eosin = np.where(hidden, around(eosin), eosin)
    faint = ndimage.grey_opening(ndimage.gaussian_filter(haematoxylin, 0.7), size=(9, 9)) + 0.15
    haematoxylin = np.minimum(np.where(hidden, np.minimum(haematoxylin, around(haematoxylin)), haematoxylin), faint)
    return np.clip(np.stack([eosin, haematoxylin], axis=-1), 0, None).astype(np.float32)


def resized(pixels: NDArray[np.float32] | NDArray[np.uint8], factor: float) -> NDArray[np.float32]:
    """Return pixels (H, W, channels) scaled by `factor`, without aliasing."""
    height, width = (max(8, round(side * factor)) for side in pixels.shape[:2])
    tensor = torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32)).permute(2, 0, 1)[None]
    scaled = functional.interpolate(tensor, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    return scaled[0].permute(1, 2, 0).contiguous().numpy()


def _filled(outlines: list[list[list[int]]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(shape, dtype=bool)
    for outline in outlines:
        x, y = np.array(outline).T
        rows, columns = polygon(y, x, shape)
        mask[rows, columns] = True
    return mask
