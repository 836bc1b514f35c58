"""Which images and labels are taken in, and how."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from wsiseg.config import Config
from wsiseg.errors import ConfigError
from wsiseg.grid import overlap_px, parse_overlap
from wsiseg.ingestion.layouts import LAYOUTS
from wsiseg.ingestion.source import check_bare
from wsiseg.ingestion.tables import label_by_table, split_by_table
from wsiseg.labels import ClassNames  # noqa: TC001 - pydantic reads the annotations
from wsiseg.manifest import SPLITS
from wsiseg.slides.fingerprint import fingerprint
from wsiseg.white import WhiteSetting  # noqa: TC001 - pydantic reads the annotations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsiseg.ingestion.source import Source, SourceImage
    from wsiseg.stores.patches import LayerKind

logger = logging.getLogger(__name__)


class IngestSettings(Config):
    """How images become patches.

    Parameters
    ----------
    layout
        How the source is laid out; one of `LAYOUTS`.
    mpp
        Micrometres per pixel of the images, or ``unknown``. Layouts of known data sets know theirs.
    labels_as
        What the label images hold: ``instances`` (object ids) or ``classes`` (class indices, 255 ignored). Needed
        where there are label images, unless the layout knows.
    labels
        CSV file that says which classes occur in each image: a column ``image`` (file name or stem) and one
        for each class, holding 1, 0 or nothing where unknown.
    classes
        Names of the classes in the order of their indices, background first. For instances the
        one class of the objects. By default numbered, or ``object``. With `labels` the columns that
        are classes; by default all but ``image``, ``split`` and ``patient_id``.
    white
        What of images with image labels is white and belongs to no class, or None where nothing is.
        By default the layout decides.
    patch_size
        Edge of a patch in pixels; None keeps images whole, padded to the largest.
    overlap
        What neighbouring patches share: pixels, or below 1 a share of the patch size.
    split
        One of train, val, test, unlabelled for all images, or a CSV file with the columns ``image`` (file name or
        stem) and ``split``, ``patient_id``, or both. Images of a patient stay together in trainings.
    """

    layout: str = "images"
    mpp: Literal["unknown"] | Annotated[float, Field(gt=0, le=1000)]
    labels_as: Literal["instances", "classes"] | None = None
    labels: Path | None = None
    classes: ClassNames = ()
    white: WhiteSetting = None
    patch_size: int | None = Field(default=None, ge=8, le=8192)
    overlap: Annotated[int | float, BeforeValidator(parse_overlap), Field(ge=0)] = 0.0
    split: str = ""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: dict[str, Any]) -> dict[str, Any]:
        layout = LAYOUTS.get(str(values.get("layout", "images")))
        if layout is None:
            return values
        known = {"white": layout.white} if layout.mpp is None else {"white": layout.white, "mpp": layout.mpp}
        return known | values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.layout not in LAYOUTS:
            raise ValueError(f"there is no layout {self.layout!r}; known: {', '.join(LAYOUTS)}, volumes")
        known = LAYOUTS[self.layout].kind
        if known is not None and (self.classes or self.labels or self.labels_as not in (None, known)):
            raise ValueError(f"what the labels of {self.layout} are is known; leave out classes, labels and labels_as")
        if self.patch_size is None and self.overlap:
            raise ValueError("overlap needs patch_size, whole images do not overlap")
        if self.patch_size is not None:
            overlap_px(self.overlap, self.patch_size)
        # Background and one more.
        if self.labels_as == "instances" and self.labels is None and len(self.classes) > 2:  # noqa: PLR2004
            raise ValueError("label images of instances tell no classes, so name one class at most")
        return self

    @property
    def kind(self) -> LayerKind | None:
        """Return what label images hold, or None where there are none."""
        return LAYOUTS[self.layout].kind or self.labels_as


def find_images(source: Path, settings: IngestSettings) -> Source:
    """Return the images of a source, with their splits.

    Raises
    ------
    NothingMatchedError
        If there are none.
    DataError
        If names are ambiguous, no label fits, or some are missing.
    ConfigError
        If the splits or the settings do not fit the images.
    """
    layout = LAYOUTS[settings.layout]
    found = layout.find(source)
    images = found.images
    if settings.kind is None and any(image.labels is not None for image in images):
        raise ConfigError(
            "the images have labels",
            where=source,
            mend="Say --labels-as instances (object ids) or --labels-as classes (class indices)",
        )
    if settings.labels is not None:
        images = label_by_table(images, settings.labels, settings.classes)
    bare = [image.path.name for image in images if image.occurs and not any(image.occurs.values())]
    if bare:
        logger.warning("%s: in %d images no class occurs, such as %s", source, len(bare), bare[0])
    if settings.split in SPLITS:
        images = [replace(image, split=settings.split) for image in images]
    elif settings.split:
        images = split_by_table(images, Path(settings.split))
    elif layout.shares_patients:
        images = _parted(images, source)
    check_bare(images)
    _warn_of_shared(images, source)
    return replace(found, images=images, labels=found.labels or layout.labels)


def _parted(images: Sequence[SourceImage], source: Path) -> list[SourceImage]:
    """Return images of which those on each side of a split count as a patient's own, so that the split holds."""
    splits: dict[str, set[str]] = defaultdict(set)
    for image in images:
        splits[image.group].add(image.split)
    both = {group for group, own in splits.items() if len(own) > 1}
    if both:
        logger.warning(
            "%s: %d of %d patients have images on both sides of the published split, which is kept: scores flatter",
            source,
            len(both),
            len(splits),
        )
    return [
        replace(image, group=f"{image.group} ({image.split})") if image.group in both else image for image in images
    ]


def _warn_of_shared(images: Sequence[SourceImage], source: Path) -> None:
    """Tell of patients whose images are trained on as well as judged by."""
    splits: dict[str, set[str]] = defaultdict(set)
    for image in images:
        splits[image.group].add(image.split if image.split in ("val", "test") else "train")
    shared = [group for group, own in splits.items() if len(own) > 1]
    if shared:
        logger.warning(
            "%s: %d patients are in several of train, val and test, such as %s", source, len(shared), shared[0]
        )


def source_fingerprint(source: Source, settings: IngestSettings) -> str:
    """Return a hash of the images, their labels, what these mean, and the settings."""
    digest = hashlib.blake2b(json.dumps(settings.model_dump(mode="json"), sort_keys=True).encode(), digest_size=16)
    if source.told_by is not None:
        digest.update(fingerprint(source.told_by).encode())
    for image in source.images:
        parts = [image.name, image.split, image.group, fingerprint(image.path)]
        parts.append("" if image.labels is None else fingerprint(image.labels))
        parts.append("" if image.occurs is None else json.dumps(image.occurs))
        digest.update("\0".join(parts).encode() + b"\n")
    return digest.hexdigest()
