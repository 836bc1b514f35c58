"""How folders of images and label images are laid out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wsiseg.errors import DataError, NothingMatchedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceImage:
    """An image to be taken in.

    Parameters
    ----------
    name
        Its stem: the parent of its patches.
    path
        The image.
    labels
        Its label image, or None.
    split
        Its split, or nothing.
    group
        What must stay together in splits.
    """

    name: str
    path: Path
    labels: Path | None
    split: str = ""
    group: str = ""


def _images_and_labels(source: Path) -> list[SourceImage]:
    """Find ``images/*`` and ``labels/<same stem>.png``."""
    if not source.is_dir():
        raise NothingMatchedError("there is no such folder", where=source)
    folder = source / "images"
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise NothingMatchedError("the folder holds no images", where=folder, mend="Images lie in SRC/images")
    labels = {file.stem: file for file in sorted((source / "labels").glob("*.png"))}
    images: dict[str, SourceImage] = {}
    for file in files:
        if file.stem in images:
            raise DataError(f"the same name as {images[file.stem].path.name}", where=file, mend="Rename one of them")
        images[file.stem] = SourceImage(name=file.stem, path=file, labels=labels.pop(file.stem, None), group=file.stem)
    if labels:
        first = next(iter(labels.values()))
        if all(image.labels is None for image in images.values()):
            raise DataError("no label image has the name of an image", where=first, mend="Name both alike")
        logger.warning("%s: %d label images belong to no image, such as %s", source, len(labels), first.name)
    return list(images.values())


LAYOUTS: Final[dict[str, Callable[[Path], list[SourceImage]]]] = {"images": _images_and_labels}
