"""How folders of images and labels are laid out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from wsiseg.errors import DataError, NothingMatchedError
from wsiseg.ingestion.named_labels import find_named
from wsiseg.ingestion.source import SourceImage, images_by_stem
from wsiseg.labels import Label, LabelMap
from wsiseg.white import WhiteRule

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A way to lay out images and labels, and what is known of all that are laid out so.

    Parameters
    ----------
    find
        Returns the images of a source.
    labels
        The classes, or None where the user names them.
    excluded
        Value in label images of what is no class and is neither learnt nor scored, or None.
    mpp
        Micrometres per pixel, or None where the user knows.
    white
        What is white in images with image labels, or None.
    """

    find: Callable[[Path], list[SourceImage]]
    labels: LabelMap | None = None
    excluded: int | None = None
    mpp: float | None = None
    white: WhiteRule | None = None


def _images_and_labels(source: Path) -> list[SourceImage]:
    """Find ``images/*`` and ``labels/<same stem>.png``."""
    if not source.is_dir():
        raise NothingMatchedError("there is no such folder", where=source)
    images = images_by_stem(source / "images")
    if not images:
        raise NothingMatchedError(
            "the folder holds no images", where=source / "images", mend="Images lie in SRC/images"
        )
    labels = {file.stem: file for file in sorted((source / "labels").glob("*.png"))}
    found = [
        SourceImage(name=stem, path=file, labels=labels.pop(stem, None), group=stem) for stem, file in images.items()
    ]
    if labels:
        first = next(iter(labels.values()))
        if all(image.labels is None for image in found):
            raise DataError("no label image has the name of an image", where=first, mend="Name both alike")
        logger.warning("%s: %d label images belong to no image, such as %s", source, len(labels), first.name)
    return found


def _named(*classes: tuple[str, tuple[int, int, int]], mpp: float, white: WhiteRule | None) -> Layout:
    """Return a layout with labels in file names; the value after the last class is white in its masks."""
    labels = tuple(Label(index=index, name=name, colour=colour) for index, (name, colour) in enumerate(classes))
    names = tuple(label.name for label in labels)
    return Layout(
        find=partial(find_named, names=names),
        labels=LabelMap(labels=labels),
        excluded=len(labels),
        mpp=mpp,
        white=white,
    )


LAYOUTS: Final = {
    "images": Layout(find=_images_and_labels, white=WhiteRule()),
    "luad-histoseg": _named(
        ("tumour epithelium", (205, 51, 51)),
        ("necrosis", (0, 255, 0)),
        ("lymphocytes", (65, 105, 225)),
        ("tumour-associated stroma", (255, 165, 0)),
        mpp=1.0,
        white=WhiteRule(),
    ),
    "bcss-wsss": _named(
        ("tumour", (255, 0, 0)),
        ("stroma", (0, 255, 0)),
        ("lymphocytic infiltrate", (0, 0, 255)),
        ("necrosis", (153, 0, 255)),
        mpp=0.25,
        # In breast, white is fat as often as glass.
        white=None,
    ),
    "wsss4luad": _named(
        ("tumour", (0, 64, 128)),
        ("stroma", (64, 128, 0)),
        ("normal", (243, 152, 0)),
        mpp=1.0,
        white=WhiteRule(),
    ),
}
