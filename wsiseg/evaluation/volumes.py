"""What a comparison of the labels of volumes has found, case by case, and as it is written to files."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from wsiseg import __version__
from wsiseg.errors import DataError
from wsiseg.evaluation.config import EvaluateConfig  # noqa: TC001 - pydantic reads the annotations
from wsiseg.metrics import SURFACE_DISTANCES, SURFACE_SCORES, surface_scores
from wsiseg.nifti import read_label_volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wsiseg.evaluation.pairs import LabelPair

SCHEMA_VERSION: Final = 1
UNITS: Final = {name: "mm" if name in SURFACE_DISTANCES else "1" for name in SURFACE_SCORES}


class Spread(BaseModel):
    """A score over cases; None where no case has it.

    Parameters
    ----------
    mean, std
        Of the cases that have the score; the standard deviation is that of these cases, not an estimate for others.
    cases, missing
        Cases that have the score, and those that have not: distances of a structure that is there on one side only.
    """

    model_config = ConfigDict(frozen=True)

    mean: float | None
    std: float | None
    cases: int
    missing: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Self:
        """Return the spread of scores of cases."""
        known = np.array([value for value in values if value is not None])
        is_known = known.size > 0
        return cls(
            mean=float(known.mean()) if is_known else None,
            std=float(known.std()) if is_known else None,
            cases=known.size,
            missing=len(values) - known.size,
        )


class CaseResult(BaseModel):
    """The scores of one case.

    Parameters
    ----------
    name
        What prediction and truth share.
    pred, truth
        Files compared.
    spacing_mm
        Of the voxels, (D, H, W).
    scores
        By name, averaged over the classes that have them.
    classes
        By class, then by name; without the background.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    pred: str
    truth: str
    spacing_mm: tuple[float, float, float]
    scores: dict[str, float | None]
    classes: dict[str, dict[str, float | None]]


class VolumesReport(BaseModel):
    """All scores of a set of volumes.

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
        Unit of each score; "1" for scores from 0 to 1. ``asd`` goes from the predicted surface to the true one.
    mean
        Scores of cases, over all cases.
    classes
        Scores by class, then by name, over all cases.
    cases
        Scores of each case.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: int = SCHEMA_VERSION
    wsiseg_version: str = __version__
    pred: str
    truth: str
    settings: EvaluateConfig
    units: dict[str, str] = UNITS
    mean: dict[str, Spread]
    classes: dict[str, dict[str, Spread]]
    cases: tuple[CaseResult, ...]

    def to_json(self) -> str:
        """Return the report as JSON text."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"

    def to_csv(self) -> str:
        """Return a table with one row for each case; empty cells where there is no score."""
        of_class = [(name, score) for name in self.classes for score in SURFACE_SCORES]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", *SURFACE_SCORES, *(f"{score}: {name}" for name, score in of_class)])
        for case in self.cases:
            cells = [case.classes[name][score] for name, score in of_class]
            writer.writerow([case.name, *case.scores.values(), *cells])
        return text.getvalue()


def read_pair(pair: LabelPair) -> tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[float, float, float]]:
    """Return predicted and true labels, (D, H, W) each, and the millimetres from voxel to voxel.

    Raises
    ------
    DataError
        When a file cannot be read or is no label volume, or the two do not lie in the same place.
    """
    (pred, pred_grid), (truth, grid) = read_label_volume(pair.pred), read_label_volume(pair.truth)
    if not grid.is_like(pred_grid):
        shapes = [" x ".join(map(str, one.shape)) for one in (pred_grid, grid)]
        how = f"has {shapes[0]} voxels, the truth {shapes[1]}" if shapes[0] != shapes[1] else "has another affine"
        raise DataError(
            f"the prediction does not lie where the truth {pair.truth} does: it {how}",
            where=pair.pred,
            mend="Predict the volume itself, or bring both to one grid, nearest neighbour",
        )
    return grid.aligned(pred, pred_grid), truth, grid.spacing_mm


def score_case(pair: LabelPair, names: Sequence[str], *, ignore_index: int) -> CaseResult:
    """Return the scores of one case.

    Parameters
    ----------
    pair
        Its files.
    names
        Names of the classes from index 0, the background, which is not scored.
    ignore_index
        Value of true voxels that do not count.

    Raises
    ------
    DataError
        When a file cannot be read, the two do not lie in the same place, or one holds a class that there is not.
    """
    pred, truth, spacing = read_pair(pair)
    is_counted = truth != ignore_index
    for path, labels in ((pair.pred, pred), (pair.truth, truth)):
        highest = int(labels[is_counted].max(initial=0))
        if highest >= len(names):
            raise DataError(
                f"holds class {highest}, but the classes are 0 to {len(names) - 1}",
                where=path,
                mend="Give --num-classes or --classes in full, or --ignore-index",
            )
    found = {
        name: surface_scores((pred == index) & is_counted, (truth == index) & is_counted, spacing=spacing)
        for index, name in enumerate(names)
        if index > 0
    }
    classes = {
        name: {score: None if math.isnan(value) else value for score, value in scores.items()}
        for name, scores in found.items()
    }
    return CaseResult(
        name=pair.name,
        pred=str(pair.pred),
        truth=str(pair.truth),
        spacing_mm=spacing,
        scores={score: Spread.of([scores[score] for scores in classes.values()]).mean for score in SURFACE_SCORES},
        classes=classes,
    )
