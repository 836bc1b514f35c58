"""The page that shows what the stages of a training learnt: curves, balance of classes, scores, pictures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.atomic import write_bytes
from wsiseg.checkpoint import read_card
from wsiseg.labels import IGNORE
from wsiseg.methods.predictor import load_predictor
from wsiseg.metrics.confusion import ConfusionMatrix, count_confusion
from wsiseg.tasks.patch_masks import BALANCE, COVERAGE
from wsiseg.tasks.pictures import Panel, covered, encoded, keys, png, render, shaded, some
from wsiseg.tasks.train_job import PAGE
from wsiseg.training.log import CURVES, VALIDATION, read_table
from wsiseg.training.probe import LABEL_MIOU
from wsiseg.training.validation import dense_maps
from wsiseg.white import white_pixels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from wsiseg.labels import LabelMap
    from wsiseg.methods.base import Predictor
    from wsiseg.progress import Progress
    from wsiseg.stopping import Stop
    from wsiseg.tasks.patch_data import PatchData
    from wsiseg.training.sources import Source

_TEMPLATE: Final = "train_report.html.j2"
_PANELS: Final = 4
# More patches than these would hold up the end of a training.
_MOST: Final = 300
# What a gate may cost; less than this also comes from judging fewer patches.
_LOSS: Final = 0.05


def write_report(
    folder: Path,
    data: PatchData,
    models: Mapping[str, Path],
    layers: Mapping[str, str],
    *,
    method: str,
    device: torch.device,
    progress: Progress,
    stop: Stop,
) -> None:
    """Write `PAGE` into the folder of a run.

    Parameters
    ----------
    folder
        Of the run.
    data
        On what it was trained and validated.
    models
        Folder of the model of each stage that was trained, in order.
    layers
        Layers of pseudo-labels, and their names in the stores.
    method
        Name of the method.
    device
        Where models compute.
    progress
        Told where a gate does harm.
    stop
        Looked at after each patch.

    Raises
    ------
    StoppedError
        If `stop` was requested; there is no page then.
    """
    predictors = {stage: load_predictor(model, device=device) for stage, model in models.items()}
    labels = data.info.labels
    held_out = 0 if data.validation is None else len(data.validation.indices)
    scored = np.zeros(0, dtype=np.int64) if data.validation is None else some(data.validation.indices, _MOST)
    found = (
        {}
        if data.validation is None
        else {stage: _measured(one, data.validation, scored, device, stop) for stage, one in predictors.items()}
    )
    for stage, matrix in found.items():
        judged = read_card(models[stage]).metrics.get("miou")
        if judged is not None and (told := gate_warning(stage, float(matrix.scores()["miou"]), judged)):
            progress.say(told)
    page = render(
        _TEMPLATE,
        name=folder.resolve().name,
        method=method,
        facts=[
            {"value": f"{len(data.known.indices):,}", "label": "training patches"},
            {"value": f"{held_out:,}", "label": "validation patches"},
            {"value": len(labels), "label": "classes"},
            {"value": "–" if data.facts.mpp is None else f"{data.facts.mpp:g} µm/px", "label": "pixel size"},
        ],
        classes=keys(labels),
        curves=[(stage, encoded((folder / stage / CURVES).read_bytes())) for stage in _with_curves(folder, models)],
        is_probed=any(LABEL_MIOU in row for stage in models for row in read_table(folder / stage / VALIDATION)),
        shown=data.known.present.mean(axis=0).tolist(),
        balance=_balance(folder, labels),
        scores=[(stage, *_shown(matrix)) for stage, matrix in found.items()],
        scored=len(scored),
        held_out=held_out,
        training=_training_panels(data, predictors, layers, device),
        validation=_validation_panels(data, predictors, scored, device),
    )
    write_bytes(folder / PAGE, page)


def _with_curves(folder: Path, models: Mapping[str, Path]) -> list[str]:
    return [stage for stage in models if (folder / stage / CURVES).exists()]


def _balance(folder: Path, labels: LabelMap) -> list[dict[str, object]]:
    """Return coverage and shares of the classes of each layer, as far as it was labelled."""
    path = folder / BALANCE
    told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return [
        {"layer": layer, "coverage": shares[COVERAGE], "shares": [shares[name] for name in labels.names]}
        for layer, shares in told.items()
    ]


def gate_warning(stage: str, found: float, judged: float) -> str:
    """Return what to say of a model that is much worse as it predicts than it was in training; nothing if it is not.

    Parameters
    ----------
    stage
        That trained it.
    found
        Its mIoU as it predicts, with its gate.
    judged
        Its mIoU in training, without.
    """
    if found >= judged - _LOSS:
        return ""
    what = f"{stage} has an mIoU of {found:.3f} with its gate, and {judged:.3f} without"
    mend = "Train it longer, or predict with --set gate=false"
    return f"warning: {what}: the classifier shuts out classes that are there. {mend}"


def _measured(
    predictor: Predictor, source: Source, indices: NDArray[np.int64], device: torch.device, stop: Stop
) -> ConfusionMatrix:
    """Return how often which class is taken for which, on patches with masks."""
    tallies = []
    for index in indices.tolist():
        patch = source.whole(index)
        found = dense_maps(predictor, patch.image, device).argmax(axis=0)
        truth = np.where(patch.valid, patch.labels, IGNORE)
        tallies.append(count_confusion(found, truth, classes=predictor.spec.channels, ignore_index=IGNORE))
        if stop.is_requested:
            raise stop.error()
    return ConfusionMatrix.stack(tallies).pool(np.ones(len(tallies), dtype=np.int64))


def _shown(matrix: ConfusionMatrix) -> tuple[list[str], list[str]]:
    """Return mean IoU, weighted IoU and accuracy as texts, and the IoU of each class."""
    overall = matrix.scores()
    means = [f"{overall[name]:.3f}" for name in ("miou", "fw_iou", "pixel_accuracy")]
    return means, ["–" if np.isnan(value) else f"{value:.3f}" for value in matrix.class_scores()["iou"]]


def _training_panels(
    data: PatchData, predictors: Mapping[str, Predictor], layers: Mapping[str, str], device: torch.device
) -> list[Panel]:
    labels = data.info.labels
    panels = []
    for row in _varied(data.known.present):
        index = int(data.known.indices[row])
        width, height = data.patches.extents[index].tolist()
        image = data.patches.read_images([index])[0, :height, :width]
        found = {layer: data.patches.read_labels(name, [index])[0, :height, :width] for layer, name in layers.items()}
        masks = [(layer, png(covered(image, mask, labels))) for layer, mask in found.items()]
        predicted = _predicted(image, predictors, labels, device)
        there = [label.name for label, is_shown in zip(labels.labels, data.known.present[row], strict=True) if is_shown]
        pictures = [("patch", png(image)), *predicted[:1], *masks, *predicted[1:]]
        panels.append(Panel(title=", ".join(there), pictures=pictures))
    return panels


def _validation_panels(
    data: PatchData, predictors: Mapping[str, Predictor], indices: NDArray[np.int64], device: torch.device
) -> list[Panel]:
    if data.validation is None:
        return []
    labels = data.info.labels
    panels = []
    for index in some(indices, _PANELS):
        patch = data.validation.whole(int(index))
        mask = np.where(patch.valid, patch.labels, IGNORE)
        pictures = [
            ("patch", png(patch.image)),
            *_predicted(patch.image, predictors, labels, device),
            ("mask", png(covered(patch.image, mask, labels))),
        ]
        panels.append(Panel(title=str(data.patches.parents[index]), pictures=pictures))
    return panels


def _predicted(
    image: NDArray[np.uint8], predictors: Mapping[str, Predictor], labels: LabelMap, device: torch.device
) -> list[tuple[str, str]]:
    """Return what the models of the stages see: the first as shades of all classes, the others as maps."""
    pictures: list[tuple[str, str]] = []
    for stage, predictor in predictors.items():
        prob, white = dense_maps(predictor, image, device), predictor.spec.white
        if pictures:
            found = prob.argmax(axis=0)
            if white is not None:
                found[white_pixels(image, white)] = IGNORE
            pictures.append((f"{stage}: prediction", png(covered(image, found, labels))))
        else:
            pictures.append((f"{stage}: activation", png(shaded(image, prob, labels))))
    return pictures


def _varied(present: NDArray[np.uint8]) -> list[int]:
    """Return rows of patches that show different classes, those that show most of them first."""
    kinds, first = np.unique(present, axis=0, return_index=True)
    order = np.argsort(-kinds.sum(axis=1), kind="stable")
    return [int(row) for row in first[order][:_PANELS]]
