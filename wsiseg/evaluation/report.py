"""What a comparison of label images has found, as it is written to files."""

from __future__ import annotations

import csv
import io
import json
from typing import Final

from pydantic import BaseModel, ConfigDict

from wsiseg import __version__
from wsiseg.evaluation.config import EvaluateConfig  # noqa: TC001 - pydantic reads the annotations

SCHEMA_VERSION: Final = 1


class Estimate(BaseModel):
    """A score with its 95 % interval over images; None where there is no value.

    Parameters
    ----------
    value, low, high
        The score and the ends of its interval. One image alone has no interval.
    """

    model_config = ConfigDict(frozen=True)

    value: float | None
    low: float | None
    high: float | None


class ImageResult(BaseModel):
    """The scores of one image.

    Parameters
    ----------
    name
        Stem that prediction and truth share.
    pred, truth
        Files compared.
    pred_objects, truth_objects
        Numbers of objects; None for class maps.
    scores
        By name.
    classes
        By class, then by name; empty for instances.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    pred: str
    truth: str
    pred_objects: int | None
    truth_objects: int | None
    scores: dict[str, float | None]
    classes: dict[str, dict[str, float | None]]


class EvaluateReport(BaseModel):
    """All scores of a set of images.

    Parameters
    ----------
    schema_version
        Of this layout.
    wsiseg_version
        Of the package that computed it.
    pred, truth
        What was compared.
    settings
        How it was compared.
    units
        Unit of each score; "1" for scores from 0 to 1.
    mean
        Scores averaged over the images that have them.
    pooled
        Scores of all images taken as one; without HD95, which does not pool.
    classes
        Pooled scores by class, then by name; empty for instances.
    images
        Scores of each image.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: int = SCHEMA_VERSION
    wsiseg_version: str = __version__
    pred: str
    truth: str
    settings: EvaluateConfig
    units: dict[str, str]
    mean: dict[str, Estimate]
    pooled: dict[str, Estimate]
    classes: dict[str, dict[str, float | None]]
    images: tuple[ImageResult, ...]

    def to_json(self) -> str:
        """Return the report as JSON text."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"

    def to_csv(self) -> str:
        """Return a table with one row for each image; empty cells where there is no score."""
        classes = list(self.images[0].classes)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        counts = ("pred_objects", "truth_objects") if self.settings.task == "instance" else ()
        of_class = [(name, score) for name in classes for score in self.images[0].classes[name]]
        header = ["name", *counts, *self.images[0].scores, *(f"{score}: {name}" for name, score in of_class)]
        writer.writerow(header)
        for image in self.images:
            cells = [getattr(image, count) for count in counts]
            writer.writerow(
                [image.name, *cells, *image.scores.values(), *(image.classes[name][score] for name, score in of_class)]
            )
        return text.getvalue()
