"""What is known of an image before its pixels are read."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wsiseg.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from wsiseg.labels import LabelMap

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceImage:
    """An image to be taken in.

    Parameters
    ----------
    name
        Distinct in its source: the parent of its patches.
    path
        The image.
    labels
        Its label image, or what stands for one (see `read_label_file`), or None.
    occurs
        For each class, by name, whether it occurs in the image: 1, 0, or 255 for unknown. None
        where nothing is known.
    split
        Its split, or nothing.
    group
        What must stay together in splits.
    """

    name: str
    path: Path
    labels: Path | None = None
    occurs: Mapping[str, int] | None = None
    split: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Images, and what their labels mean where the source says so.

    Parameters
    ----------
    images
        The images, each of a name of its own.
    labels
        The classes, or None where the layout or the user names them.
    excluded
        Value in label images of what is no class and is neither learnt nor scored, or None.
    told_by
        File that says so, or None where the layout does.
    """

    images: Sequence[SourceImage]
    labels: LabelMap | None = None
    excluded: int | None = None
    told_by: Path | None = None


def images_by_stem(folder: Path) -> dict[str, Path]:
    """Return the images right in a folder by their stems, sorted; none if there is no folder.

    Raises
    ------
    DataError
        If two have the same stem.
    """
    return files_by_stem(folder, IMAGE_SUFFIXES)


def files_by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Return the files right in a folder whose names end so, by their stems, sorted; none if there is no folder.

    Raises
    ------
    DataError
        If two have the same stem.
    """
    files: dict[str, Path] = {}
    for file in sorted(folder.glob("*")):
        if file.suffix.lower() not in suffixes or file.name.startswith("."):
            continue
        if file.stem in files:
            raise DataError(f"the same name as {files[file.stem].name}", where=file, mend="Rename one of them")
        files[file.stem] = file
    return files


def pair(images: Mapping[str, Path], labels: Mapping[str, Path]) -> dict[str, Path]:
    """Return the labels of each image of a part; none at all where the part has no labels.

    An image that alone has none is rather a file that was lost than an image without labels.

    Raises
    ------
    DataError
        If some images have labels and others have not.
    """
    if not labels:
        return {}
    bare = next((path for name, path in images.items() if name not in labels), None)
    if bare is not None:
        raise DataError(
            "there are no labels of this name, but others beside it have theirs",
            where=bare,
            mend="Add them, or move images without labels into a folder of their own",
        )
    alone = [path for name, path in labels.items() if name not in images]
    if alone:
        logger.warning("%s: %d labels belong to no image, such as %s", alone[0].parent, len(alone), alone[0].name)
    return {name: labels[name] for name in images}


def check_distinct(images: Sequence[SourceImage]) -> None:
    """Raise unless each image has a name of its own.

    Raises
    ------
    DataError
        If two have the same.
    """
    seen: dict[str, Path] = {}
    for image in images:
        if image.name in seen:
            raise DataError(f"the same name as {seen[image.name]}", where=image.path, mend="Rename one of them")
        seen[image.name] = image.path
