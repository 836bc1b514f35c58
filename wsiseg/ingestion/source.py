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
    is_bare
        Whether it alone has no labels, where others beside it have theirs.
    """

    name: str
    path: Path
    labels: Path | None = None
    occurs: Mapping[str, int] | None = None
    split: str = ""
    group: str = ""
    is_bare: bool = False


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


def pair(images: Mapping[str, Path], labels: Mapping[str, Path]) -> tuple[dict[str, Path], set[str]]:
    """Return the labels of images of a part, and the names of images that have none where the part has some.

    Warns of labels that belong to no image.
    """
    alone = [path for name, path in labels.items() if name not in images]
    if alone:
        logger.warning("%s: %d labels belong to no image, such as %s", alone[0].parent, len(alone), alone[0].name)
    own = {name: labels[name] for name in images if name in labels}
    return own, images.keys() - own if labels else set()


def check_bare(images: Sequence[SourceImage]) -> None:
    """Raise unless each image that alone has no labels is marked ``unlabelled``: their file may have been lost.

    Raises
    ------
    DataError
        If one is not.
    """
    bare = [image for image in images if image.is_bare and image.split != "unlabelled"]
    if bare:
        others = f", and {len(bare) - 1} more are so" if len(bare) > 1 else ""
        raise DataError(
            f"there are no labels of this name, but others beside it have theirs{others}",
            where=bare[0].path,
            mend="Add them, or mark images without as unlabelled by --split TABLE.csv (columns image and split)",
        )


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
