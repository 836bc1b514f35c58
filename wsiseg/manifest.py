"""Which slides to work on: files, folders, globs and manifests; and which of them fall to this job."""

from __future__ import annotations

import csv
import glob
import hashlib
import io
import math
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from wsiseg.errors import ConfigError, NothingMatchedError
from wsiseg.urls import local_of, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

T = TypeVar("T")

SLIDE_SUFFIXES: Final = frozenset(
    ".svs .tif .tiff .btf .ndpi .vms .vmu .scn .mrxs .svslide .bif .czi .qptiff .isyntax".split()  # noqa: SIM905 - legible
)
IMAGE_SUFFIXES: Final = frozenset((".png", ".jpg", ".jpeg", ".bmp"))
SPLITS: Final = ("train", "val", "test", "unlabelled")

# Header → our name. The aliases are those of TRIDENT, CellViT++ and other tools.
_COLUMNS: Final = {
    "path": "path",
    "wsi": "path",
    "slide_path": "path",
    "slide": "path",
    "slide_id": "slide_id",
    "mpp": "mpp",
    "slide_mpp": "mpp",
    "spacing": "mpp",
    "label_path": "label_path",
    "mask_path": "mask_path",
    "split": "split",
    "patient_id": "patient_id",
    "image_label": "image_label",
    "exclude": "exclude",
}
_SPLIT_ALIASES: Final = {
    "training": "train",
    "labelled": "train",
    "labeled": "train",
    "valid": "val",
    "validation": "val",
    "testing": "test",
    "unlabeled": "unlabelled",
}


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
        found += [_plain(path) for path in _expand(text)]
    if manifest is not None:
        found += _read_manifest(manifest, slide_dir)
    elif slide_dir is not None:
        found += [_plain(path) for path in _expand(str(slide_dir))]
    if not found:
        what = "the manifest names no slide" if manifest is not None else "no slide was named"
        raise NothingMatchedError(what, where=manifest, mend="Name slides, folders, a glob or a --manifest")
    if manifest is None and not any(_may_exist(entry.path) for entry in found):
        raise NothingMatchedError("there is no such file", where=found[0].path)
    unique = {_absolute(entry.path): entry for entry in reversed(found)}
    return _named([unique.pop(key) for entry in found if (key := _absolute(entry.path)) in unique])


def shard(entries: Sequence[T], num_shards: int | None = None, shard_index: int | None = None) -> list[T]:
    """Return the entries that fall to this job, dealt out in turn; see `which_shard`.

    Parameters
    ----------
    entries
        All entries, in the same order in every job.
    num_shards, shard_index
        Number of jobs and which one this is, from 0.
    """
    num_shards, shard_index = which_shard(num_shards, shard_index)
    return list(entries[shard_index::num_shards])


def which_shard(num_shards: int | None = None, shard_index: int | None = None) -> tuple[int, int]:
    """Return the number of jobs and which one this is, from the place in a Slurm job array where not given.

    Raises
    ------
    ConfigError
        If only one is given or they do not fit each other.
    """
    if num_shards is None and shard_index is None:
        num_shards, shard_index = _slurm_array()
    if num_shards is None or shard_index is None:
        raise ConfigError("give both, or neither", where="--num-shards, --shard-index")
    if not 0 <= shard_index < num_shards:
        raise ConfigError(
            f"shard {shard_index} of {num_shards} does not exist",
            where="--shard-index",
            mend="Shards are counted from 0 to --num-shards - 1",
        )
    return num_shards, shard_index


def _slurm_array() -> tuple[int, int]:
    values = {}
    for name, default in (("ID", ""), ("COUNT", ""), ("MIN", "0"), ("STEP", "1")):
        text = os.environ.get(f"SLURM_ARRAY_TASK_{name}", default)
        if not text.isdigit():
            return 1, 0
        values[name] = int(text)
    count, index = values["COUNT"], (values["ID"] - values["MIN"]) // max(1, values["STEP"])
    # Arrays with gaps (--array=1,5,9) do not tell our place among the others.
    if not 0 <= index < count:
        raise ConfigError(
            f"task {values['ID']} of the Slurm array does not tell which of {count} shards it is",
            where="SLURM_ARRAY_TASK_ID",
            mend="Use an array without gaps, or --num-shards and --shard-index",
        )
    return count, index


