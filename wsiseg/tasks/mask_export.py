"""Masks of patches as palette PNGs, laid out and indexed as published data sets of patches are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wsiseg.atomic import write_bytes
from wsiseg.errors import DataError, StoreError
from wsiseg.executors import ordered_map
from wsiseg.ingestion.layouts import LAYOUTS
from wsiseg.labels import IGNORE
from wsiseg.rasters import write_palette
from wsiseg.stores.patches import patch_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.labels import LabelMap
    from wsiseg.progress import Progress
    from wsiseg.stopping import Stop
    from wsiseg.stores.patches import Patches
    from wsiseg.training.patch_batches import Known

RECORD: Final = "masks.json"
_RUN: Final = 64
# Most of the time goes into waiting for the disk.
_WRITERS: Final = 8


def export_masks(
    known: Known,
    names: Mapping[str, str],
    labels: LabelMap,
    folder: Path,
    *,
    overwrite: bool = False,
    progress: Progress,
    stop: Stop,
) -> int:
    """Write ``PM_<layer>/<patch>.png`` into a folder for each patch and layer, and return how many were not there.

    A patch has the name of its image; one of several that were cut from an image or a slide, its level-0 place
    x and y as well. Values are class indices; what has no label is 255, or what the published layout of these
    classes calls white. `RECORD` tells which layers of the store they are.

    Parameters
    ----------
    known
        The patches.
    names
        Name in the stores of each layer.
    labels
        The classes.
    folder
        Made if it is not there.
    overwrite
        Write masks again that are there, and remove those of other layers or patches that an earlier call wrote.
    progress
        Told about patches.
    stop
        Looked at after each run of patches.

    Raises
    ------
    StoreError
        If the folder holds masks of other layers.
    DataError
        If two patches have one name.
    StoppedError
        If `stop` was requested; what is written stays.
    """
    files = _file_names(known.patches, known.indices)
    is_published = any(layout.kind == "classes" and layout.labels == labels for layout in LAYOUTS.values())
    # Where these data sets say white, which is the value after their last class.
    unlabelled = len(labels) if is_published else IGNORE
    told = {
        "layers": dict(names),
        "classes": {label.name: label.index for label in labels.labels},
        "unlabelled": unlabelled,
    }
    before = _recorded(folder)
    if before not in (None, told) and not overwrite:
        raise StoreError(
            "the folder holds masks of another classifier, or of other patches",
            where=folder,
            mend="Choose another folder, or --overwrite",
        )
    if before is not None and overwrite:
        _remove_others(folder, before["layers"], {f"PM_{layer}": set(files) for layer in names})
    write_bytes(folder / RECORD, json.dumps(told, indent=1).encode() + b"\n")
    palette = np.full((IGNORE + 1, 3), 255, dtype=np.uint8)
    for label in labels.labels:
        palette[label.index] = label.colour

    def write(rows: NDArray[np.int64]) -> int:
        written = 0
        for layer, name in names.items():
            paths = {row: folder / f"PM_{layer}" / files[row] for row in rows.tolist()}
            missing = [row for row, path in paths.items() if overwrite or not path.exists()]
            masks = known.patches.read_labels(name, known.indices[missing])
            masks[masks == IGNORE] = unlabelled
            for row, mask in zip(missing, masks, strict=True):
                width, height = known.patches.extents[known.indices[row]].tolist()
                write_palette(paths[row], mask[:height, :width], palette)
            written += len(missing)
        return written

    rows = np.arange(len(known.indices))
    runs = [rows[first : first + _RUN] for first in range(0, len(rows), _RUN)]
    total = 0
    with progress.task("masks", total=len(rows), unit="patches") as advance:
        for run, written in zip(runs, ordered_map(write, runs, workers=_WRITERS, ahead=_WRITERS), strict=True):
            total += written
            advance(len(run))
            if stop.is_requested:
                raise stop.error()
    return total


def _file_names(patches: Patches, indices: NDArray[np.int64]) -> list[str]:
    names = patch_names(patches)
    files = [f"{names[index]}.png" for index in indices.tolist()]
    seen: set[str] = set()
    for name in files:
        if name in seen:
            raise DataError("two patches have one name", where=name, mend="Rename one of their images")
        seen.add(name)
    return files


def _recorded(folder: Path) -> dict[str, Any] | None:
    """Return what a folder says of its masks; None where it says nothing."""
    path = folder / RECORD
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return found


def _remove_others(folder: Path, layers: Iterable[str], kept: Mapping[str, set[str]]) -> None:
    """Remove masks of layers that were written before, but for files that are kept, by folder."""
    for layer in layers:
        place = folder / f"PM_{layer}"
        for path in place.glob("*.png"):
            if path.name not in kept.get(place.name, ()):
                path.unlink()
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
