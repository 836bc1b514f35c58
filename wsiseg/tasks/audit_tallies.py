"""What an audit of layers of labels counts over all patches."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wsiseg.labels import IGNORE
from wsiseg.metrics.calibration import LEVELS, CalibrationTally, count_calibration
from wsiseg.metrics.confusion import ConfusionMatrix, count_confusion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from wsiseg.labels import LabelMap

# Whatever JSON holds.
Json = dict[str, Any]

_WORST: Final = 8
_SURE: Final = np.arange(1, 21) / 20


class Tallies:
    """What is counted.

    Parameters
    ----------
    layers
        Layers that are looked at.
    classes
        Number of classes.
    """

    def __init__(self, layers: tuple[str, ...], *, classes: int) -> None:
        self._classes = classes
        self._counts = {name: np.zeros(IGNORE + 1, dtype=np.int64) for name in layers}
        # What the first says, and the second; the last row and column are pixels of which it says nothing.
        self._pairs = {pair: np.zeros((classes + 1, classes + 1)) for pair in combinations(layers, 2)}
        self._against = {name: np.zeros((classes, classes + 1)) for name in layers}
        self._sure = {name: np.zeros((LEVELS, 2)) for name in layers}
        self._patches = self._true_patches = 0
        # Patch, and how well its layers agree, or how true they are.
        self._agreements: list[tuple[int, float]] = []
        self._accuracies: list[tuple[int, float]] = []

    @property
    def is_blind(self) -> bool:
        """Tell whether there was no true mask."""
        return self._true_patches == 0

    def add(
        self,
        index: int,
        masks: Mapping[str, NDArray[np.uint8]],
        true: NDArray[np.uint8] | None = None,
        confidence: Mapping[str, NDArray[np.uint8]] | None = None,
    ) -> None:
        """Count one patch.

        Parameters
        ----------
        index
            Of the patch.
        masks
            Labels (H, W) in each layer.
        true
            The same as they should be; None where this is not known.
        confidence
            Percent (H, W) for layers that have it. It counts where there is truth.
        """
        self._patches += 1
        for name, mask in masks.items():
            self._counts[name] += np.bincount(mask.ravel(), minlength=IGNORE + 1)
        shares = []
        for pair in self._pairs:
            found = self._joint(*(masks[name] for name in pair))
            self._pairs[pair] += found
            # Pixels of which only one says something are no agreement either.
            shares.append(_share(np.trace(found[:-1, :-1]), found.sum() - found[-1, -1]))
        if np.isfinite(shares).any():
            self._agreements.append((index, float(np.nanmin(shares))))
        if true is None:
            return
        self._true_patches += 1
        accuracies = []
        for name, mask in masks.items():
            matrix = count_confusion(mask, true, classes=self._classes)
            self._against[name] += matrix.counts
            accuracies.append(_accuracy(matrix.counts))
        if np.isfinite(accuracies).any():
            self._accuracies.append((index, float(np.nanmean(accuracies))))
        for name, percent in (confidence or {}).items():
            self._sure[name] += count_calibration(masks[name], true, percent).counts

    def figures(self, labels: LabelMap) -> Json:
        """Return what was counted, with names."""
        layers: Json = {}
        for name, counts in self._counts.items():
            labelled = counts[: self._classes].sum()
            layers[name] = {
                "patches": self._patches,
                "coverage": float(labelled / max(counts.sum(), 1)),
                "shares": _by_name(labels, counts[: self._classes] / max(labelled, 1)),
                "truth": None if self.is_blind else self._truth(name, labels),
                "confidence": self._confidence(name),
            }
        parts = [found for pair in self._pairs if (found := self._part(pair, labels))]
        within = {frozenset((one["layer"], one["of"])) for one in parts}
        agreement = [
            {"layers": list(pair), **self._agreement(pair, labels)}
            for pair in self._pairs
            # A part agrees with the whole by its nature.
            if frozenset(pair) not in within
        ]
        return {"layers": layers, "agreement": agreement, "parts": parts}

    def worst(self) -> list[tuple[int, float]]:
        """Return the patches that are least to be trusted, and how much they are."""
        found = self._agreements if self.is_blind else self._accuracies
        return sorted(found, key=lambda pair: pair[1])[:_WORST]

    def _joint(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.int64]:
        side = self._classes + 1
        rows, columns = (np.minimum(mask.ravel(), self._classes).astype(np.int64) for mask in (first, second))
        return np.bincount(rows * side + columns, minlength=side * side).reshape(side, side)

    def _agreement(self, pair: tuple[str, str], labels: LabelMap) -> Json:
        # Where either says nothing they neither agree nor disagree.
        counts = self._pairs[pair].copy()
        counts[:, -1] = 0
        iou = ConfusionMatrix(counts=counts[:-1]).class_scores()["iou"]
        return {"pixels": _number(_accuracy(counts[:-1])), "iou": _by_name(labels, iou)}

    def _truth(self, name: str, labels: LabelMap) -> Json:
        matrix = ConfusionMatrix(counts=self._against[name])
        each = matrix.class_scores()
        return {
            "patches": self._true_patches,
            "miou": _number(float(matrix.scores()["miou"])),
            "accuracy": _number(_accuracy(self._against[name])),
            **{key: _by_name(labels, each[key]) for key in ("iou", "precision", "recall")},
        }

    def _confidence(self, name: str) -> Json | None:
        """Return whether a layer is as sure as it is right; None where this is not known."""
        tally = CalibrationTally(counts=self._sure[name])
        if tally.counts.sum() == 0:
            return None
        scores, bins = tally.scores(), tally.bins()
        rows = zip(*(bins[key].tolist() for key in ("share", "confidence", "accuracy")), strict=True)
        return {
            "ece": float(scores["ece"]),
            "accuracy": float(scores["accuracy"]),
            "bins": [
                {"share": share, "confidence": _number(sure), "accuracy": _number(right)} for share, sure, right in rows
            ],
            "surest": [
                {"share": share, "accuracy": right}
                for share, right in zip(_SURE.tolist(), tally.surest(_SURE).tolist(), strict=True)
            ],
        }

    def _part(self, pair: tuple[str, str], labels: LabelMap) -> Json | None:
        """Return what sets the labels apart that both layers have, if one holds a part of the other's and no more."""
        joint = self._pairs[pair]
        for whole, part, counts in ((*pair, joint), (*pair[::-1], joint.T)):
            kept, all_of_it = np.diagonal(counts)[:-1], counts[:-1].sum(axis=1)
            if not 0 < counts[:, :-1].sum() == kept.sum() < all_of_it.sum():
                continue
            with np.errstate(invalid="ignore"):
                shares = kept / all_of_it
            found: Json = {
                "layer": part,
                "of": whole,
                "coverage": float(kept.sum() / all_of_it.sum()),
                "shares": _by_name(labels, shares),
                "truth": None,
            }
            if not self.is_blind:
                inside = self._against[part][:, :-1]
                rest = self._against[whole][:, :-1] - inside
                found["truth"] = {
                    name: {"accuracy": _number(_accuracy(one)), "precision": _by_name(labels, _precision(one))}
                    for name, one in (("part", inside), ("rest", rest))
                }
            return found
        return None


def _share(some: float, of_all: float) -> float:
    return float(some / of_all) if of_all else float("nan")


def _accuracy(counts: NDArray[np.float64]) -> float:
    return _share(np.trace(counts), counts.sum())


def _precision(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return ConfusionMatrix(counts=np.pad(counts, ((0, 0), (0, 1)))).class_scores()["precision"]


def _by_name(labels: LabelMap, values: NDArray[np.float64]) -> dict[str, float | None]:
    return {label.name: _number(float(value)) for label, value in zip(labels.labels, values, strict=True)}


def _number(value: float) -> float | None:
    """Return a number for JSON, which knows none that is none."""
    return value if np.isfinite(value) else None
