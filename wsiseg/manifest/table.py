"""Manifests: CSV files that name slides and what is known of them."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wsiseg.errors import ConfigError
from wsiseg.manifest.entry import SPLITS, absolute, plain
from wsiseg.urls import local_of, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsiseg.manifest.entry import SlideEntry

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


def read_manifest(manifest: Path, slide_dir: Path | None) -> list[SlideEntry]:
    """Return the slides of a manifest; relative paths start from its folder unless `slide_dir` is given.

    Raises
    ------
    ConfigError
        If the manifest is wrong, with row and column.
    """
    base = slide_dir if slide_dir is not None else manifest.parent
    entries: list[SlideEntry] = []
    rows: dict[str, int] = {}
    for number, cells in _rows(manifest):
        row = _Row(manifest, number, cells, base)
        entry = row.entry()
        if entry is None:
            continue
        for kind, key in (("slide", absolute(entry.path)), ("slide_id", "id " + (cells.get("slide_id") or ""))):
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
            plain(path),
            slide_id=slide_id or plain(path).slide_id,
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