def _plain(path: Path) -> SlideEntry:
    return SlideEntry(path=path, slide_id=path.name if path.is_dir() else path.stem)


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - resolving would follow links into content-named stores


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
    return hashlib.blake2b(_absolute(entry.path).encode(errors="surrogateescape"), digest_size=3).hexdigest()


def _read_manifest(manifest: Path, slide_dir: Path | None) -> list[SlideEntry]:
    base = slide_dir if slide_dir is not None else manifest.parent
    entries: list[SlideEntry] = []
    rows: dict[str, int] = {}
    for number, cells in _rows(manifest):
        row = _Row(manifest, number, cells, base)
        entry = row.entry()
        if entry is None:
            continue
        for kind, key in (("slide", _absolute(entry.path)), ("slide_id", "id " + (cells.get("slide_id") or ""))):
            if key != "id " and key in rows:
                raise row.error("path" if kind == "slide" else kind, f"the same {kind} as in row {rows[key]}")
            rows[key] = number
        entries.append(entry)
    return entries


def _rows(manifest: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (row number as a spreadsheet shows it, cells by our column names)."""
    try:
        text = manifest.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError("there is no such manifest", where=manifest) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the manifest is not a text file in UTF-8", where=manifest) from error
    first = text.partition("\n")[0]
    # Spreadsheets in many countries write semicolons into their "CSV".
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        columns = [_COLUMNS.get(name) for name in header]
        if "path" not in columns:
            raise ConfigError(
                f"the manifest has no column path (it has {', '.join(header) or 'none'})",
                where=manifest,
                mend="Name the column of slides path, wsi, slide_path or slide in the first row",
            )
        for column in {column for column in columns if column and columns.count(column) > 1}:
            raise ConfigError(f"several columns mean {column}", where=manifest, mend="Keep one of them")
        for cells in reader:
            number = reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(columns):
                raise ConfigError(
                    f"row {number} has {len(cells)} cells, the header {len(columns)}",
                    where=manifest,
                    mend="Put quotes around cells that hold the separator",
                )
            yield number, {name: cell.strip() for name, cell in zip(columns, cells, strict=False) if name}
    except csv.Error as error:
        raise ConfigError(f"row {reader.line_num}: {error}", where=manifest) from error


@dataclass(frozen=True, slots=True)
class _Row:
    manifest: Path
    number: int
    cells: dict[str, str]
    base: Path

    def error(self, column: str, what: str) -> ConfigError:
        return ConfigError(f"row {self.number}, column {column}: {what}", where=self.manifest)

    def entry(self) -> SlideEntry | None:
        """Return the slide, or None where the row is excluded."""
        if self._flag("exclude"):
            return None
        path = self._path("path")
        if path is None:
            raise self.error("path", "is empty")
        slide_id = self.cells.get("slide_id", "")
        if slide_id.startswith(".") or any(mark in slide_id for mark in "/\\\0"):
            raise self.error("slide_id", f"{slide_id!r} cannot be a file name")
        return replace(
            _plain(path),
            slide_id=slide_id or _plain(path).slide_id,
            mpp=self._mpp(),
            split=self._split(),
            patient_id=self.cells.get("patient_id") or None,
            mask_path=self._path("mask_path"),
            label_path=self._path("label_path"),
            image_label=self._image_label(),
        )

    def _path(self, column: str) -> Path | None:
        text = self.cells.get(column, "")
        if url_of(text) is not None:
            return Path(text)
        return self.base / Path(local_of(text)).expanduser() if text else None

    def _flag(self, column: str) -> bool:
        text = self.cells.get(column, "").lower()
        if text not in ("", "0", "1", "true", "false", "yes", "no", "x"):
            raise self.error(column, f"{text!r} is neither yes nor no")
        return text in ("1", "true", "yes", "x")

    def _mpp(self) -> float | None:
        text = self.cells.get("mpp", "")
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise self.error("mpp", f"{text!r} is not a positive number")
        return value

    def _split(self) -> str:
        text = self.cells.get("split", "").lower()
        split = _SPLIT_ALIASES.get(text, text)
        if split and split not in SPLITS:
            raise self.error("split", f"{text!r} is none of {', '.join(SPLITS)}")
        return split

    def _image_label(self) -> tuple[int, ...] | None:
        text = self.cells.get("image_label", "")
        if not text:
            return None
        parts = text.strip("[]()").replace(",", " ").replace(";", " ").split()
        if not parts or any(part not in ("0", "1") for part in parts):
            raise self.error("image_label", f"{text!r} is not a list of 0 and 1")
        return tuple(int(part) for part in parts)
