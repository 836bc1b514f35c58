"""Tables that say something of each image: its split, or which classes occur in it."""

from __future__ import annotations

import csv
import io
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from wsiseg.errors import ConfigError, DataError
from wsiseg.labels import IGNORE
from wsiseg.manifest import SPLITS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wsiseg.ingestion.source import SourceImage

logger = logging.getLogger(__name__)

Row = dict[str, str]

_CELLS: Final = {"1": 1, "0": 0, "": IGNORE}
# The first row after the names of the columns.
_FIRST: Final = 2
# One table may hold both the labels and the splits.
_NO_CLASSES: Final = frozenset(("image", "split", "patient_id"))


def split_by_table(images: Sequence[SourceImage], table: Path) -> list[SourceImage]:
    """Return the images with their splits and patients, from a CSV file.

    Parameters
    ----------
    images
        Images with the splits and groups of their layout.
    table
        The file. Its column ``image`` holds file names or stems. Of ``split`` and ``patient_id`` it has at least one;
        where there is no such column, or no patient in a row, what the layout says stays.

    Raises
    ------
    ConfigError
        If it is no such table, or an image is not in it.
    DataError
        If an image is in it twice.
    """
    mend = f"Name one of {', '.join(SPLITS)}, or a CSV file with columns image and split"
    columns, rows = _read(table, what="neither a split nor a readable table", mend=mend)
    if not rows or "image" not in columns or not {"split", "patient_id"} & set(columns):
        raise ConfigError("the table of splits needs the columns image and split, or image and patient_id", where=table)
    for number, row in enumerate(rows, start=_FIRST):
        if "split" in columns and row["split"] not in SPLITS:
            raise ConfigError(
                f"row {number}, column split: {row['split']!r} is none of {', '.join(SPLITS)}", where=table
            )
    numbers = _numbers(rows, table)
    found = []
    for image in images:
        own = _row_of(image, rows, numbers, table)
        if own is None:
            raise ConfigError(f"the table of splits has no row for the image {image.name}", where=table)
        found.append(replace(image, split=own.get("split", image.split), group=own.get("patient_id") or image.group))
    return found


def label_by_table(images: Sequence[SourceImage], table: Path, classes: Sequence[str] = ()) -> list[SourceImage]:
    """Return the images with what occurs in them, from a CSV file with a column ``image`` and one for each class.

    A cell is 1, 0, or empty for unknown.

    Parameters
    ----------
    images
        Images without labels; those that have no row stay so.
    table
        The file. Its column ``image`` holds file names or stems.
    classes
        Columns to take, in the order of their indices; by default all but ``image``, ``split`` and ``patient_id``.

    Raises
    ------
    ConfigError
        If it is no such table.
    DataError
        If a cell is something else, an image is in it twice, or no row belongs to an image.
    """
    columns, rows = _read(
        table, what="not a readable table", mend="Write a CSV file with a column image and one of 0 and 1 per class"
    )
    names = tuple(classes) or tuple(column for column in columns if column not in _NO_CLASSES)
    missing = next((name for name in ("image", *names) if name not in columns), None)
    if missing is not None or not names:
        raise ConfigError(
            f"the table of labels has no column {missing!r}" if missing else "the table of labels names no class",
            where=table,
            mend="It needs a column image, and one for each class, with commas or semicolons between",
        )
    for number, row in enumerate(rows, start=_FIRST):
        strange = next((name for name in names if row[name].strip() not in _CELLS), None)
        if strange is not None:
            raise DataError(
                f"row {number}, column {strange}: {row[strange]!r} is none of 0, 1 and nothing",
                where=table,
                mend="If the column is no class, name those that are with --classes",
            )
    numbers = _numbers(rows, table)
    found = []
    for image in images:
        own = _row_of(image, rows, numbers, table)
        occurs = None if own is None else {name: _CELLS[own[name].strip()] for name in names}
        found.append(replace(image, occurs=occurs))
    without = [image.path for image in found if image.occurs is None]
    if len(without) == len(found):
        raise DataError("no row has the name of an image", where=table, mend="The column image holds file names")
    if without:
        logger.warning("%s has no row for %d images, such as %s", table, len(without), without[0].name)
    return found


def _read(table: Path, *, what: str, mend: str) -> tuple[list[str], list[Row]]:
    """Return the names of the columns and the rows; cells that are cut off are empty."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            text = file.read()
        # Spreadsheets write semicolons where the comma is part of a number.
        delimiter = next((sign for sign in ",;\t" if "image" in (_reader(text, sign).fieldnames or ())), ",")
        reader = _reader(text, delimiter)
        rows = list(reader)
        return list(reader.fieldnames or ()), rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(what, where=table, mend=mend) from error


def _reader(text: str, delimiter: str) -> csv.DictReader[str]:
    return csv.DictReader(io.StringIO(text, newline=""), restval="", delimiter=delimiter)


def _numbers(rows: Sequence[Row], table: Path) -> dict[str, int]:
    """Return the number of each image's row, as people count them.

    Raises
    ------
    DataError
        If an image has two.
    """
    numbers: dict[str, int] = {}
    for number, row in enumerate(rows, start=_FIRST):
        if row["image"] in numbers:
            raise _twice(row["image"], numbers[row["image"]], number, table)
        if row["image"]:
            numbers[row["image"]] = number
    return numbers


def _row_of(image: SourceImage, rows: Sequence[Row], numbers: dict[str, int], table: Path) -> Row | None:
    """Return the row that names an image in any of the ways to name it."""
    names = (image.name, image.path.name, image.path.stem)
    found = sorted({numbers[name] for name in names if name in numbers})
    if len(found) > 1:
        raise _twice(image.path.name, found[0], found[1], table)
    return rows[found[0] - _FIRST] if found else None


def _twice(image: str, first: int, second: int, table: Path) -> DataError:
    return DataError(f"rows {first} and {second} are both of the image {image}", where=table, mend="Remove one of them")
