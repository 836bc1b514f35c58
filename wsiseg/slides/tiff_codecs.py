"""From the bytes of one TIFF tile to pixels, with the very numbers that OpenSlide gives."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import imagecodecs
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NONE, LZW, JPEG, DEFLATE, ADOBE_DEFLATE = 1, 5, 7, 32946, 8
APERIO_JPEG2000_YCBCR, APERIO_JPEG2000_RGB, JPEG2000 = 33003, 33005, 34712
COMPRESSION_NAMES = {
    NONE: "none",
    LZW: "lzw",
    JPEG: "jpeg",
    DEFLATE: "deflate",
    ADOBE_DEFLATE: "deflate",
    APERIO_JPEG2000_YCBCR: "jpeg2000",
    APERIO_JPEG2000_RGB: "jpeg2000",
    JPEG2000: "jpeg2000",
}
GRAY, RGB, YCBCR = 1, 2, 6
HORIZONTAL_PREDICTOR = 2

_SOI, _EOI, _SOS = b"\xff\xd8", b"\xff\xd9", 0xDA
_APP0, _APP14 = 0xE0, 0xEE
# Which colours the three components are is said by the last byte: 0 RGB, 1 YCbCr.
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"


class Decode(Protocol):
    """Turns the bytes of a tile into pixels."""

    def __call__(self, data: bytes, /, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return the pixels of a tile, in `out` if that is a fitting array and the codec can.

        Raises whatever the codec raises at broken bytes, or `ValueError` where the tile is of another size.
        """


def make_decoder(
    *, compression: int, photometric: int, predictor: int, tables: bytes | None, height: int, width: int
) -> Decode:
    """Return the function from a tile's bytes to its pixels, RGB uint8 (height, width, 3).

    Parameters
    ----------
    compression, photometric, predictor
        As the TIFF tags give them.
    tables
        JPEG tables that the tiles share.
    height, width
        Of a tile.
    """
    channels = 1 if photometric == GRAY else 3
    shape = (height, width, channels)

    colours = {GRAY: "GRAYSCALE", RGB: "RGB", YCBCR: "YCBCR"}[photometric]
    shown = "GRAYSCALE" if photometric == GRAY else "RGB"

    def decode_jpeg(data: bytes, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        if out is None or out.shape != shape:
            out = _unaligned(shape)
        pixels: NDArray[np.uint8] = imagecodecs.jpeg8_decode(
            data, tables=tables, colorspace=colours, outcolorspace=shown, out=out
        )
        return pixels

    def decode_jpeg2000(data: bytes) -> NDArray[np.uint8]:
        pixels = np.asarray(imagecodecs.jpeg2k_decode(data))
        return ycbcr_to_rgb(pixels) if compression == APERIO_JPEG2000_YCBCR else pixels

    def decode_raw(data: bytes) -> NDArray[np.uint8]:
        if compression == LZW:
            data = bytes(imagecodecs.lzw_decode(data, buffersize=height * width * channels))
        elif compression != NONE:
            data = bytes(imagecodecs.zlib_decode(data, out=height * width * channels))
        pixels = np.frombuffer(data, dtype=np.uint8, count=height * width * channels).reshape(shape)
        if predictor == HORIZONTAL_PREDICTOR:
            return np.asarray(imagecodecs.delta_decode(pixels, axis=1))
        return pixels.copy()

    inner = decode_jpeg2000 if COMPRESSION_NAMES[compression] == "jpeg2000" else decode_raw

    def decode(data: bytes, /, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        pixels = decode_jpeg(data, out) if compression == JPEG else inner(data)
        if pixels.shape[:2] != shape[:2] or pixels.size != height * width * channels:
            raise ValueError(f"the tile holds {pixels.shape} pixels instead of {shape}")
        return np.repeat(pixels.reshape(shape), 3, axis=2) if channels == 1 else pixels

    return decode


def missing_codecs() -> list[str]:
    """Return the names of codecs that this build of imagecodecs lacks."""
    return [name for name in ("JPEG8", "JPEG2K", "LZW", "ZLIB", "DELTA") if not getattr(imagecodecs, name).available]


def standalone_jpeg(tile: bytes, *, tables: bytes | None, is_rgb: bool) -> bytes:
    """Return a tile of a TIFF as a JPEG file that any decoder shows in the right colours.

    The coefficients stay as they are; shared tables are merged in, and a marker says what
    the components mean, which in a TIFF only the directory does.

    Parameters
    ----------
    tile
        The tile's bytes, an abbreviated or a whole JPEG stream.
    tables
        Shared tables, or None.
    is_rgb
        Whether the components are RGB instead of YCbCr.

    Raises
    ------
    ValueError
        If `tile` is no JPEG stream.
    """
    if not tile.startswith(_SOI):
        raise ValueError("not a JPEG stream")
    shared = b""
    if tables:
        shared = tables.removeprefix(_SOI)
        shared = shared.removesuffix(_EOI)
    kept, position = [], len(_SOI)
    while True:
        if len(tile) < position + 4 or tile[position] != 0xFF:  # noqa: PLR2004 - every marker begins so
            raise ValueError("the JPEG header is damaged")
        marker, end = tile[position + 1], position + 2 + int.from_bytes(tile[position + 2 : position + 4], "big")
        if marker == _SOS:
            break
        # These two say what the colours are and may contradict the TIFF's own word.
        if marker not in (_APP0, _APP14):
            kept.append(tile[position:end])
        position = end
    return b"".join((_SOI, _ADOBE, b"\x00" if is_rgb else b"\x01", shared, *kept, tile[position:]))


def _unaligned(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return memory whose rows begin 8 bytes beside a multiple of 16.

    libjpeg-turbo sends aligned rows past the processor's cache, from where they have to come
    back at once; with other rows decoding takes a third less time. Rows of a TIFF tile are a
    multiple of 16 bytes long, so all begin like the first.
    """
    count = math.prod(shape)
    memory = np.empty(count + 24, dtype=np.uint8)
    start = (8 - memory.ctypes.data) % 16
    return memory[start : start + count].reshape(shape)


def _ycbcr_tables() -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Return what Cr adds to red, Cb and Cr to green (2^16 times), and Cb to blue, in OpenSlide's fixed point."""
    # It rounds the factors for red and blue, but the products for green.
    offset, one, half = np.arange(-128, 128), 1 << 16, 1 << 15
    red, blue = ((round(factor * one) * offset + half) >> 16 for factor in (1.40200, 1.77200))
    green_cb, green_cr = (np.rint(-factor * one * offset).astype(np.int32) for factor in (0.34414, 0.71414))
    return red.astype(np.int32), green_cb + half, green_cr, blue.astype(np.int32)


_RED, _GREEN_CB, _GREEN_CR, _BLUE = _ycbcr_tables()


def ycbcr_to_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return YCbCr uint8 (…, 3) as RGB, rounded as libjpeg does."""
    luma = pixels[..., 0].astype(np.int32)
    cb, cr = pixels[..., 1], pixels[..., 2]
    rgb = np.stack((luma + _RED[cr], luma + ((_GREEN_CB[cb] + _GREEN_CR[cr]) >> 16), luma + _BLUE[cb]), axis=-1)
    return rgb.clip(0, 255).astype(np.uint8)
