"""A slide to work on, before it is opened."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

SPLITS: Final = ("train", "val", "test", "unlabelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideEntry:
    """One slide to work on.

    Parameters
    ----------
    path
        File, or folder of a DICOM slide.
    slide_id
        Name in outputs: the stem, with a short hash where stems collide, or the manifest's.
    mpp
        Micrometres per level-0 pixel from the manifest, beating the file's own.
    split
        One of `SPLITS`, or nothing.
    patient_id
        What must stay together in splits.
    mask_path
        Tissue mask.
    label_path
        Labels.
    image_label
        Classes present in the slide, one 0 or 1 each.
    """

    path: Path
    slide_id: str
    mpp: float | None = None
    split: str = ""
    patient_id: str | None = None
    mask_path: Path | None = None
    label_path: Path | None = None
    image_label: tuple[int, ...] | None = None


def plain(path: Path) -> SlideEntry:
    """Return the entry of a slide of which only the path is known."""
    return SlideEntry(path=path, slide_id=path.name if path.is_dir() else path.stem)


def absolute(path: Path) -> str:
    """Return what tells a path from others."""
    return os.path.abspath(path)  # noqa: PTH100 - resolving would follow links into content-named stores
