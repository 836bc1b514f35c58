"""Volumes as HDF5 files with the data sets ``image`` and ``label``, as semi-supervised benchmarks publish them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wsiseg.errors import ConfigError, DataError
from wsiseg.ingestion.source import SourceImage

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

HDF5_SUFFIXES: Final = (".h5", ".hdf5")
_IMAGE, _LABEL = "image", "label"
_LISTS: Final = {"train": "train.txt", "val": "val.txt", "test": "test.txt"}
_AXES: Final = 3


def find_hdf5(source: Path) -> list[SourceImage]:
    """Return the volumes that the lists of a folder name, in their order; without lists, all that there are.

    A list holds one name in each line; what follows a comma is not part of it.

    Raises
    ------
    DataError
        If a list names a volume that is not there or in another list, too, or a file is damaged.
    ConfigError
        If h5py is not installed.
    """
    files = {
        file.stem: file for folder in (source / "data", source) for file in sorted(folder.glob("*")) if is_hdf5(file)
    }
    if not files:
        return []
    splits: dict[str, str] = {}
    for split, name in _LISTS.items():
        for listed in _names(source / name):
            if listed in splits:
                raise DataError(f"{listed} is in two lists or twice in one", where=source / name, mend="Remove one")
            if listed not in files:
                raise DataError(f"there is no volume {listed}", where=source / name, mend="Add it, or remove its line")
            splits[listed] = split
    wanted = splits or dict.fromkeys(files, "")
    return [
        SourceImage(
            name=name,
            path=files[name],
            labels=files[name] if _has_labels(files[name]) else None,
            split=split,
            group=name,
        )
        for name, split in wanted.items()
    ]


def is_hdf5(path: Path) -> bool:
    """Tell whether a file's name is that of an HDF5 file."""
    return path.suffix.lower() in HDF5_SUFFIXES and not path.name.startswith(".")


def read_hdf5(path: Path, *, labels: bool) -> NDArray[Any]:
    """Return the voxels of a file as it holds them, or its labels.

    Raises
    ------
    DataError
        If the file is damaged or holds no such volume.
    ConfigError
        If h5py is not installed.
    """
    name = _LABEL if labels else _IMAGE
    with _opened(path) as file:
        if name not in file:
            raise DataError(
                f"the file has no data set {name!r}", where=path, mend=f"It has: {', '.join(file) or 'none'}"
            )
        try:
            voxels = np.asarray(file[name][()])
        except (OSError, TypeError, ValueError) as error:
            raise DataError(f"the data set {name!r} is damaged", where=path, mend="Copy the file anew") from error
    if voxels.ndim != _AXES or voxels.size == 0 or voxels.dtype.kind not in "biuf":
        raise DataError(f"the data set {name!r} of shape {voxels.shape} is no volume", where=path)
    return voxels


def _names(table: Path) -> list[str]:
    if not table.exists():
        return []
    try:
        lines = table.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("the list of volumes cannot be read", where=table) from error
    names = [line.partition(",")[0].strip() for line in lines]
    for suffix in HDF5_SUFFIXES:
        names = [name.removesuffix(suffix) for name in names]
    return [name for name in names if name]


def _has_labels(path: Path) -> bool:
    with _opened(path) as file:
        return _LABEL in file


def _opened(path: Path) -> Any:  # noqa: ANN401 - h5py ships no types
    try:
        import h5py
    except ImportError as error:
        raise ConfigError(
            "HDF5 volumes need h5py, which is not installed", mend="Run: pip install 'wsiseg[volumes]'"
        ) from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataError("cannot be read as an HDF5 file", where=path, mend="Write or copy it anew") from error
