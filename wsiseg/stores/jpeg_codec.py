"""JPEG chunks for zarr-python.

The name is the one that imagecodecs uses for its own Zarr codecs, so stores also open
where those are installed. zarr finds the class through the package's entry point; without
one, `zarr.registry.register_codec("imagecodecs_jpeg", JpegCodec)` does the same.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import imagecodecs
import numpy as np
from zarr.abc.codec import ArrayBytesCodec

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer
    from zarr.core.common import JSON


@dataclass(frozen=True)
class JpegCodec(ArrayBytesCodec):
    """One RGB picture per chunk (1, H, W, 3).

    Parameters
    ----------
    level
        Quality for encoding, 0 … 100.
    """

    level: int = 90
    is_fixed_size: bool = field(default=False, init=False)

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """Return the codec that Zarr's metadata describes."""
        configuration = data.get("configuration")
        level = configuration.get("level") if isinstance(configuration, dict) else None
        return cls(level=level if isinstance(level, int) else 90)

    def to_dict(self) -> dict[str, JSON]:
        """Return the codec as Zarr's metadata describes it."""
        return {"name": "imagecodecs_jpeg", "configuration": {"level": self.level}}

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        picture = await asyncio.to_thread(imagecodecs.jpeg8_decode, chunk_data.to_bytes())
        return chunk_spec.prototype.nd_buffer.from_numpy_array(picture.reshape(chunk_spec.shape))

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        picture = np.ascontiguousarray(chunk_data.as_numpy_array()).reshape(chunk_spec.shape[-3:])
        encoded = await asyncio.to_thread(imagecodecs.jpeg8_encode, picture, self.level)
        return chunk_spec.prototype.buffer.from_bytes(bytes(encoded))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Refuse: the size of a JPEG is known when it is made."""
        raise NotImplementedError
