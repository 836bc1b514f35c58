"""Features of patches on disk, in chunks of patches that appear when they are complete.

Layout of ``<name>.zarr`` (Zarr v3; N patches, D dimensions)::

    patches      (N, D) float16        what an encoder makes of each patch
    quadrants    (N, 4, D) float16     what it makes of its four quadrants, row by row
    appearance   (N, 2) float32        share of the patch that is tissue, and that is stained with haematoxylin

A chunk that is there is done, so that interrupted work goes on with those that are not.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import imagecodecs
import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from wsiseg.atomic import atomic_path, write_bytes
from wsiseg.errors import StoreError
from wsiseg.stores.zarr_files import (
    LITTLE_ENDIAN,
    ZSTD,
    ZSTD_LEVEL,
    read_metadata,
    write_group,
    write_metadata,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SCHEMA: Final = 1
QUADRANTS: Final = 4
# Some MB of quadrants: little to do again after an interruption, and few files for a million patches.
CHUNK: Final = 256
_KEY: Final = "wsiseg"

Kind = Literal["patches", "quadrants", "appearance"]


class FeatureMeta(BaseModel):
    """What features were made of, and by what.

    Parameters
    ----------
    schema_version
        Version of the layout on disk.
    kind
        Always ``features``.
    count
        Patches.
    dimensions
        Of a feature.
    chunk
        Patches of a chunk.
    encoder
        Name of the network.
    preproc
        How colours were prepared.
    precision
        Number format that the network ran in, such as ``float32`` or ``bfloat16``.
    weights
        Hash of the network's weights.
    patches
        Hash of the patches and their places.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA
    kind: Literal["features"] = "features"
    count: int
    dimensions: int
    chunk: int = CHUNK
    encoder: str
    preproc: str
    precision: str
    weights: str
    patches: str


