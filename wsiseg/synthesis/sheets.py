"""Pictures of what a GAN makes, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy import ndimage

from wsiseg.atomic import write_bytes
from wsiseg.rasters import png_bytes
from wsiseg.synthesis.gan_files import SHEETS
from wsiseg.synthesis.pyramid import as_pixels, draws, resized, resized_masks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from wsiseg.synthesis.gan_steps import Material, ScaleTraining

_SAMPLES: Final = 4
_GAP_PX: Final = 6
_CAPTION_PX: Final = 16
_SHOWN_PX: Final = 256
_INK: Final = (40, 44, 50)
_OUTLINE: Final = (255, 220, 0)
_SAMPLE = -3


@torch.no_grad()
def write_scale_sheet(folder: Path, training: ScaleTraining, material: Material, coarse: Tensor) -> None:
    """Write a PNG with the patch, its reconstruction and some new images of a scale, and under each its mask."""
    masks = material.masks[:_SAMPLES]
    training.scale.generator.eval()
    made = [
        training.fake(material, masks[at : at + 1], draws(_SAMPLE, training.number, at)) for at in range(len(masks))
    ]
    images = [resized(material.image, training.scale.side_px), training.reconstruction(material, coarse), *made]
    images = [training.scale.within(image) for image in images]
    training.scale.generator.train()
    shown = [material.mask, material.mask, *torch.split(masks, 1)]
    small = [resized_masks(mask, training.scale.side_px)[0, 0].bool().cpu().numpy() for mask in shown]
    titles = ["patch", "reconstruction", *(f"synthetic {at}" for at in range(1, len(made) + 1))]
    pixels = [as_pixels(image)[0] for image in images]
    rows = [
        list(zip(titles, pixels, strict=True)),
        [("", outlined(image, mask)) for image, mask in zip(pixels, small, strict=True)],
    ]
    write_png(folder / SHEETS / f"scale-{training.number}.png", sheet(rows))


def outlined(
    image: NDArray[np.uint8], labels: NDArray[np.generic], *, colour: tuple[int, int, int] = _OUTLINE
) -> NDArray[np.uint8]:
    """Return an image with the inner edge of each object of a label map or mask (H, W) in a colour, usually yellow."""
    ids = labels.astype(np.int64)
    is_edge = (ids > 0) & (ndimage.minimum_filter(ids, 3) != ndimage.maximum_filter(ids, 3))
    result = image.copy()
    result[is_edge] = colour
    return result


def sheet(rows: Sequence[Sequence[tuple[str, NDArray[np.uint8]]]]) -> NDArray[np.uint8]:
    """Return pictures (h, w, 3) with captions in rows, as one, enlarged by whole numbers where they are small."""
    tallest = max(picture.shape[0] for row in rows for _, picture in row)
    enlarged = max(1, _SHOWN_PX // tallest)
    edge = max(max(picture.shape[:2]) for row in rows for _, picture in row) * enlarged
    captions = [_CAPTION_PX if any(title for title, _ in row) else 0 for row in rows]
    width = max(len(row) for row in rows) * (edge + _GAP_PX) + _GAP_PX
    canvas = Image.new("RGB", (width, sum(captions) + len(rows) * (edge + _GAP_PX) + _GAP_PX), "white")
    pen = ImageDraw.Draw(canvas)
    top = _GAP_PX
    for row, caption in zip(rows, captions, strict=True):
        for column, (title, picture) in enumerate(row):
            left = _GAP_PX + column * (edge + _GAP_PX)
            pen.text((left, top), title, fill=_INK)
            whole = np.repeat(np.repeat(picture, enlarged, axis=0), enlarged, axis=1)
            canvas.paste(Image.fromarray(whole), (left, top + caption))
        top += caption + edge + _GAP_PX
    return np.asarray(canvas)


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a picture (H, W, 3), whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, png_bytes(pixels))
