"""Pictures of a selection: the chosen patches on one sheet, and where the clusters lie on the slide."""

from __future__ import annotations

from colorsys import hsv_to_rgb
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from wsiseg.rasters import png_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wsiseg.stores.patch_store import PatchStore
    from wsiseg.tasks.select_files import Row

SHEET_PX: Final = 256
_GAP_PX: Final = 12
_TEXT_PX: Final = 16
_LINES: Final = 3
_MAP_PX: Final = 1400
_COVER: Final = 0.45
_HEAT: Final = 0.65
_CERTAIN: Final = np.array((235, 250, 245))
_UNCERTAIN: Final = np.array((0, 70, 80))
_INK: Final = (34, 38, 43)
_DIM: Final = (100, 104, 115)
# Far apart for eyes of all kinds, and readable on pink and violet.
_COLOURS: Final = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (240, 228, 66), (60, 60, 60), (86, 180, 233),
    (170, 220, 60),
)  # fmt: skip


def colours(count: int) -> list[tuple[int, int, int]]:
    """Return a colour for each cluster."""
    more = [hsv_to_rgb(number * 0.618 % 1, 0.75, 0.85) for number in range(max(0, count - len(_COLOURS)))]
    return [*_COLOURS[:count], *((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in more)]


def contact_sheet(rows: Sequence[Row], images: Sequence[NDArray[np.uint8]]) -> bytes:
    """Return a PNG of the chosen patches, a frame in the colour of its cluster and a caption for each."""
    # Three and six fill rows of three.
    columns = min(len(rows), 3 if len(rows) in (3, 5, 6) else 4)
    cell_height = SHEET_PX + _GAP_PX + _LINES * (_TEXT_PX + 4)
    size = (
        columns * (SHEET_PX + _GAP_PX) + _GAP_PX,
        -(-len(rows) // columns) * (cell_height + _GAP_PX) + _GAP_PX,
    )
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_TEXT_PX)
    frames = colours(max((row.cluster for row in rows), default=0))
    for place, (row, image) in enumerate(zip(rows, images, strict=True)):
        left = _GAP_PX + place % columns * (SHEET_PX + _GAP_PX)
        top = _GAP_PX + place // columns * (cell_height + _GAP_PX)
        picture = ImageOps.contain(Image.fromarray(image), (SHEET_PX, SHEET_PX))
        sheet.paste(picture, (left, top))
        box = (left - 3, top - 3, left + picture.width + 2, top + picture.height + 2)
        draw.rectangle(box, outline=frames[row.cluster - 1], width=3)
        for line, (text, ink) in enumerate(_caption(row)):
            at = (left, top + SHEET_PX + 6 + line * (_TEXT_PX + 4))
            draw.text(at, _shortened(text, draw, font), fill=ink, font=font)
    return png_bytes(np.asarray(sheet))


def cluster_colours(cluster: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Return the colour of each patch by the number of its cluster from 1, RGBA (n, 4); clear where that is 0."""
    shades = np.array([(0, 0, 0), *colours(int(cluster.max(initial=0)))], dtype=np.uint8)[cluster]
    return np.column_stack((shades, np.where(cluster > 0, round(255 * _COVER), 0))).astype(np.uint8)


def uncertainty_colours(uncertainty: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the colour of each patch, from light for what is certain to dark for the most uncertain, RGBA (n, 4).

    It is clear where nothing is known, which is 0.
    """
    is_known = uncertainty > 0
    least, most = (float(end(uncertainty[is_known], initial=start)) for end, start in ((np.min, 1), (np.max, 0)))
    share = ((uncertainty - least) / max(most - least, 1e-6)).clip(0, 1)[:, None]
    shades = np.rint((1 - share) * _CERTAIN + share * _UNCERTAIN)
    return np.column_stack((shades, np.where(is_known, round(255 * _HEAT), 0))).astype(np.uint8)


def patch_map(
    store: PatchStore, shades: NDArray[np.uint8], rows: Sequence[tuple[int, Row]]
) -> NDArray[np.uint8] | None:
    """Return the store's slide in small with its patches coloured and the chosen ones in boxes, RGB (h, w, 3).

    Parameters
    ----------
    store
        Of one slide.
    shades
        Colour of each patch of the store, RGBA (n, 4).
    rows
        Chosen patches of the store, each with its place in it.

    Returns
    -------
    NDArray[np.uint8] | None
        None if the store keeps no thumbnail.
    """
    thumbnail, grid = store.thumbnail(), store.meta.grid
    if thumbnail.size == 0 or grid is None:
        return None
    picture = Image.fromarray(thumbnail)
    grown = max(1, _MAP_PX // max(picture.size))
    picture = picture.resize((picture.width * grown, picture.height * grown), Image.Resampling.BICUBIC)
    scale = np.array(picture.size) / grid.canvas
    cover = Image.new("RGBA", picture.size)
    draw = ImageDraw.Draw(cover)
    # Where patches overlap, each paints its middle.
    margin = (grid.patch_px - grid.stride_px) / 2
    for place in np.flatnonzero(shades[:, 3]).tolist():
        corner = store.windows[place] + margin
        ends = (*(corner * scale), *((corner + grid.stride_px) * scale - 1))
        draw.rectangle(_upright(ends), fill=tuple(shades[place].tolist()))
    picture = Image.alpha_composite(picture.convert("RGBA"), cover).convert("RGB")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(2 * _TEXT_PX)
    for place, row in rows:
        ends = (*(store.windows[place] * scale), *((store.windows[place] + store.extents[place]) * scale - 1))
        left, top, right, bottom = _upright(ends)
        draw.rectangle((left - 3, top - 3, right + 3, bottom + 3), outline="white", width=3)
        draw.rectangle((left, top, right, bottom), outline=_INK, width=3)
        draw.text((right + 6, top), str(row.cluster), fill=_INK, font=font, stroke_width=4, stroke_fill="white")
    return np.asarray(picture)


def _caption(row: Row) -> list[tuple[str, tuple[int, int, int]]]:
    if "uncertainty" in row.scores:
        return [(f"{row.cluster} · uncertainty {row.scores['uncertainty']:.3f}", _INK), (row.patch, _INK)]
    if "score" not in row.scores:
        return [(f"{row.cluster}", _INK), (row.patch, _INK)]
    number = f"{row.cluster} · score {row.scores['score']:.4g}"
    return [(number, _INK), (row.patch, _INK), (f"stands for {row.members:,} patches", _DIM)]


def _shortened(text: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return a text that fits into a cell; the end of a name tells more than its middle."""
    if draw.textlength(text, font=font) <= SHEET_PX:
        return text
    kept = len(text)
    while draw.textlength(short := f"{text[: kept // 3]}…{text[-(kept - kept // 3) :]}", font=font) > SHEET_PX:
        kept -= 1
    return short


def _upright(ends: Sequence[float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = ends
    return float(left), float(top), float(max(left, right)), float(max(top, bottom))
