"""Which volumes are taken in, and how."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from wsiseg.config import Config
from wsiseg.errors import DataError, NothingMatchedError
from wsiseg.ingestion.hdf5_cases import find_hdf5
from wsiseg.ingestion.source import SourceImage
from wsiseg.ingestion.tables import split_by_table
from wsiseg.labels import ClassNames  # noqa: TC001 - pydantic reads the annotations
from wsiseg.manifest import SPLITS
from wsiseg.nifti import is_nifti, nifti_stem
from wsiseg.slides.fingerprint import fingerprint
from wsiseg.volumes import IntensityRule

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

# Folders of images, those of their labels, and the split that the name tells.
_FOLDERS: Final = (("images", "labels", ""), ("imagesTr", "labelsTr", ""), ("imagesTs", "labelsTs", "test"))
_FIRST_CHANNEL, _SECOND_CHANNEL = "_0000", "_0001"


class VolumeSettings(Config):
    """How volumes are taken in.

    Parameters
    ----------
    layout
        ``volumes``: NIfTI files in ``SRC/images`` and ``SRC/labels`` (or in ``imagesTr``, ``labelsTr``, ``imagesTs``
        and ``labelsTs``), labels under the name of their image; or HDF5 files in ``SRC`` or ``SRC/data``, each with
        the data sets ``image`` and ``label``, and lists of their names, ``train.txt``, ``val.txt`` and ``test.txt``.
        Volumes without labels are taken in, too.
    classes
        Names of the classes in the order of their indices, background first; by default numbered.
    binary
        Every label above 0 means class 1.
    intensities
        How intensities are prepared; kept in the store, and done again to what is predicted.
    axes
        Order of the axes in HDF5 files, which do not tell it; slices lie along z.
    split
        One of train, val, test, unlabelled for all volumes, or a CSV file with the columns ``image`` (file name or
        name of the volume), ``split`` and, if wanted, ``patient_id``.
    """

    layout: Literal["volumes"] = "volumes"
    classes: ClassNames = ()
    binary: bool = False
    intensities: IntensityRule = IntensityRule()
    axes: Literal["xyz", "zyx"] = "xyz"
    split: str = ""


def find_volumes(source: Path, settings: VolumeSettings) -> list[SourceImage]:
    """Return the volumes of a source with their splits, those of lists in the order of these.

    Raises
    ------
    NothingMatchedError
        If there are none.
    DataError
        If names are ambiguous, no label fits, or a list names what is not there.
    ConfigError
        If the table of splits does not fit the volumes.
    """
    if not source.is_dir():
        raise NothingMatchedError("there is no such folder", where=source)
    volumes = _find_nifti(source) or find_hdf5(source)
    if not volumes:
        raise NothingMatchedError(
            "the folder holds no volumes",
            where=source,
            mend="NIfTI volumes lie in SRC/images and SRC/labels, HDF5 files in SRC or SRC/data",
        )
    if settings.split in SPLITS:
        return [replace(volume, split=settings.split) for volume in volumes]
    return split_by_table(volumes, Path(settings.split)) if settings.split else volumes


def volumes_fingerprint(volumes: Sequence[SourceImage], settings: VolumeSettings) -> str:
    """Return a hash of the volumes, their labels and the settings."""
    digest = hashlib.blake2b(json.dumps(settings.model_dump(mode="json"), sort_keys=True).encode(), digest_size=16)
    for volume in volumes:
        parts = [volume.name, volume.split, volume.group, fingerprint(volume.path)]
        parts.append("" if volume.labels is None else fingerprint(volume.labels))
        digest.update("\0".join(parts).encode() + b"\n")
    return digest.hexdigest()


def _find_nifti(source: Path) -> list[SourceImage]:
    found: dict[str, SourceImage] = {}
    for images, labels, split in _FOLDERS:
        masks = _by_name(source / labels)
        for stem, path in _by_name(source / images).items():
            name = stem.removesuffix(_FIRST_CHANNEL)
            if stem.endswith(_SECOND_CHANNEL):
                raise DataError("a second channel of a volume", where=path, mend="Keep one channel of each volume")
            if name in found:
                raise DataError(f"the same name as {found[name].path}", where=path, mend="Rename one of them")
            found[name] = SourceImage(name=name, path=path, labels=masks.pop(name, None), split=split, group=name)
        if masks:
            first = next(iter(masks.values()))
            if not any(volume.labels for volume in found.values()):
                raise DataError("no labels have the name of a volume", where=first, mend="Name both alike")
            logger.warning("%s: %d label files belong to no volume, such as %s", source, len(masks), first.name)
    return list(found.values())


def _by_name(folder: Path) -> dict[str, Path]:
    """Return the NIfTI files right in a folder by their names without suffix, sorted; none if there is no folder."""
    files: dict[str, Path] = {}
    for file in sorted(folder.glob("*")):
        if not is_nifti(file) or file.name.startswith("."):
            continue
        name = nifti_stem(file)
        if name in files:
            raise DataError(f"the same name as {files[name].name}", where=file, mend="Remove one of them")
        files[name] = file
    return files
