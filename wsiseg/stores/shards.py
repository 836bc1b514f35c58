"""Arrays of patches in Zarr v3 shards: few files, each patch a chunk of its own.

A shard file holds the chunks of many patches one after the other, then an index of
(offset, size) for each, then its checksum; an index entry of all ones is a patch that
is not there. That is the ``sharding_indexed`` layout of the Zarr v3 specification, so any
Zarr reader takes it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from wsiseg.atomic import write_bytes
from wsiseg.errors import StoreError
from wsiseg.stores.checksum import crc32c
from wsiseg.stores.chunk_codecs import from_zarr
from wsiseg.stores.zarr_files import LITTLE_ENDIAN, read_metadata, write_metadata

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from io import FileIO
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.stores.chunk_codecs import ChunkCodec
    from wsiseg.stores.zarr_files import Json

MISSING = np.uint64(2**64 - 1)
# A shard of this many raw bytes is a few MB on disk, and is what a writer holds in memory.
SHARD_BYTES = 32 * 2**20
MAX_PER_SHARD = 256


def per_shard(item_bytes: int) -> int:
    """Return how many patches of `item_bytes` raw bytes share a shard, a power of two."""
    fits = max(1, min(MAX_PER_SHARD, SHARD_BYTES // max(1, item_bytes)))
    return 1 << (fits.bit_length() - 1)


class ShardedArray:
    """An array (N, …) on disk whose items are read and written one by one.

    Reading is safe from several threads and while another process writes.

    Parameters
    ----------
    folder
        Folder of the Zarr array.

    Raises
    ------
    StoreError
        If there is no such array, or it is stored in another way.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        metadata = read_metadata(folder)
        try:
            shape = tuple(int(length) for length in metadata["shape"])
            self.dtype: np.dtype[Any] = np.dtype(metadata["data_type"])
            self.items_per_shard = int(metadata["chunk_grid"]["configuration"]["chunk_shape"][0])
            (sharding,) = metadata["codecs"]
            one_patch = tuple(sharding["configuration"]["chunk_shape"]) == (1, *shape[1:])
            self.codec: ChunkCodec = from_zarr(sharding["configuration"]["codecs"], self.dtype.itemsize)
            self.fill = int(metadata["fill_value"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise StoreError(
                f"the array is not stored as patches in shards ({error})",
                where=folder,
                mend="Write it again with wsiseg",
            ) from error
        if not one_patch:
            raise StoreError("a chunk of the array is not one patch", where=folder, mend="Write it again with wsiseg")
        self.attributes: Json = metadata.get("attributes", {})
        self._count, self.item_shape = shape[0], shape[1:]
        self._indices: dict[int, tuple[tuple[int, int, int], NDArray[np.uint64]]] = {}
        self._writing = threading.Lock()

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        count: int,
        item_shape: tuple[int, ...],
        dtype: np.dtype[Any],
        codec: ChunkCodec,
        fill: int = 0,
        attributes: Mapping[str, Any] | None = None,
    ) -> Self:
        """Make an array of `count` items, none of which is there yet.

        Parameters
        ----------
        folder
            Folder of the Zarr array.
        count
            Number of items.
        item_shape
            Shape of one item, such as (H, W, 3).
        dtype
            Type of the values.
        codec
            How an item becomes bytes.
        fill
            Value of items that are not there.
        attributes
            Kept in Zarr's metadata.
        """
        items = per_shard(int(np.prod(item_shape)) * dtype.itemsize)
        sharding = {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [1, *item_shape],
                "codecs": codec.zarr_codecs,
                "index_codecs": [LITTLE_ENDIAN, {"name": "crc32c"}],
                "index_location": "end",
            },
        }
        write_metadata(
            folder,
            shape=(count, *item_shape),
            dtype=dtype,
            chunk=(items, *item_shape),
            fill=fill,
            codecs=[sharding],
            attributes=attributes or {},
        )
        return cls(folder)

    def __len__(self) -> int:
        return self._count

    @property
    def shard_count(self) -> int:
        """Return the number of shards."""
        return -(-self._count // self.items_per_shard)

    def shard_items(self, shard: int) -> range:
        """Return the items of a shard."""
        return range(shard * self.items_per_shard, min(self._count, (shard + 1) * self.items_per_shard))

    def has(self) -> NDArray[np.bool_]:
        """Tell which items are there, (N,)."""
        there = np.zeros(self.shard_count * self.items_per_shard, dtype=np.bool_)
        for shard in range(self.shard_count):
            first = shard * self.items_per_shard
            there[first : first + self.items_per_shard] = self._index(shard)[:, 1] != MISSING
        return there[: self._count]

    def read(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Return items in the order of `indices`, repeats allowed; missing ones are filled.

        Raises
        ------
        IndexError
            If an index is out of range.
        StoreError
            If stored bytes are damaged.
        """
        wanted = self._checked(indices)
        result = np.empty((len(wanted), *self.item_shape), dtype=self.dtype)
        shards = wanted // self.items_per_shard
        for shard in np.unique(shards).tolist():
            places = np.flatnonzero(shards == shard)
            chunks = self._chunks(shard, (wanted[places] % self.items_per_shard).tolist())
            for place, chunk in zip(places.tolist(), chunks, strict=True):
                if chunk is None:
                    result[place] = self.fill
                    continue
                try:
                    self.codec.decode(chunk, result[place])
                except ValueError as error:
                    raise StoreError(f"patch {wanted[place]} is damaged: {error}", where=self.folder) from error
        return result

    def fingerprint(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> str:
        """Return the hash of items as they are stored, which tells them from others without decoding them."""
        wanted, digest = self._checked(indices), hashlib.blake2b(digest_size=16)
        for shard in np.unique(wanted // self.items_per_shard).tolist():
            items = wanted[wanted // self.items_per_shard == shard]
            for item, chunk in zip(items.tolist(), self._chunks(shard, items % self.items_per_shard), strict=True):
                size = -1 if chunk is None else len(chunk)
                digest.update(f"{item} {size} ".encode() + (chunk or b""))
        return digest.hexdigest()

    def write_shard(self, shard: int, chunks: Sequence[bytes | None]) -> None:
        """Write the encoded items of a whole shard, None for those that are not there.

        The file is not synced: this is for stores that are renamed into place when complete.
        """
        path = self._path(shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.writelines(self._packed(chunks))

    def write(self, indices: Sequence[int] | NDArray[np.integer[Any]], arrays: Sequence[NDArray[Any]]) -> None:
        """Replace items; each touched shard is replaced as a whole and is never seen half-written.

        Only one process may write to an array at a time.

        Parameters
        ----------
        indices
            Items to replace.
        arrays
            Their values, each of the item's shape.
        """
        wanted = self._checked(indices)
        encoded = []
        for array in arrays:
            if array.shape != self.item_shape:
                raise ValueError(f"items of shape {array.shape} do not fit an array of {self.item_shape}")
            encoded.append(self.codec.encode(array.astype(self.dtype, copy=False)))
        shards = wanted // self.items_per_shard
        with self._writing:
            for shard in np.unique(shards).tolist():
                chunks = self._chunks(shard, range(self.items_per_shard))
                for place in np.flatnonzero(shards == shard).tolist():
                    chunks[int(wanted[place]) % self.items_per_shard] = encoded[place]
                write_bytes(self._path(shard), b"".join(self._packed(chunks)))

    def _checked(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self._count):
            raise IndexError(f"patch indices must lie within 0 … {self._count - 1}")
        return wanted

    def _path(self, shard: int) -> Path:
        return self.folder / "c" / str(shard) / "/".join("0" * len(self.item_shape))

    def _packed(self, chunks: Sequence[bytes | None]) -> list[bytes]:
        """Return the pieces of a shard file."""
        index = np.full((self.items_per_shard, 2), MISSING, dtype="<u8")
        offset = 0
        for place, chunk in enumerate(chunks):
            if chunk is not None:
                index[place] = offset, len(chunk)
                offset += len(chunk)
        table = index.tobytes()
        return [*(chunk for chunk in chunks if chunk is not None), table, crc32c(table).to_bytes(4, "little")]

    def _index(self, shard: int) -> NDArray[np.uint64]:
        """Return (offset, size) of each item of a shard, (items_per_shard, 2)."""
        try:
            with self._path(shard).open("rb", buffering=0) as file:
                return self._read_index(shard, file)
        except FileNotFoundError:
            return np.full((self.items_per_shard, 2), MISSING)

    def _read_index(self, shard: int, file: FileIO) -> NDArray[np.uint64]:
        status = os.fstat(file.fileno())
        # Labels are replaced while others read: an index belongs to one version of the file.
        version = (status.st_ino, status.st_mtime_ns, status.st_size)
        known = self._indices.get(shard)
        if known is not None and known[0] == version:
            return known[1]
        length = self.items_per_shard * 16
        file.seek(max(0, status.st_size - length - 4))
        tail = file.read(length + 4)
        if len(tail) != length + 4 or crc32c(tail[:length]) != int.from_bytes(tail[length:], "little"):
            raise StoreError("a shard is cut short or damaged", where=self._path(shard), mend="Make the store again")
        index: NDArray[np.uint64] = np.frombuffer(tail[:length], dtype="<u8").reshape(-1, 2).astype(np.uint64)
        self._indices[shard] = (version, index)
        return index

    def _chunks(self, shard: int, items: Sequence[int]) -> list[bytes | None]:
        """Return the encoded items of a shard by their place in it."""
        chunks: list[bytes | None] = []
        try:
            with self._path(shard).open("rb", buffering=0) as file:
                index = self._read_index(shard, file)
                for offset, size in (index[item] for item in items):
                    if size != MISSING:
                        file.seek(int(offset))
                    chunks.append(None if size == MISSING else file.read(int(size)))
        except FileNotFoundError:
            return [None] * len(items)
        return chunks
