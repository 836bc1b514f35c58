"""How folders of images and labels are laid out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from wsiseg.errors import DataError, NothingMatchedError
from wsiseg.ingestion.named_labels import find_named
from wsiseg.ingestion.nnunet import find_nnunet
from wsiseg.ingestion.published import find_crag, find_dsb2018, find_glas, find_monuseg
from wsiseg.ingestion.source import Source, SourceImage, files_by_stem, images_by_stem
from wsiseg.labels import Label, LabelMap
from wsiseg.rasters import READABLE
from wsiseg.white import WhiteRule

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wsiseg.stores.patches import LayerKind

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A way to lay out images and labels, and what is known of all that are laid out so.

    Parameters
    ----------
    find
        Returns the images of a source, and its classes where it tells them.
    kind
        What the labels are, or None where the user says so. Where it is known, so are the classes.
    labels
        The classes, or None where each source tells its own, or the user does.
    mpp
        Micrometres per pixel, or None where the user knows; ``unknown`` where nobody does.
    white
        What is white in images with image labels, or None.
    shares_patients
        Whether some patients have images on both sides of the published split, which is to hold all the same.
    """

    find: Callable[[Path], Source]
    kind: LayerKind | None = None
    labels: LabelMap | None = None
    mpp: float | Literal["unknown"] | None = None
    white: WhiteRule | None = None
    shares_patients: bool = False


def _images_and_labels(source: Path) -> Source:
    """Find ``images/*`` and ``labels/<same stem>.png``."""
    if not source.is_dir():
        raise NothingMatchedError("there is no such folder", where=source)
    images = images_by_stem(source / "images")
    if not images:
        raise NothingMatchedError(
            "the folder holds no images", where=source / "images", mend="Images lie in SRC/images"
        )
    labels = files_by_stem(source / "labels", READABLE)
    found = [
        SourceImage(name=stem, path=file, labels=labels.pop(stem, None), group=stem) for stem, file in images.items()
    ]
    if labels:
        first = next(iter(labels.values()))
        if all(image.labels is None for image in found):
            raise DataError("no label image has the name of an image", where=first, mend="Name both alike")
        logger.warning("%s: %d label images belong to no image, such as %s", source, len(labels), first.name)
    return Source(images=found)


def _named(*classes: tuple[str, tuple[int, int, int]], mpp: float, white: WhiteRule | None) -> Layout:
    """Return a layout with labels in file names; the value after the last class is white in its masks."""
    labels = LabelMap(
        labels=tuple(Label(index=index, name=name, colour=colour) for index, (name, colour) in enumerate(classes))
    )

    def find(source: Path) -> Source:
        return Source(images=find_named(source, labels.names), excluded=len(labels))

    return Layout(find=find, kind="classes", labels=labels, mpp=mpp, white=white)


_NUCLEI: Final = LabelMap.from_names(("background", "nucleus"))
_GLANDS: Final = LabelMap.from_names(("background", "gland"))

LAYOUTS: Final = {
    "images": Layout(find=_images_and_labels, white=WhiteRule()),
    "monuseg": Layout(find=find_monuseg, kind="instances", labels=_NUCLEI, mpp=0.25),
    "glas": Layout(find=find_glas, kind="instances", labels=_GLANDS, mpp=0.62, shares_patients=True),
    "crag": Layout(find=find_crag, kind="instances", labels=_GLANDS, mpp=0.5),
    # Its images are of many microscopes, and of none is the scale told.
    "dsb2018": Layout(find=find_dsb2018, kind="instances", labels=_NUCLEI, mpp="unknown"),
    "nnunet": Layout(find=find_nnunet, kind="classes"),
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
