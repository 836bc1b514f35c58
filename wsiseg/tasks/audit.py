"""The job behind ``wsiseg audit``: how far layers of labels can be trusted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wsiseg.atomic import write_bytes
from wsiseg.errors import ConfigError, DataError
from wsiseg.labels import IGNORE
from wsiseg.metrics.confusion import ConfusionMatrix, count_confusion
from wsiseg.progress import SILENT, track
from wsiseg.tasks.pictures import Panel, covered, keys, png, render
from wsiseg.tiling.reading import open_patches

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.labels import LabelMap
    from wsiseg.progress import Progress
    from wsiseg.stores.patch_set import PatchSet

PAGE: Final = "audit.html"
FIGURES: Final = "audit.json"
# Runs of neighbours share shards on disk.
_RUN: Final = 64
_WORST: Final = 8

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditJob:
    """What to do.

    Parameters
    ----------
    store
        Patch store.
    output
        Folder of the page and the figures.
    layers
        Layers of classes to look at; None takes all but `truth`.
    truth
        Layer of masks that are true; None takes the one that has the name of a layer of image labels, if any.
    """

    store: Path
    output: Path
    layers: tuple[str, ...] | None = None
    truth: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What was found.

    Parameters
    ----------
    page
        HTML with all of it.
    figures
        The same as numbers; the content of `FIGURES`.
    """

    page: Path
    figures: Json

    def __str__(self) -> str:
        lines = []
        for name, one in self.figures["layers"].items():
            shares = ", ".join(f"{key} {share:.1%}" for key, share in one["shares"].items())
            accuracy = "" if one["truth"] is None else f", mIoU {one['truth']['miou']:.3f}"
            lines.append(f"{name}: {one['coverage']:.1%} of {one['patches']} patches{accuracy}; {shares}")
        lines += [f"{' and '.join(pair['layers'])} agree on {pair['pixels']:.1%}" for pair in self.figures["agreement"]]
        return "\n".join([*lines, f"Report: {self.page}"])


def audit(job: AuditJob, progress: Progress = SILENT) -> AuditReport:
    """Compare layers of classes with one another and with masks that are true, and show the worst patches.

    Raises
    ------
    ConfigError
        If there is no such layer.
    DataError
        If there is nothing to look at, or layers are of different classes.
    """
    patches = open_patches([job.store])
    layers, truth = _layers(patches, job)
    labels = patches.layers[layers[0]].labels
    tallies, indices = _Tallies(layers, truth, classes=len(labels)), _labelled(patches, layers)
    runs = [indices[first : first + _RUN] for first in range(0, len(indices), _RUN)]
    for run in track(runs, progress, what="audit", total=len(runs), unit="runs of patches"):
        masks = {name: patches.read_labels(name, run) for name in layers}
        has_truth = np.zeros(len(run), dtype=bool) if truth is None else patches.is_labelled(truth)[run]
        true = None if truth is None else patches.read_labels(truth, run)
        for place, index in enumerate(run.tolist()):
            given = {name: mask[place] for name, mask in masks.items()}
            tallies.add(index, given, None if true is None or not has_truth[place] else true[place])
    figures = {
        "store": str(job.store),
        "truth": None if tallies.is_blind else truth,
        **tallies.figures(patches, labels),
    }
    worst = [_panel(patches, index, fault, tallies, labels) for index, fault in tallies.worst()]
    page = render(
        "audit.html.j2",
        name=job.store.name,
        figures=figures,
        classes=keys(labels),
        fault="agreement of the layers" if tallies.is_blind else f"accuracy against {truth}",
        worst=worst,
    )
    write_bytes(job.output / FIGURES, json.dumps(figures, indent=1, allow_nan=False).encode() + b"\n")
    write_bytes(job.output / PAGE, page)
    return AuditReport(page=job.output / PAGE, figures=figures)


