"""Folders of patches that carry their labels in their names.

Such a folder has the parts ``train`` (or ``training``), ``val`` and ``test``, each with its images
right inside or in ``img``. Images to train on end in what they show, such as ``[1 0 0 1]``; where a
part has a folder ``mask``, each of its images has a label image of the same stem there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from wsiseg.errors import DataError, NothingMatchedError
from wsiseg.ingestion.source import SourceImage, images_by_stem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PARTS: Final = {"train": ("train", "training"), "val": ("val",), "test": ("test",)}
# A 2 or a minus is no separator: what else the label says must not be passed over.
_DIGITS: Final = re.compile(r"[01 ,;_]*")
# A patient's TCGA barcode, or whatever stands before two coordinates.
_ORIGIN: Final = re.compile(r"(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})|(.+?)[-_]\d+[-_]\d+(?:[-+_ ]*\[.*)?$")


def label_in_name(path: Path, count: int) -> tuple[int, ...]:
    """Return the label that a file's name carries between its last ``[`` and the next ``]``.

    Digits may stand close together or apart: ``[1101]``, ``[1 1 0 1]`` and ``[1, 1, 0, 1]`` are the same.

    Parameters
    ----------
    path
        The file.
    count
        Number of classes.

    Returns
    -------
    tuple of int
        1 where a class occurs, 0 where it does not.

    Raises
    ------
    DataError
        If the name carries no label, or not one digit for each class.
    """
    _, bracket, rest = path.name.rpartition("[")
    text, closing, _ = rest.partition("]")
    digits = tuple(int(sign) for sign in text if sign in "01")
    if not bracket or not closing or len(digits) != count or not _DIGITS.fullmatch(text):
        example = " ".join("1" * count)
        raise DataError(
            f"the name carries no label of {count} classes",
            where=path,
            mend=f"A patch in which all classes occur is called NAME[{example}].png",
        )
    return digits


def patient_in_name(stem: str) -> str | None:
    """Return the patient or slide that a patch's name begins with, or None where it names none.

    >>> patient_in_name("1031280-2300-27920-[1 0 0 1]")
    '1031280'
    >>> patient_in_name("TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500+0[1101]")
    'TCGA-A1-A0SK'
    """
    found = _ORIGIN.match(stem)
    return None if found is None else found[1] or found[2]


def find_named(source: Path, names: Sequence[str]) -> list[SourceImage]:
    """Return the patches of all parts; patients of the same name stay together.

    Parameters
    ----------
    source
        Folder with the parts.
    names
        Names of the classes in the order of the digits.

    Raises
    ------
    NothingMatchedError
        If there are no images.
    DataError
        If a name carries no label, or images and label images do not belong together one by one.
    """
    if not source.is_dir():
        raise NothingMatchedError("there is no such folder", where=source)
    images = [image for split in PARTS for image in _part(source, split, names)]
    if not images:
        raise NothingMatchedError(
            "the folder holds no images", where=source, mend="Images lie in SRC/train, SRC/val/img and SRC/test/img"
        )
    return images


def _part(source: Path, split: str, names: Sequence[str]) -> Iterator[SourceImage]:
    for folder in (source / name for name in PARTS[split]):
        images = images_by_stem(folder / "img") or images_by_stem(folder)
        if images:
            break
    else:
        return
    masks = _masks(folder / "mask", images)
    for stem, path in images.items():
        name = f"{split}/{stem}"
        # Labels of the other parts are in their masks, if anywhere.
        occurs = dict(zip(names, label_in_name(path, len(names)), strict=True)) if split == "train" else None
        yield SourceImage(
            name=name,
            path=path,
            labels=masks.get(stem),
            occurs=occurs,
            split=split,
            group=patient_in_name(stem) or name,
        )


def _masks(folder: Path, images: dict[str, Path]) -> dict[str, Path]:
    """Return the label image of each image; none at all where there is no such folder."""
    if not folder.is_dir():
        return {}
    masks = images_by_stem(folder)
    for alone in sorted(images.keys() ^ masks.keys()):
        if alone in masks:
            raise DataError("no image has the name of this label image", where=masks[alone])
        raise DataError("there is no label image of this name", where=images[alone], mend=f"Put it into {folder}")
    return masks
