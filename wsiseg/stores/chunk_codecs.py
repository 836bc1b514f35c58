"""How the pixels of one patch become bytes, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import imagecodecs
import numpy as np

from wsiseg.stores.zarr_files import LITTLE_ENDIAN, ZSTD, ZSTD_LEVEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wsiseg.stores.zarr_files import Json


class ChunkCodec(Protocol):
    """Turns one patch into bytes and back. The calls release the GIL."""

    @property
    def zarr_codecs(self) -> list[Json]:
        """Return how Zarr's metadata names the codec."""
        ...

    def encode(self, array: NDArray[Any]) -> bytes:
        """Return the bytes of one patch."""
        ...

    def decode(self, data: bytes, out: NDArray[Any]) -> None:
        """Fill `out`, C-contiguous, with the patch in `data`.

        Raises
        ------
        ValueError
            If the bytes are damaged or hold something else.
        """
        ...


@dataclass(frozen=True, slots=True)
class Zstd:
    """Lossless compression of arrays of any integer type."""

    itemsize: int

    @property
    def zarr_codecs(self) -> list[Json]:
        """Return how Zarr's metadata names the codec."""
        return [{"name": "bytes"} if self.itemsize == 1 else LITTLE_ENDIAN, ZSTD]

    def encode(self, array: NDArray[Any]) -> bytes:
        """Return the bytes of one patch."""
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        return bytes(imagecodecs.zstd_encode(little.tobytes(), level=ZSTD_LEVEL))

    def decode(self, data: bytes, out: NDArray[Any]) -> None:
        """Fill `out` with the patch in `data`; see `ChunkCodec`."""
        try:
            decoded = imagecodecs.zstd_decode(data, out=out.reshape(-1).view(np.uint8).data)
        except imagecodecs.ZstdError as error:
            raise ValueError(str(error)) from error
        if len(decoded) != out.nbytes:
            raise ValueError(f"{len(decoded)} bytes where {out.nbytes} belong")


@dataclass(frozen=True, slots=True)
class Jpeg:
    """JPEG pictures that can be decoded on their own.

    Parameters
    ----------
    quality
        0 … 100, for encoding; what is stored already keeps its own.
    """

    quality: int = 90

    @property
    def zarr_codecs(self) -> list[Json]:
        """Return how Zarr's metadata names the codec."""
        return [{"name": "imagecodecs_jpeg", "configuration": {"level": self.quality}}]

    def encode(self, array: NDArray[Any]) -> bytes:
        """Return the bytes of one patch."""
        # 4:4:4, since the colour of a small nucleus is what a network goes by.
        return bytes(imagecodecs.jpeg8_encode(array, level=self.quality, subsampling="444"))

    def decode(self, data: bytes, out: NDArray[Any]) -> None:
        """Fill `out` with the patch in `data`; see `ChunkCodec`."""
        try:
            decoded = imagecodecs.jpeg8_decode(data)
        except imagecodecs.Jpeg8Error as error:
            raise ValueError(str(error)) from error
        if decoded.shape != out.shape:
            raise ValueError(f"a picture of shape {decoded.shape} where {out.shape} belongs")
        out[...] = decoded


def check_jpeg(data: bytes, shape: tuple[int, int]) -> None:
    """Check that a picture of `shape` (H, W) can be decoded.

    Raises
    ------
    ValueError
        If its bytes are damaged or hold something else.
    """
    try:
        # Every coefficient is read, but a third of the work, that on colours, is not done.
        decoded = imagecodecs.jpeg8_decode(data, outcolorspace="GRAYSCALE")
    except imagecodecs.Jpeg8Error as error:
        raise ValueError(str(error)) from error
    if decoded.shape[:2] != shape:
        raise ValueError(f"a picture of shape {decoded.shape[:2]} where {shape} belongs")


def from_zarr(codecs: Sequence[Json], itemsize: int) -> ChunkCodec:
    """Return the codec that Zarr's metadata names.

    Raises
    ------
    ValueError
        If it is none of ours.
    """
    names = [codec.get("name") for codec in codecs]
    if names == ["bytes", "zstd"]:
        return Zstd(itemsize)
    if names == ["imagecodecs_jpeg"]:
        return Jpeg(int(codecs[0]["configuration"]["level"]))
    raise ValueError(f"patches stored with {names} are not supported")