class _Tallies:
    """What is counted over all patches."""

    def __init__(self, layers: tuple[str, ...], truth: str | None, *, classes: int) -> None:
        self.layers, self.truth, self.classes = layers, truth, classes
        self.counts = {name: np.zeros(IGNORE + 1, dtype=np.int64) for name in layers}
        self.pairs = {pair: _empty(classes) for pair in combinations(layers, 2)}
        self.against = {name: _empty(classes) for name in layers}
        self.true_patches = 0
        # Patch, and how well its layers agree, or how true they are.
        self.agreements: list[tuple[int, float]] = []
        self.accuracies: list[tuple[int, float]] = []

    @property
    def is_blind(self) -> bool:
        """Tell whether there was no true mask."""
        return self.true_patches == 0

    def add(self, index: int, masks: dict[str, NDArray[np.uint8]], true: NDArray[np.uint8] | None) -> None:
        """Count one patch."""
        for name, mask in masks.items():
            self.counts[name] += np.bincount(mask.ravel(), minlength=IGNORE + 1)
        shares = []
        for pair in self.pairs:
            first, second = (masks[name] for name in pair)
            # Where either says nothing they neither agree nor disagree.
            both = np.where(second == IGNORE, IGNORE, first)
            found = count_confusion(second, both, classes=self.classes)
            self.pairs[pair] += found.counts
            shares.append(_accuracy(found.counts))
        if shares:
            self.agreements.append((index, float(np.nanmin(shares)) if np.isfinite(shares).any() else 1.0))
        if true is None:
            return
        self.true_patches += 1
        accuracies = []
        for name, mask in masks.items():
            found = count_confusion(mask, true, classes=self.classes)
            self.against[name] += found.counts
            accuracies.append(_accuracy(found.counts))
        if np.isfinite(accuracies).any():
            self.accuracies.append((index, float(np.nanmean(accuracies))))

    def figures(self, patches: PatchSet, labels: LabelMap) -> Json:
        """Return what was counted, with names."""
        layers: Json = {}
        for name, counts in self.counts.items():
            labelled = counts[: self.classes].sum()
            layers[name] = {
                "patches": int(patches.is_labelled(name).sum()),
                "coverage": float(labelled / max(counts.sum(), 1)),
                "shares": _by_name(labels, counts[: self.classes] / max(labelled, 1)),
                "truth": None if self.is_blind else self._truth(name, labels),
            }
        agreement = [
            {"layers": list(pair), "pixels": _number(_accuracy(counts)), "iou": _by_name(labels, _iou(counts))}
            for pair, counts in self.pairs.items()
        ]
        return {"layers": layers, "agreement": agreement}

    def worst(self) -> list[tuple[int, float]]:
        """Return the patches that are least to be trusted, and how much they are."""
        found = self.agreements if self.is_blind else self.accuracies
        return sorted(found, key=lambda pair: pair[1])[:_WORST]

    def _truth(self, name: str, labels: LabelMap) -> Json:
        matrix = ConfusionMatrix(counts=self.against[name])
        each = matrix.class_scores()
        return {
            "patches": self.true_patches,
            "miou": _number(float(matrix.scores()["miou"])),
            "accuracy": _number(_accuracy(self.against[name])),
            **{key: _by_name(labels, each[key]) for key in ("iou", "precision", "recall")},
        }


def _layers(patches: PatchSet, job: AuditJob) -> tuple[tuple[str, ...], str | None]:
    """Return the layers to look at, and the true one."""
    known = [name for name, info in patches.layers.items() if info.kind == "classes"]
    truth = job.truth or next((name for name in known if name in patches.image_layers), None)
    layers = job.layers or tuple(name for name in known if name != truth)
    missing = [name for name in (*layers, *([truth] if truth else [])) if name not in known]
    if missing:
        raise ConfigError(
            f"there is no layer {missing[0]!r} of classes",
            where="--layer" if missing[0] in layers else "--truth",
            mend=f"There are: {', '.join(known) or 'none'}",
        )
    if not layers:
        raise DataError(
            "there is no layer to look at", where=job.store, mend="Make some with wsiseg pseudo-label or wsiseg train"
        )
    names = {name: patches.layers[name].labels.names for name in (*layers, *([truth] if truth else []))}
    if len(set(names.values())) > 1:
        raise DataError("the layers are of different classes", where=job.store, mend="Choose some with --layer")
    return layers, truth


def _labelled(patches: PatchSet, layers: tuple[str, ...]) -> NDArray[np.int64]:
    found = np.flatnonzero(np.all([patches.is_labelled(name) for name in layers], axis=0))
    if len(found) == 0:
        raise DataError("no patch has labels in all of these layers", mend="Choose other layers with --layer")
    return found


def _panel(patches: PatchSet, index: int, fault: float, tallies: _Tallies, labels: LabelMap) -> Panel:
    image = patches.read_images([index])[0]
    shown = [*tallies.layers, *([tallies.truth] if tallies.truth and not tallies.is_blind else [])]
    masks = [(name, png(covered(image, patches.read_labels(name, [index])[0], labels))) for name in shown]
    return Panel(title=f"{patches.parents[index]}: {fault:.1%}", pictures=[("patch", png(image)), *masks])


def _empty(classes: int) -> NDArray[np.float64]:
    return np.zeros((classes, classes + 1))


def _accuracy(counts: NDArray[np.float64]) -> float:
    return float(np.trace(counts) / counts.sum()) if counts.sum() else float("nan")


def _iou(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return ConfusionMatrix(counts=counts).class_scores()["iou"]


def _by_name(labels: LabelMap, values: NDArray[np.float64]) -> dict[str, float | None]:
    return {label.name: _number(float(value)) for label, value in zip(labels.labels, values, strict=True)}


def _number(value: float) -> float | None:
    """Return a number for JSON, which knows none that is none."""
    return value if np.isfinite(value) else None
