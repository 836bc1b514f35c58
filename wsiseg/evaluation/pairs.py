"""Find which predicted label image belongs to which true one."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wsiseg.errors import DataError, NothingMatchedError
from wsiseg.nifti import NIFTI_SUFFIXES
from wsiseg.rasters import READABLE, LabelImage, read_labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

# What `wsiseg predict` calls the label image in a slide's folder, and the labels in a volume's.
PREDICTED_LABELS: Final = "labels.png"
PREDICTED_VOLUME: Final = "labels.nii.gz"
# What it writes beside it; `canvas.mpp` in it is the resolution of the label image.
SUMMARY: Final = "summary.json"

_NAMES_SHOWN: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFiles:
    """Files that hold labels.

    Attributes
    ----------
    suffixes
        What their names end in, longer ones first.
    predicted
        Name of such a file in the folder that `wsiseg predict` makes.
    """

    suffixes: tuple[str, ...]
    predicted: str

    def stem(self, path: Path) -> str | None:
        """Return a file's name without its suffix, None for another kind of file."""
        ends = (suffix for suffix in self.suffixes if path.name.lower().endswith(suffix))
        return next((path.name[: -len(suffix)] for suffix in ends), None)


LABEL_IMAGES: Final = LabelFiles(suffixes=READABLE, predicted=PREDICTED_LABELS)
LABEL_VOLUMES: Final = LabelFiles(suffixes=NIFTI_SUFFIXES, predicted=PREDICTED_VOLUME)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPair:
    """Two label images, or labels of volumes, of the same place.

    Attributes
    ----------
    name
        The stem they share.
    pred, truth
        Their files.
    """

    name: str
    pred: Path
    truth: Path

    @property
    def mpp(self) -> float | None:
        """Return the µm per pixel that `wsiseg predict` noted beside its label image, or None.

        Raises
        ------
        DataError
            When what it noted is damaged.
        """
        summary = self.pred.parent / SUMMARY
        if self.pred.name != PREDICTED_LABELS or not summary.is_file():
            return None
        try:
            mpp = json.loads(summary.read_text(encoding="utf-8"))["canvas"]["mpp"]
            mpp = None if mpp is None else float(mpp)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError("the summary is damaged", where=summary, mend="Predict again, or pass --mpp") from error
        if mpp is not None and not (math.isfinite(mpp) and mpp > 0):
            raise DataError(f"a pixel size cannot be {mpp:g} µm", where=summary, mend="Predict again, or pass --mpp")
        return mpp

    def read(self) -> tuple[LabelImage, LabelImage]:
        """Return predicted and true labels of an image, (H, W) each.

        Raises
        ------
        DataError
            When a file cannot be read or the sizes differ.
        """
        pred, truth = read_labels(self.pred), read_labels(self.truth)
        if pred.shape != truth.shape:
            sizes = [f"{labels.shape[1]} x {labels.shape[0]}" for labels in (pred, truth)]
            raise DataError(
                f"the prediction is {sizes[0]} pixels, but the truth {self.truth} is {sizes[1]}",
                where=self.pred,
                mend="Predict at the resolution of the truth (--mpp), or bring both to one size, nearest neighbour",
            )
        return pred, truth


def find_pairs(pred: Path, truth: Path, files: LabelFiles = LABEL_IMAGES) -> tuple[LabelPair, ...]:
    """Return the pairs of label images, ordered by name.

    Parameters
    ----------
    pred, truth
        A label image each, which then belong together whatever their names; or
        folders, whose label images are matched by stem. In a folder, a folder
        that holds ``labels.png``, as ``wsiseg predict --label-png`` makes them,
        counts as a label image of its own name.
    files
        What counts as a label image.

    Raises
    ------
    NothingMatchedError
        When no two images share a name.
    DataError
        When an image has no partner, or a name occurs twice.
    """
    for path in (pred, truth):
        if not path.exists():
            raise DataError("there is no such file or folder", where=path)
    stem = files.stem(truth) or truth.stem
    if truth.is_file() and pred.is_file():
        return (LabelPair(name=stem, pred=pred, truth=truth),)
    if truth.is_file() and (pred / files.predicted).is_file():
        return (LabelPair(name=stem, pred=pred / files.predicted, truth=truth),)
    preds, truths = _label_images(pred, files), _label_images(truth, files)
    # A single file asks for its partner only; two folders are to be complete.
    wanted_preds = truths.keys() if truth.is_file() else preds.keys()
    wanted_truths = preds.keys() if pred.is_file() else truths.keys()
    names = preds.keys() & truths.keys()
    if not names:
        raise NothingMatchedError(
            f"no prediction has the name of a true label image ({_listed(preds)} against {_listed(truths)})",
            where=pred,
            mend="Name files alike, apart from the suffix",
        )
    if lonely := (preds.keys() & wanted_preds) ^ names:
        raise DataError(
            f"no truth for {_listed(lonely)}", where=truth, mend="Evaluate folders that hold the same images"
        )
    if lonely := (truths.keys() & wanted_truths) ^ names:
        raise DataError(
            f"no prediction for {_listed(lonely)}", where=pred, mend="Evaluate folders that hold the same images"
        )
    return tuple(LabelPair(name=name, pred=preds[name], truth=truths[name]) for name in sorted(names))


def common_mpp(pairs: Sequence[LabelPair]) -> float | None:
    """Return the µm per pixel that all predictions have, or None where one does not say or they differ.

    Raises
    ------
    DataError
        When what `wsiseg predict` noted is damaged.
    """
    sizes = {pair.mpp for pair in pairs}
    if len(sizes) == 1:
        return sizes.pop()
    logger.warning("the predictions do not all say the same µm per pixel, so distances are in pixels")
    return None


def _label_images(path: Path, files: LabelFiles) -> dict[str, Path]:
    """Return label images by name."""
    if path.is_file():
        return {path.parent.name if path.name == files.predicted else files.stem(path) or path.stem: path}
    found: dict[str, Path] = {}
    for entry in sorted(path.iterdir()):
        if entry.name.startswith("."):
            continue
        stem = files.stem(entry)
        if entry.is_file() and stem is not None:
            name, file = stem, entry
        elif (entry / files.predicted).is_file():
            name, file = entry.name, entry / files.predicted
        else:
            continue
        if name in found:
            raise DataError(f"two label images are called {name}", where=path, mend="Remove or rename one")
        found[name] = file
    return found


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    if not ordered:
        return "none"
    more = f" and {len(ordered) - _NAMES_SHOWN} more" if len(ordered) > _NAMES_SHOWN else ""
    return ", ".join(ordered[:_NAMES_SHOWN]) + more
