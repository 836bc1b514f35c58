"""The files of a Zarr v3 hierarchy, for arrays so small that one chunk holds them.

The patch stores write Zarr's files themselves: a patch costs a tenth of what it costs
through zarr-python, and opening a store does not import it. The tests read everything
back with zarr-python.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np

from wsiseg.atomic import write_bytes
from wsiseg.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# Zarr metadata and attributes are whatever JSON says they are.
Json = dict[str, Any]

METADATA = "zarr.json"
LITTLE_ENDIAN: Json = {"name": "bytes", "configuration": {"endian": "little"}}
ZSTD_LEVEL = 1
ZSTD: Json = {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}}


def write_group(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Make `folder` a Zarr group with `attributes`."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, {"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"})


def write_metadata(
    folder: Path,
    *,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    chunk: Sequence[int],
    fill: int,
    codecs: Sequence[Json],
    attributes: Mapping[str, Any],
) -> None:
    """Make `folder` a Zarr array that holds no chunk yet."""
    folder.mkdir(parents=True, exist_ok=True)
    if dtype.kind == "b":
        fill_value: float | bool = bool(fill)
    else:
        fill_value = float(fill) if dtype.kind == "f" else fill
    _write(
        folder,
        {
            "shape": [int(length) for length in shape],
            "data_type": dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [int(length) for length in chunk]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": fill_value,
            "codecs": list(codecs),
            "attributes": dict(attributes),
            "zarr_format": 3,
            "node_type": "array",
            "storage_transformers": [],
        },
    )


def read_metadata(folder: Path) -> Json:
    """Return the metadata of a group or array.

    Raises
    ------
    StoreError
        If there is none, or it is not JSON.
    """
    try:
        metadata = json.loads((folder / METADATA).read_bytes())
    except FileNotFoundError as error:
        raise StoreError("not a Zarr store", where=folder, mend=f"A store holds a file {METADATA}") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"the metadata cannot be read: {error}", where=folder) from error
    if not isinstance(metadata, dict) or metadata.get("zarr_format") != 3:  # noqa: PLR2004 - Zarr v3
        raise StoreError("not a Zarr v3 store", where=folder)
    return metadata


def write_array(
    folder: Path, array: NDArray[Any], *, fill: int = 0, attributes: Mapping[str, Any] | None = None
) -> None:
    """Write a small `array` as one zstd chunk."""
    codecs = [{"name": "bytes"} if array.dtype.itemsize == 1 else LITTLE_ENDIAN, ZSTD]
    # A chunk must not be empty, an array may.
    chunk = [max(1, length) for length in array.shape]
    write_metadata(
        folder,
        shape=array.shape,
        dtype=array.dtype,
        chunk=chunk,
        fill=fill,
        codecs=codecs,
        attributes=attributes or {},
    )
    if array.size:
        path = folder / "/".join(["c", *("0" * array.ndim)])
        path.parent.mkdir(parents=True, exist_ok=True)
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        path.write_bytes(imagecodecs.zstd_encode(little.tobytes(), level=ZSTD_LEVEL))


def read_array(folder: Path) -> NDArray[Any]:
    """Return an array written by `write_array`.

    Raises
    ------
    StoreError
        If the array is damaged or was written in another way.
    """
    metadata = read_metadata(folder)
    try:
        shape = tuple(metadata["shape"])
        array = np.zeros(shape, dtype=np.dtype(metadata["data_type"]).newbyteorder("<"))
        if array.size:
            data = (folder / "/".join(["c", *("0" * len(shape))])).read_bytes()
            array[...] = np.frombuffer(imagecodecs.zstd_decode(data), dtype=array.dtype).reshape(shape)
    except (OSError, KeyError, TypeError, ValueError, imagecodecs.ZstdError) as error:
        raise StoreError(f"the array is damaged: {error}", where=folder) from error
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _write(folder: Path, metadata: Json) -> None:
    # A store that people use gets layers; one whose metadata is half there cannot be opened any more.
    write_bytes(folder / METADATA, (json.dumps(metadata, indent=1, ensure_ascii=False) + "\n").encode())
