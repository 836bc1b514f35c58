"""Finding slides by file, folder, glob, URL and manifest."""

from __future__ import annotations

import glob
import hashlib
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wsiseg.errors import NothingMatchedError
from wsiseg.manifest.entry import absolute, plain
from wsiseg.manifest.table import read_manifest
from wsiseg.urls import local_of, url_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsiseg.manifest.entry import SlideEntry

SLIDE_SUFFIXES: Final = frozenset(
    ".svs .tif .tiff .btf .ndpi .vms .vmu .scn .mrxs .svslide .bif .czi .qptiff .isyntax".split()  # noqa: SIM905 - legible
)
IMAGE_SUFFIXES: Final = frozenset((".png", ".jpg", ".jpeg", ".bmp"))


def find_slides(
    inputs: Sequence[str], *, slide_dir: Path | None = None, manifest: Path | None = None
) -> list[SlideEntry]:
    """Return the slides that are meant, each once, in the order given and sorted within folders.

    Parameters
    ----------
    inputs
        Files, URLs, folders (searched in depth; plain images count where there are no slides;
        .dcm files of one series are one slide) and globs. A file that is missing beside others that are not
        is returned, so that it fails alone.
    slide_dir
        A further folder; with a manifest, the place its relative paths start from.
    manifest
        CSV file; relative paths start from its folder unless `slide_dir` is given.

    Raises
    ------
    NothingMatchedError
        If nothing is found, or a folder or glob holds no slide.
    ConfigError
        If the manifest is wrong.
    """
    found: list[SlideEntry] = []
    for text in inputs:
        found += [plain(path) for path in _expand(text)]
    if manifest is not None:
        found += read_manifest(manifest, slide_dir)
    elif slide_dir is not None:
        found += [plain(path) for path in _expand(str(slide_dir))]
    if not found:
        what = "the manifest names no slide" if manifest is not None else "no slide was named"
        raise NothingMatchedError(what, where=manifest, mend="Name slides, folders, a glob or a --manifest")
    if manifest is None and not any(_may_exist(entry.path) for entry in found):
        raise NothingMatchedError("there is no such file", where=found[0].path)
    unique = {absolute(entry.path): entry for entry in reversed(found)}
    return _named([unique.pop(key) for entry in found if (key := absolute(entry.path)) in unique])


def _may_exist(path: Path) -> bool:
    return url_of(path) is not None or path.exists()


def _expand(text: str) -> list[Path]:
    path = Path(local_of(text))
    if url_of(text) is not None:
        return [path]
    if path.is_dir():
        return _slides_within(path)
    if path.exists() or not glob.has_magic(text):
        return [path]
    matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207 - any root
    slides = [slide for match in matches for slide in (_slides_within(match) if match.is_dir() else [match])]
    if not slides:
        raise NothingMatchedError("the pattern matches no slide", where=text)
    return slides


def _slides_within(folder: Path) -> list[Path]:
    slides: list[Path] = []
    images: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not name.endswith(".zarr"))
        paths = [Path(place, file) for file in files if not file.startswith(".")]
        slides += [path for path in paths if path.suffix.lower() in SLIDE_SUFFIXES]
        slides += _dicom_slides([path for path in paths if path.suffix.lower() == ".dcm"])
        images += [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
    if not slides and not images:
        raise NothingMatchedError("the folder holds no slide", where=folder)
    return sorted(slides or images)


def _dicom_slides(files: list[Path]) -> list[Path]:
    """Return one path for each slide among the DICOM files of a folder: the folder where they are all of one."""
    series: dict[bytes, list[Path]] = {}
    for file in sorted(files):
        series.setdefault(_series_of(file), []).append(file)
    if len(series) == 1 and len(files) > 1:
        return [files[0].parent]
    # Any file of a series opens it; the largest holds level 0.
    return [max(parts, key=lambda part: part.stat().st_size) for parts in series.values()]


def _series_of(file: Path) -> bytes:
    """Return the DICOM SeriesInstanceUID, or the file's name where there is none in its head."""
    try:
        with file.open("rb") as opened:
            head = opened.read(1 << 16)
    except OSError:
        head = b""
    _, found, rest = head.partition(b"\x20\x00\x0e\x00UI")
    return rest[2 : 2 + int.from_bytes(rest[:2], "little")] if found else os.fsencode(file.name)


def _named(entries: list[SlideEntry]) -> list[SlideEntry]:
    # Casefolded, since some file systems take A.zarr and a.zarr for the same.
    count = Counter(entry.slide_id.casefold() for entry in entries)
    return [
        entry if count[entry.slide_id.casefold()] == 1 else replace(entry, slide_id=f"{entry.slide_id}-{_hash(entry)}")
        for entry in entries
    ]


def _hash(entry: SlideEntry) -> str:
    return hashlib.blake2b(absolute(entry.path).encode(errors="surrogateescape"), digest_size=3).hexdigest()
