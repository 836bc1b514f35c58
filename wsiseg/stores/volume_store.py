"""Volumes on disk: one Zarr group for a data set, as networks see them.

::

    <name>.zarr/             attributes ``wsiseg``: `VolumeMeta`
     ├─ images/<n>           float32 (D, H, W), prepared: cropped and normalised
     └─ labels/<n>           uint8 (D, H, W), class indices, 255 ignored; only of volumes that have labels

The axes are those of `wsiseg.nifti`. Any box can be read without the rest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias

import numpy as np
import zarr
from pydantic import BaseModel, ConfigDict, ValidationError
from zarr.codecs import ZstdCodec

from wsiseg.errors import StoreError
from wsiseg.labels import LabelMap  # noqa: TC001 - pydantic reads the annotations
from wsiseg.stores.patch_writer import new_folder
from wsiseg.stores.zarr_files import read_metadata
from wsiseg.volumes import IntensityRule  # noqa: TC001 - as above

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

SCHEMA: Final = 1
KEY: Final = "wsiseg"
KIND: Final = "volumes"
LAYER: Final = "labels"
Box: TypeAlias = tuple[slice, slice, slice]
Triple: TypeAlias = tuple[int, int, int]
# Small enough that a window decodes little beyond itself, large enough to pack well.
_CHUNK: Final = 64


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VolumeEntry(_Model):
    """What is known of one volume.

    Parameters
    ----------
    name
        Distinct in its store.
    group
        What must stay together in splits, such as a patient.
    split
        One of train, val, test and unlabelled, or nothing.
    is_labelled
        Whether there are labels.
    shape
        Voxels of the stored part, (D, H, W).
    start, whole
        Where in the volume the stored part begins, and the volume's own (D, H, W).
    spacing_mm
        Millimetres from voxel to voxel, (D, H, W); None where unknown.
    affine
        Rows of the file's affine, which counts voxels in the order of the file; None where it has none.
    """

    name: str
    group: str
    split: str = ""
    is_labelled: bool
    shape: Triple
    start: Triple
    whole: Triple
    spacing_mm: tuple[float, float, float] | None = None
    affine: tuple[tuple[float, float, float, float], ...] | None = None


class VolumeMeta(_Model):
    """Everything about a store of volumes that is not an array.

    Parameters
    ----------
    schema_version, kind
        Version of the layout on disk; always ``volumes``.
    labels
        The classes.
    intensities
        How intensities were prepared.
    volumes
        The volumes in order.
    fingerprint
        Hash of what the store was made from.
    config, provenance
        Settings of the command that made the store, and its version.
    """

    schema_version: int = SCHEMA
    kind: Literal["volumes"] = KIND
    labels: LabelMap
    intensities: IntensityRule
    volumes: tuple[VolumeEntry, ...] = ()
    fingerprint: str
    # Settings of whoever made the store; readers only show them.
    config: dict[str, Any] = {}
    provenance: dict[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VolumeItem:
    """A volume to be stored.

    Parameters
    ----------
    entry
        What is known of it.
    voxels
        float32 (D, H, W).
    labels
        uint8 (D, H, W), or None.
    """

    entry: VolumeEntry
    voxels: NDArray[np.float32]
    labels: NDArray[np.uint8] | None


class VolumeStore:
    """The volumes of one data set. Reading is safe from several threads.

    Parameters
    ----------
    path
        The folder ``<name>.zarr``.

    Raises
    ------
    StoreError
        If there is no store of volumes, it is damaged, or it has another schema version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.meta = _read_meta(path)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._lowest: dict[int, float] = {}

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the store at `path`; see the class."""
        return cls(path)

    def __len__(self) -> int:
        return len(self.meta.volumes)

    @property
    def fingerprint(self) -> str:
        """Return the hash of what the store was made from."""
        return self.meta.fingerprint

    @property
    def layers(self) -> dict[str, LabelMap]:
        """Return the classes of the layers of labels by name; there is one."""
        return {LAYER: self.meta.labels}

    @property
    def groups(self) -> NDArray[np.object_]:
        """Return what must stay together in splits, (N,) of str."""
        return np.array([entry.group for entry in self.meta.volumes], dtype=np.object_)

    @property
    def splits(self) -> NDArray[np.object_]:
        """Return train, val, test, unlabelled or nothing for each volume, (N,) of str."""
        return np.array([entry.split for entry in self.meta.volumes], dtype=np.object_)

    def is_labelled(self, layer: str = LAYER) -> NDArray[np.bool_]:
        """Tell which volumes have labels in `layer`, (N,)."""
        return np.array([layer in self.layers and entry.is_labelled for entry in self.meta.volumes], dtype=np.bool_)

    def read_voxels(self, index: int, box: Box = (slice(None),) * 3) -> NDArray[np.float32]:
        """Return a box of a volume, prepared, float32; all of it by default.

        Raises
        ------
        StoreError
            If stored bytes are damaged.
        """
        return self._read(f"images/{index}", box)

    def read_labels(self, index: int, box: Box = (slice(None),) * 3) -> NDArray[np.uint8]:
        """Return the labels of a box of a volume, uint8; all of them by default.

        Raises
        ------
        StoreError
            If stored bytes are damaged, or the volume has no labels.
        """
        if not self.meta.volumes[index].is_labelled:
            raise StoreError(f"the volume {self.meta.volumes[index].name} has no labels", where=self.path)
        return self._read(f"labels/{index}", box)

    def lowest(self, index: int) -> float:
        """Return the least intensity of a volume, which is read as a whole the first time.

        Raises
        ------
        StoreError
            If stored bytes are damaged.
        """
        if index not in self._lowest:
            self._lowest[index] = float(self.read_voxels(index).min())
        return self._lowest[index]

    def _read(self, name: str, box: Box) -> NDArray[Any]:
        try:
            if name not in self._arrays:
                found = zarr.open_array(self.path / name, mode="r")
                self._arrays[name] = found
            return np.asarray(self._arrays[name][box])
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise StoreError(
                f"the array {name} is damaged", where=self.path, mend="Make the store again with --overwrite"
            ) from error


def is_volume_store(path: Path) -> bool:
    """Tell whether there is a store of volumes at `path`, whatever its state."""
    try:
        about = read_metadata(path).get("attributes", {}).get(KEY)
    except StoreError:
        return False
    return isinstance(about, dict) and about.get("kind") == KIND


def write_volume_store(path: Path, meta: VolumeMeta, items: Iterable[VolumeItem]) -> None:
    """Write volumes one by one into a store, which appears when it is complete; the caller holds the lock.

    Parameters
    ----------
    path
        Folder to make; a store that is there is replaced.
    meta
        What the store says of itself; its volumes are those of `items`.
    items
        The volumes; drawn as they are written.
    """
    entries = []
    with new_folder(path) as folder:
        root = zarr.open_group(folder, mode="w", zarr_format=3)
        root.create_group("labels")
        for index, item in enumerate(items):
            _write_array(root, f"images/{index}", item.voxels)
            if item.labels is not None:
                _write_array(root, f"labels/{index}", item.labels)
            entries.append(item.entry)
        about = meta.model_copy(update={"volumes": tuple(entries)})
        root.attrs[KEY] = about.model_dump(mode="json")


def _write_array(root: zarr.Group, name: str, values: NDArray[Any]) -> None:
    chunks = tuple(min(_CHUNK, side) for side in values.shape)
    # One file for each array.
    shards = tuple(-(-side // chunk) * chunk for side, chunk in zip(values.shape, chunks, strict=True))
    array = root.create_array(
        name, shape=values.shape, dtype=values.dtype, chunks=chunks, shards=shards, compressors=ZstdCodec(level=1)
    )
    array[...] = values


def _read_meta(path: Path) -> VolumeMeta:
    mend = "Make one with wsiseg ingest --layout volumes"
    if not path.is_dir():
        raise StoreError("there is no such store", where=path, mend=mend)
    about = read_metadata(path).get("attributes", {}).get(KEY)
    if not isinstance(about, dict) or about.get("kind") != KIND:
        raise StoreError("not a store of volumes", where=path, mend=mend)
    if about.get("schema_version") != SCHEMA:
        raise StoreError(
            f"the store has schema version {about.get('schema_version')}, this wsiseg reads version {SCHEMA}",
            where=path,
            mend="Make it again with --overwrite, or use the wsiseg that made it",
        )
    try:
        return VolumeMeta.model_validate_json(json.dumps(about))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise StoreError(f"the store's attributes are damaged: {place}: {first['msg']}", where=path) from error
