"""The job behind ``wsiseg ingest --layout volumes``: a store out of NIfTI or HDF5 files."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsiseg.errors import StoreError
from wsiseg.ingestion.hdf5_cases import is_hdf5
from wsiseg.ingestion.volume_writing import write_volumes
from wsiseg.ingestion.volumes import find_volumes, volumes_fingerprint
from wsiseg.limits import cpu_limit
from wsiseg.lock import locked
from wsiseg.progress import SILENT
from wsiseg.stores.volume_store import VolumeStore

if TYPE_CHECKING:
    from pathlib import Path

    from wsiseg.ingestion.volumes import VolumeSettings
    from wsiseg.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumesReport:
    """What was made.

    Parameters
    ----------
    store
        The store.
    volumes, labelled
        Numbers of volumes, and of those with labels.
    classes
        Names of the classes.
    seconds
        Time taken.
    was_done
        Whether the store was there already.
    """

    store: Path
    volumes: int
    labelled: int
    classes: tuple[str, ...]
    seconds: float
    was_done: bool

    def __str__(self) -> str:
        how = "already done" if self.was_done else f"{self.seconds:.1f} s"
        classes = ", ".join(self.classes)
        return f"{self.volumes:,} volumes ({self.labelled:,} labelled: {classes}) in {self.store}, {how}"


def ingest_volumes(
    source: Path,
    store: Path,
    settings: VolumeSettings,
    *,
    num_workers: int | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> VolumesReport:
    """Make a store out of volumes and labels.

    Parameters
    ----------
    source
        Folder laid out as the settings say.
    store
        Store to make.
    settings
        How volumes are taken in.
    num_workers
        Threads that read; None for as many as there are processors.
    overwrite
        Make the store again if it is there.
    progress
        Told how far it is.

    Raises
    ------
    NothingMatchedError, DataError
        If there are no volumes, or one of them or its labels cannot be used.
    StoreError
        If there is another store in its place, or it cannot be written.
    """
    begun = time.monotonic()
    volumes = find_volumes(source, settings)
    is_done = not overwrite and _is_done(store, volumes_fingerprint(volumes, settings))
    if not is_done:
        if "axes" not in settings.model_fields_set and any(is_hdf5(volume.path) for volume in volumes):
            progress.say(
                f"HDF5 files do not tell the order of their axes: it is taken for {settings.axes}, slices along z; "
                "where it is the other way round, pass --set axes=zyx"
            )
        workers = cpu_limit() if num_workers is None else num_workers
        try:
            with locked(store.with_name(f".{store.name}.lock")):
                write_volumes(volumes, settings, store, workers=workers, progress=progress)
        except OSError as error:
            raise StoreError(f"cannot be written: {error.strerror}", where=store) from error
    made = VolumeStore.open(store)
    return VolumesReport(
        store=store,
        volumes=len(made),
        labelled=int(made.is_labelled().sum()),
        classes=made.meta.labels.names,
        seconds=time.monotonic() - begun,
        was_done=is_done,
    )


def _is_done(store: Path, wanted: str) -> bool:
    if not store.exists():
        return False
    if VolumeStore.open(store).fingerprint != wanted:
        raise StoreError(
            "the store was made from other volumes or with other settings",
            where=store,
            mend="Choose another name, or --overwrite",
        )
    return True