class FeatureStore:
    """Features of all patches of some stores, in their order.

    Parameters
    ----------
    path
        The folder ``<name>.zarr``.

    Raises
    ------
    StoreError
        If there is no such store, or it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        attributes = read_metadata(path).get("attributes", {}).get(_KEY)
        try:
            self.meta = FeatureMeta.model_validate_json(json.dumps(attributes))
        except ValidationError as error:
            raise StoreError(
                "not a store of features of this wsiseg", where=path, mend="Choose another place, or --overwrite"
            ) from error
        self._known: dict[Kind, tuple[int, NDArray[Any]]] = {}

    @classmethod
    def prepare(cls, path: Path, meta: FeatureMeta, *, overwrite: bool = False) -> Self:
        """Open the store at `path`, or make an empty one there.

        Raises
        ------
        StoreError
            If it holds features of other patches, by another encoder or in another number format, unless they may be
            overwritten, or something else, which is never overwritten.
        """
        is_there = path.exists() and not (path.is_dir() and not any(path.iterdir()))
        if is_there and not _holds_features(path):
            raise StoreError("what is there holds no features", where=path, mend="Name another place with --features")
        if is_there and not overwrite:
            store = cls(path)
            fields = ("encoder", "preproc", "precision", "weights", "patches", "count", "dimensions")
            if other := [name for name in fields if getattr(store.meta, name) != getattr(meta, name)]:
                made = f"{store.meta.encoder} ({store.meta.preproc}, {store.meta.precision})"
                what = "patches" if "patches" in other else made
                raise StoreError(
                    f"holds features of {'other ' if what == 'patches' else ''}{what}, not those asked for",
                    where=path,
                    mend="Choose another place with --features, the same --amp, or --overwrite",
                )
            return store
        with atomic_path(path) as temporary:
            write_group(temporary, {_KEY: meta.model_dump(mode="json")})
            for kind in ("patches", "quadrants", "appearance"):
                shape, dtype = _shape(meta, kind), _dtype(kind)
                write_metadata(
                    temporary / kind,
                    shape=(meta.count, *shape),
                    dtype=dtype,
                    chunk=(meta.chunk, *shape),
                    fill=0,
                    codecs=[LITTLE_ENDIAN, ZSTD],
                    attributes={},
                )
        return cls(path)

    def __len__(self) -> int:
        return self.meta.count

    @property
    def dimensions(self) -> int:
        """Return the dimensions of a feature."""
        return self.meta.dimensions

    def missing(self) -> list[range]:
        """Return the patches of each chunk that is not there yet."""
        # The patches' own features are written last.
        return [rows for rows in self._chunks() if not self._path("patches", rows.start // self.meta.chunk).exists()]

    def write(
        self,
        rows: range,
        *,
        patches: NDArray[np.float16],
        quadrants: NDArray[np.float16],
        appearance: NDArray[np.float32],
    ) -> None:
        """Write one chunk.

        Parameters
        ----------
        rows
            Its patches; one of `missing`.
        patches
            float16, (n, D).
        quadrants
            float16, (n, 4, D).
        appearance
            float32, (n, 2).

        Raises
        ------
        ValueError
            If the arrays do not fit, or hold what is no number.
        """
        arrays: dict[Kind, NDArray[Any]] = {"appearance": appearance, "quadrants": quadrants, "patches": patches}
        for kind, array in arrays.items():
            if array.shape != (len(rows), *_shape(self.meta, kind)):
                raise ValueError(f"{kind} of shape {array.shape} do not fit {len(rows)} rows")
            if not np.isfinite(array).all():
                raise ValueError(f"{kind} hold what is no number")
        for kind, array in arrays.items():
            # The last chunk is as long as the others, as Zarr wants it.
            whole = np.zeros((self.meta.chunk, *array.shape[1:]), dtype=_dtype(kind).newbyteorder("<"))
            whole[: len(rows)] = array
            data = imagecodecs.zstd_encode(whole.tobytes(), level=ZSTD_LEVEL)
            write_bytes(self._path(kind, rows.start // self.meta.chunk), bytes(data))

    def read(self, kind: Kind, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Return features of some patches, (n, …) in the order of `indices`.

        Sorted indices are fastest: the last chunk is kept between calls.

        Raises
        ------
        StoreError
            If a chunk is not there or damaged.
        """
        result = np.empty((len(indices), *_shape(self.meta, kind)), dtype=_dtype(kind))
        chunks = indices // self.meta.chunk
        for chunk in np.unique(chunks).tolist():
            places = np.flatnonzero(chunks == chunk)
            result[places] = self._chunk(kind, chunk)[indices[places] - chunk * self.meta.chunk]
        return result

    def _chunks(self) -> Iterator[range]:
        for first in range(0, self.meta.count, self.meta.chunk):
            yield range(first, min(first + self.meta.chunk, self.meta.count))

    def _chunk(self, kind: Kind, chunk: int) -> NDArray[Any]:
        known = self._known.get(kind)
        if known is not None and known[0] == chunk:
            return known[1]
        path = self._path(kind, chunk)
        shape = (self.meta.chunk, *_shape(self.meta, kind))
        try:
            data = imagecodecs.zstd_decode(path.read_bytes(), out=math.prod(shape) * _dtype(kind).itemsize)
            array = np.frombuffer(data, dtype=_dtype(kind).newbyteorder("<")).reshape(shape)
        except (OSError, ValueError, imagecodecs.ZstdError) as error:
            raise StoreError(
                "features are not there or damaged", where=path, mend="Delete the file, and run again"
            ) from error
        self._known[kind] = (chunk, array)
        return array

    def _path(self, kind: Kind, chunk: int) -> Path:
        return self.path / kind / "c" / "/".join([str(chunk), *("0" * len(_shape(self.meta, kind)))])


def _holds_features(path: Path) -> bool:
    """Tell whether a folder is a store of features, of whatever version."""
    try:
        return bool(read_metadata(path)["attributes"][_KEY]["kind"] == FeatureMeta.model_fields["kind"].default)
    except (StoreError, KeyError, TypeError):
        return False


def _shape(meta: FeatureMeta, kind: Kind) -> tuple[int, ...]:
    """Return the shape of what there is of one patch."""
    shapes = {"patches": (meta.dimensions,), "quadrants": (QUADRANTS, meta.dimensions), "appearance": (2,)}
    return shapes[kind]


def _dtype(kind: Kind) -> np.dtype[Any]:
    return np.dtype(np.float32 if kind == "appearance" else np.float16)
