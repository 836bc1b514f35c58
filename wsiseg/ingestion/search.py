"""Which images and labels are taken in, and how."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from wsiseg.config import Config
from wsiseg.errors import ConfigError
from wsiseg.grid import overlap_px, parse_overlap
from wsiseg.ingestion.layouts import LAYOUTS
from wsiseg.manifest import SPLITS
from wsiseg.slides.fingerprint import fingerprint

if TYPE_CHECKING:
    from pathlib import Path

    from wsiseg.ingestion.layouts import SourceImage


class IngestSettings(Config):
    """How images become patches.

    Parameters
    ----------
    layout
        How the source is laid out; one of `LAYOUTS`.
    mpp
        Micrometres per pixel of the images, or ``unknown``.
    labels_as
        What the label images hold: ``instances`` (object ids) or ``classes`` (class indices, 255 ignored). Needed
        where there are labels.
    classes
        Names of the classes in the order of their indices, background first. For instances the
        one class of the objects. By default numbered, or ``object``.
    patch_size
        Edge of a patch in pixels; None keeps images whole, padded to the largest.
    overlap
        What neighbouring patches share: pixels, or below 1 a share of the patch size.
    split
        One of train, val, test, unlabelled for all images, or a CSV file with the columns
        ``image`` (file name or stem), ``split`` and, if wanted, ``patient_id``.
    """

    layout: str = "images"
    mpp: Literal["unknown"] | Annotated[float, Field(gt=0, le=1000)]
    labels_as: Literal["instances", "classes"] | None = None
    classes: tuple[str, ...] = ()
    patch_size: int | None = Field(default=None, ge=8, le=8192)
    overlap: Annotated[int | float, BeforeValidator(parse_overlap), Field(ge=0)] = 0.0
    split: str = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.layout not in LAYOUTS:
            raise ValueError(f"there is no layout {self.layout!r}; known: {', '.join(LAYOUTS)}")
        if self.patch_size is None and self.overlap:
            raise ValueError("overlap needs patch_size, whole images do not overlap")
        if self.patch_size is not None:
            overlap_px(self.overlap, self.patch_size)
        if self.labels_as == "instances" and len(self.classes) > 2:  # noqa: PLR2004 - background and one more
            raise ValueError("label images of instances tell no classes, so name one class at most")
        return self


def find_images(source: Path, settings: IngestSettings) -> list[SourceImage]:
    """Return the images of a source, with their splits.

    Raises
    ------
    NothingMatchedError
        If there are none.
    DataError
        If names are ambiguous, or no label fits.
    ConfigError
        If the splits or the settings do not fit the images.
    """
    images = LAYOUTS[settings.layout](source)
    if settings.labels_as is None and any(image.labels is not None for image in images):
        raise ConfigError(
            "the images have labels",
            where=source,
            mend="Say --labels-as instances (object ids) or --labels-as classes (class indices)",
        )
    if not settings.split or settings.split in SPLITS:
        return [replace(image, split=settings.split) for image in images]
    return _split_by_table(images, settings.split)


def _split_by_table(images: list[SourceImage], table: str) -> list[SourceImage]:
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:  # noqa: PTH123 - a user's text, not yet a path
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        mend = f"Name one of {', '.join(SPLITS)}, or a CSV file with columns image and split"
        raise ConfigError("neither a split nor a readable table", where=table, mend=mend) from error
    if not rows or not {"image", "split"} <= rows[0].keys():
        raise ConfigError("the table of splits needs the columns image and split", where=table)
    given: dict[str, dict[str, str | None]] = {}
    for number, row in enumerate(rows, start=2):
        if row["split"] not in SPLITS:
            raise ConfigError(
                f"row {number}, column split: {row['split']!r} is none of {', '.join(SPLITS)}", where=table
            )
        given[row["image"] or ""] = row
    found = []
    for image in images:
        one = given.get(image.name) or given.get(image.path.name)
        if one is None:
            raise ConfigError(f"the table of splits has no row for the image {image.name}", where=table)
        found.append(replace(image, split=one["split"] or "", group=one.get("patient_id") or image.name))
    return found


def source_fingerprint(images: list[SourceImage], settings: IngestSettings) -> str:
    """Return a hash of the images, their labels and the settings."""
    digest = hashlib.blake2b(json.dumps(settings.model_dump(mode="json"), sort_keys=True).encode(), digest_size=16)
    for image in images:
        parts = [image.name, image.split, image.group, fingerprint(image.path)]
        parts.append("" if image.labels is None else fingerprint(image.labels))
        digest.update("\0".join(parts).encode() + b"\n")
    return digest.hexdigest()
