"""What is known of an image before its pixels are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wsiseg.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


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
        Its label image, or None.
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


def images_by_stem(folder: Path) -> dict[str, Path]:
    """Return the images right in a folder by their stems, sorted; none if there is no folder.

    Raises
    ------
    DataError
        If two have the same stem.
    """
    images: dict[str, Path] = {}
    for file in sorted(folder.glob("*")):
        if file.suffix.lower() not in IMAGE_SUFFIXES or file.name.startswith("."):
            continue
        if file.stem in images:
            raise DataError(f"the same name as {images[file.stem].name}", where=file, mend="Rename one of them")
        images[file.stem] = file
    return images
