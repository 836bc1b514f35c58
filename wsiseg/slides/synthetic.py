"""Large slides grown from a small real region, for the demo and for benchmarks.

The pixels are real: mirrored copies of the region fill irregular islands of tissue
on a white background, written as an Aperio-style pyramidal SVS, so that tissue
detection, JPEG decoding and file layout behave as on a scanner's file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import imagecodecs
import numpy as np
import tifffile
from scipy.ndimage import gaussian_filter, zoom

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.geometry import Size

TILE: Final = 256
STEP: Final = 4  # downsample from one level to the next
LEVELS: Final = 3
FIELD: Final = 16  # points of the tissue field along one edge of a tile
QUALITY: Final = 75
WHITE: Final = 243.0


def grow_slide(region: NDArray[np.uint8], path: Path, *, size: Size, tissue: float, mpp: float, seed: int) -> None:
    """Write a pyramidal JPEG SVS of `size` whose tissue is made of `region`.

    Parameters
    ----------
    region
        Real pixels, RGB uint8 (H, W, 3), at least one tile of 256 px in each direction.
    path
        File to write.
    size
        Size of level 0 in pixels; rounded down to whole tiles of 256 px.
    tissue
        Share of the slide that tissue covers, 0 … 1.
    mpp
        Micrometres per pixel to write into the file.
    seed
        Seed of the islands' shapes.
    """
    columns, rows = max(1, size.width // TILE), max(1, size.height // TILE)
    rng = np.random.default_rng(seed)
    cover = _Cover.random(rows, columns, tissue, rng)
    paper = rng.normal(WHITE, 1.5, (TILE, TILE, 3)).astype(np.float32)
    small = np.full((rows * TILE // STEP, columns * TILE // STEP, 3), WHITE, dtype=np.uint8)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        tiles = _finest(region, cover, paper, small)
        _write(file, tiles, width=columns * TILE, height=rows * TILE, mpp=mpp)
        thumbnail = small[::STEP, ::STEP]
        file.write(
            thumbnail,
            photometric="rgb",
            metadata=None,
            description=_describe(thumbnail.shape[1], thumbnail.shape[0], mpp),
        )
        for _ in range(LEVELS - 1):
            height, width = small.shape[:2]
            _write(file, _tiles(small), width=width, height=height, mpp=mpp)
            small = _shrink(small[: height // STEP * STEP, : width // STEP * STEP])


class _Cover:
    """Where tissue lies: a smooth field cut at the level that gives the wanted share."""

    def __init__(self, field: NDArray[np.float32], rows: int, columns: int) -> None:
        self._field = field
        self.rows = rows
        self.columns = columns

    @classmethod
    def random(cls, rows: int, columns: int, share: float, rng: np.random.Generator) -> _Cover:
        shape = (rows * FIELD + 1, columns * FIELD + 1)
        coarse = gaussian_filter(rng.standard_normal(shape), sigma=max(4.0, min(shape) / 9), mode="wrap")
        fine = gaussian_filter(rng.standard_normal(shape), sigma=FIELD / 8, mode="wrap")
        field = coarse / coarse.std() + 0.06 * fine / fine.std()
        # Steep enough that the edge of an island is a few pixels wide.
        return cls(((field - np.quantile(field, 1 - share)) * 40 + 0.5).astype(np.float32), rows, columns)

    def tile(self, row: int, column: int) -> NDArray[np.float32]:
        """Return the opacity of tissue in one tile, (256, 256, 1), 0 … 1."""
        part = self._field[row * FIELD : (row + 1) * FIELD + 1, column * FIELD : (column + 1) * FIELD + 1]
        if (part >= 1).all() or (part <= 0).all():
            return np.full((TILE, TILE, 1), float(part[0, 0] > 0), dtype=np.float32)
        # Corner to corner, so that neighbouring tiles share their edge values.
        smooth = zoom(part, (TILE + 1) / (FIELD + 1), order=1, grid_mode=False)[:TILE, :TILE, None]
        return np.clip(smooth, 0, 1)


def _finest(
    region: NDArray[np.uint8], cover: _Cover, paper: NDArray[np.float32], small: NDArray[np.uint8]
) -> Iterator[bytes]:
    """Yield the encoded tiles of level 0 and leave their shrunken pixels in `small`."""
    side = TILE // STEP
    for row in range(cover.rows):
        for column in range(cover.columns):
            opacity = cover.tile(row, column)
            tile = opacity * _mirrored(region, row, column) + (1 - opacity) * paper if opacity.any() else paper
            pixels = np.clip(tile, 0, 255).astype(np.uint8)
            small[row * side : (row + 1) * side, column * side : (column + 1) * side] = _shrink(pixels)
            yield _encode(pixels)


def _mirrored(region: NDArray[np.uint8], row: int, column: int) -> NDArray[np.uint8]:
    """Return one tile of the plane that mirrored copies of the region cover, so that edges meet."""
    rows, columns = region.shape[0] // TILE, region.shape[1] // TILE
    flips_y, y = divmod(row, rows)
    flips_x, x = divmod(column, columns)
    y = rows - 1 - y if flips_y % 2 else y
    x = columns - 1 - x if flips_x % 2 else x
    tile = region[y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE]
    return tile[:: -1 if flips_y % 2 else 1, :: -1 if flips_x % 2 else 1]


def _tiles(pixels: NDArray[np.uint8]) -> Iterator[bytes]:
    for y in range(0, pixels.shape[0], TILE):
        for x in range(0, pixels.shape[1], TILE):
            tile = np.full((TILE, TILE, 3), round(WHITE), dtype=np.uint8)
            part = pixels[y : y + TILE, x : x + TILE]
            tile[: part.shape[0], : part.shape[1]] = part
            yield _encode(tile)


def _shrink(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[0] // STEP, pixels.shape[1] // STEP
    blocks = pixels.reshape(height, STEP, width, STEP, 3)
    result: NDArray[np.uint8] = np.rint(blocks.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)
    return result


def _encode(tile: NDArray[np.uint8]) -> bytes:
    return bytes(
        imagecodecs.jpeg8_encode(tile, level=QUALITY, colorspace="RGB", outcolorspace="YCBCR", subsampling="420")
    )


def _write(file: tifffile.TiffWriter, tiles: Iterator[bytes], *, width: int, height: int, mpp: float) -> None:
    file.write(
        tiles,
        shape=(height, width, 3),
        dtype=np.uint8,
        tile=(TILE, TILE),
        photometric="ycbcr",
        subsampling=(2, 2),
        compression="jpeg",
        metadata=None,
        description=_describe(width, height, mpp),
    )


def _describe(width: int, height: int, mpp: float) -> str:
    return (
        f"Aperio Image Library v11.2.1 \r\n{width}x{height} [0,0 {width}x{height}] ({TILE}x{TILE}) "
        f"JPEG/RGB Q={QUALITY}|MPP = {mpp:.4f}|Filename = grown by wsiseg"
    )
