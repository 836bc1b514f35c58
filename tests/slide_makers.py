"""Small slides of every layout that the readers have to deal with, written on the spot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import imagecodecs
import numpy as np
import tifffile

from wsiseg.geometry import Size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

Photometric = Literal["ycbcr", "rgb", "gray"]
Family = Literal["aperio", "generic", "ome"]

USUAL_SIZE = Size(333, 287)
APERIO = "Aperio Image Library v12.0.0 \r\n{w}x{h} [0,0 {w}x{h}] ({t}x{t}) {codec} Q=70|AppMag = 20|MPP = {mpp}"
CODES = {"none": 1, "lzw": 5, "jpeg": 7, "deflate": 8, "33003": 33003, "33005": 33005, "34712": 34712}
TABLE_MARKERS = (0xDB, 0xC4)  # quantisation, Huffman


def tissue(size: Size, *, seed: int = 0) -> NDArray[np.uint8]:
    """Return pixels with edges, noise and all colours of H&E, RGB (H, W, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size.height, : size.width].astype(np.float32)
    waves = np.stack([np.sin(x / a + seed) * np.cos(y / b) for a, b in ((9, 14), (23, 6), (5, 31))], axis=-1)
    pixels = np.array((190, 120, 170)) + 60 * waves + rng.normal(0, 8, (size.height, size.width, 3))
    pixels[(x // 37 + y // 53).astype(int) % 5 == 0] = (243, 242, 244)
    result: NDArray[np.uint8] = pixels.clip(0, 255).astype(np.uint8)
    return result


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a slide is laid out in its file.

    `levels` are integer downsamples. `missing` are tiles of level 0 without bytes. `shared_tables` moves the JPEG
    tables out of the tiles into the directory, as scanners do.
    """

    size: Size = USUAL_SIZE
    tile: int = 64
    levels: tuple[int, ...] = (1,)
    family: Family = "generic"
    compression: str = "jpeg"
    photometric: Photometric = "ycbcr"
    subsampling: str = "420"
    shared_tables: bool = False
    predictor: bool = False
    sub_ifds: bool = False
    missing: tuple[int, ...] = ()
    mpp: float | None = 0.5
    bigtiff: bool = False
    byteorder: Literal["<", ">"] = "<"
    seed: int = 0


def write_slide(path: Path, layout: Layout, pixels: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Write a tiled TIFF and return the pixels of level 0 before compression."""
    if pixels is None:
        pixels = tissue(layout.size, seed=layout.seed)
    if layout.photometric == "gray":
        pixels = pixels[..., :1]
    with tifffile.TiffWriter(
        path, bigtiff=layout.bigtiff, byteorder=layout.byteorder, ome=layout.family == "ome"
    ) as file:
        for index, factor in enumerate(layout.levels):
            level = np.ascontiguousarray(pixels[::factor, ::factor])
            tiles, tables = _encode(level, layout, missing=layout.missing if index == 0 else ())
            below = layout.sub_ifds or layout.family == "ome"
            file.write(
                iter(tiles),
                shape=level.shape if level.shape[2] > 1 else level.shape[:2],
                dtype=np.uint8,
                tile=(layout.tile, layout.tile),
                photometric={"ycbcr": "ycbcr", "rgb": "rgb", "gray": "minisblack"}[layout.photometric],
                compression=CODES[layout.compression],
                # Else tifffile takes RGB in JPEG for YCbCr.
                compressionargs={"outcolorspace": "rgb"} if layout.photometric == "rgb" else None,
                predictor=2 if layout.predictor else None,
                subsampling=_ratio(layout) if layout.photometric == "ycbcr" else None,
                extratags=[(347, 7, len(tables), tables, True)] if tables else [],
                **_words(level, layout, index=index, below=below),
            )
        if layout.family == "aperio":
            file.write(
                pixels[:32, :32], photometric="rgb", metadata=None, description="Aperio Image Library", rowsperstrip=8
            )
    return pixels


def _words(level: NDArray[np.uint8], layout: Layout, *, index: int, below: bool) -> dict[str, Any]:
    height, width = level.shape[:2]
    words: dict[str, Any] = {"metadata": None}
    if below and len(layout.levels) > 1 and index == 0:
        words["subifds"] = len(layout.levels) - 1
    if index > 0 and layout.family != "aperio":
        words["subfiletype"] = 1
    if layout.family == "aperio":
        words["description"] = APERIO.format(
            w=width, h=height, t=layout.tile, codec="JPEG/RGB", mpp=layout.mpp if layout.mpp is not None else ""
        )
    elif layout.family == "ome" and index == 0:
        words["metadata"] = {"axes": "YXS" if level.shape[2] > 1 else "YX"}
        if layout.mpp is not None:
            words["metadata"] |= {"PhysicalSizeX": layout.mpp, "PhysicalSizeY": layout.mpp, "PhysicalSizeXUnit": "µm"}
    elif layout.mpp is not None and index == 0:
        words |= {"resolution": (1e4 / layout.mpp, 1e4 / layout.mpp), "resolutionunit": "CENTIMETER"}
    return words


def _ratio(layout: Layout) -> tuple[int, int]:
    return {"444": (1, 1), "422": (2, 1), "420": (2, 2)}[layout.subsampling]


def _encode(level: NDArray[np.uint8], layout: Layout, *, missing: tuple[int, ...]) -> tuple[list[bytes], bytes | None]:
    encode = _encoder(layout)
    tiles = [encode(tile) for tile in _cut(level, layout.tile)]
    tables = None
    if layout.shared_tables:
        tables = (
            b"\xff\xd8"
            + b"".join(segment for kind, segment in _segments(tiles[0]) if kind in TABLE_MARKERS)
            + b"\xff\xd9"
        )
        tiles = [
            b"\xff\xd8" + b"".join(segment for kind, segment in _segments(tile) if kind not in TABLE_MARKERS)
            for tile in tiles
        ]
    return [b"" if number in missing else tile for number, tile in enumerate(tiles)], tables


def _cut(level: NDArray[np.uint8], side: int) -> Iterator[NDArray[np.uint8]]:
    height, width = level.shape[:2]
    padded = np.pad(level, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge")
    for y in range(0, padded.shape[0], side):
        for x in range(0, padded.shape[1], side):
            yield np.ascontiguousarray(padded[y : y + side, x : x + side])


def _encoder(layout: Layout) -> Callable[[NDArray[np.uint8]], bytes]:
    def jpeg(tile: NDArray[np.uint8]) -> bytes:
        if layout.photometric == "gray":
            return bytes(imagecodecs.jpeg8_encode(tile[..., 0], level=80, colorspace="GRAYSCALE"))
        if layout.photometric == "rgb":
            return bytes(
                imagecodecs.jpeg8_encode(tile, level=80, colorspace="RGB", outcolorspace="RGB", subsampling="444")
            )
        return bytes(
            imagecodecs.jpeg8_encode(
                tile, level=80, colorspace="RGB", outcolorspace="YCBCR", subsampling=layout.subsampling
            )
        )

    def jpeg2000(tile: NDArray[np.uint8]) -> bytes:
        if layout.compression == "33003":
            tile = np.asarray(_to_ycbcr(tile))
        return bytes(
            imagecodecs.jpeg2k_encode(
                tile, level=45, codecformat="J2K", mct=layout.compression != "33003", reversible=False
            )
        )

    def raw(tile: NDArray[np.uint8]) -> bytes:
        if layout.predictor:
            tile = np.asarray(imagecodecs.delta_encode(tile, axis=1))
        data = tile.tobytes()
        if layout.compression == "lzw":
            return bytes(imagecodecs.lzw_encode(data))
        return bytes(imagecodecs.zlib_encode(data)) if layout.compression == "deflate" else data

    if layout.compression == "jpeg":
        return jpeg
    return jpeg2000 if layout.compression.isdigit() else raw


def _to_ycbcr(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    weights = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    ycbcr = tile @ weights.T + (0, 128, 128)
    result: NDArray[np.uint8] = np.rint(ycbcr).clip(0, 255).astype(np.uint8)
    return result


def _segments(jpeg: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (marker, bytes) of each segment behind SOI; the last one is the scan with all that follows."""
    position = 2
    while jpeg[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
        yield jpeg[position + 1], jpeg[position:end]
        position = end
    yield 0xDA, jpeg[position:]
