"""The job behind ``wsiseg ingest``: a patch store out of folders of images."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsiseg.errors import StoreError
from wsiseg.ingestion import find_images, source_fingerprint, write_images
from wsiseg.limits import cpu_limit
from wsiseg.lock import locked
from wsiseg.progress import SILENT
from wsiseg.stores.patch_meta import PatchMeta
from wsiseg.stores.patch_store import PatchStore

if TYPE_CHECKING:
    from pathlib import Path

    from wsiseg.ingestion import IngestSettings
    from wsiseg.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestReport:
    """What was made.

    Parameters
    ----------
    store
        The store.
    images, labelled, classified, patches
        Numbers of images, of those with label images, of those with image labels, and of patches.
    seconds
        Time taken.
    was_done
        Whether the store was there already.
    """

    store: Path
    images: int
    labelled: int
    classified: int
    patches: int
    seconds: float
    was_done: bool

    def __str__(self) -> str:
        how = "already done" if self.was_done else f"{self.seconds:.1f} s"
        labels = f"{self.labelled:,} labelled"
        if self.classified:
            labels += f", {self.classified:,} with image labels"
        return f"{self.images:,} images ({labels}), {self.patches:,} patches in {self.store}, {how}"


def ingest(
    source: Path,
    store: Path,
    settings: IngestSettings,
    *,
    num_workers: int | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> IngestReport:
    """Make a patch store out of images and labels.

    Parameters
    ----------
    source
        Folder laid out as the settings say.
    store
        Store to make.
    settings
        How images become patches.
    num_workers
        Threads that read; None for as many as there are processors.
    overwrite
        Make the store again if it is there.
    progress
        Told how far it is.

    Raises
    ------
    StoreError
        If there is another store in its place, or it cannot be written.
    """
    begun = time.monotonic()
    found = find_images(source, settings)
    is_done = not overwrite and _is_done(store, source_fingerprint(found, settings))
    if not is_done:
        workers = cpu_limit() if num_workers is None else num_workers
        try:
            with locked(store.with_name(f".{store.name}.lock")):
                write_images(found, settings, store, workers=workers, progress=progress)
        except OSError as error:
            raise StoreError(f"cannot be written: {error.strerror}", where=store) from error
    return IngestReport(
        store=store,
        images=len(found.images),
        labelled=sum(image.labels is not None for image in found.images),
        classified=sum(image.occurs is not None for image in found.images),
        patches=PatchStore.count(store),
        seconds=time.monotonic() - begun,
        was_done=is_done,
    )


def _is_done(store: Path, wanted: str) -> bool:
    if not store.exists():
        return False
    if PatchMeta.read(store).fingerprint != wanted:
        raise StoreError(
            "the store was made from other images or with other settings",
            where=store,
            mend="Choose another name, or --overwrite",
        )
    return True
