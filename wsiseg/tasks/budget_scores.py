"""How good a trained model is on the test patches or test volumes of stores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.errors import DataError
from wsiseg.evaluation.scorers import InstanceScorer, SemanticScorer
from wsiseg.labels import IGNORE
from wsiseg.methods.predictor import load_predictor
from wsiseg.methods.windows import window_means
from wsiseg.metrics import SURFACE_SCORES, surface_scores
from wsiseg.stores.volume_store import LAYER, VolumeStore, is_volume_store
from wsiseg.tasks.train_data import judging_data
from wsiseg.tiling.reading import open_patches
from wsiseg.training.validation import dense_maps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from wsiseg.methods.base import Predictor

# What is told of objects and of classes. Distances are in µm, or in pixels where the scale is unknown; those of volumes
# in mm.
OBJECTS: Final = ("dice", "aji", "f1", "pq", "object_f1", "object_dice", "object_hausdorff")
CLASSES: Final = ("mean_dice", "miou", "fw_iou", "pixel_accuracy")
# The mean over all classes but the background, which is easy and would dampen what more labels are worth.
FOREGROUND: Final = "foreground_dice"
# Of volumes: how many structures of all were found or are there, and not both, so that they have no distances.
MISSING: Final = "missing_structures"
_TOLERANCE_PX: Final = 2.0


def judged(
    model: Path, stores: Sequence[Path], layer: str | None, mpp: float | None, device: torch.device
) -> dict[str, float]:
    """Return the scores of a model on what is marked ``test``.

    Of patches, all are taken as one: objects and pixels count alike, wherever they lie. Of volumes, it is the mean over
    the structures and then over the volumes, of those that have the score; distances leave out structures that are
    there on one side only, and `MISSING` is their number. What nothing is known of is NaN.

    Parameters
    ----------
    model
        Folder of the model.
    stores
        Stores of patches, or of volumes.
    layer, mpp
        Of labels, and the resolution; as the model was trained.
    device
        What computes.

    Raises
    ------
    DataError
        If nothing that is marked ``test`` has labels.
    """
    predictor = load_predictor(model, device=device)
    if is_volume_store(stores[0]):
        return _of_volumes(predictor, stores, device)
    return _of_patches(predictor, stores, layer or "", mpp, device)


def _of_patches(
    predictor: Predictor, stores: Sequence[Path], layer: str, mpp: float | None, device: torch.device
) -> dict[str, float]:
    spec, size = predictor.spec, mpp or 1.0
    scorer: InstanceScorer | SemanticScorer
    if spec.task == "instance":
        scorer = InstanceScorer(pixel_size=size, tolerance_px=_TOLERANCE_PX)
    else:
        scorer = SemanticScorer(classes=spec.channels, ignore_index=IGNORE, pixel_size=size, tolerance_px=_TOLERANCE_PX)
    count = 0
    for source in judging_data([open_patches([path]) for path in stores], layer, mpp):
        for index in source.indices:
            patch = source.whole(int(index))
            maps = dense_maps(predictor, patch.image, device)
            if spec.task == "instance":
                found, truth, rest = predictor.decode(maps).labels, patch.labels, 0
            else:
                truth = (patch.labels > 0).astype(np.int32) if source.kind == "instances" else patch.labels
                found, rest = maps.argmax(axis=0).astype(np.int32), IGNORE
            scorer.add(np.where(patch.valid, found, rest), np.where(patch.valid, truth, rest))
            count += 1
    pooled = scorer.pooled_scores(np.ones(count, dtype=np.int64))
    if spec.task == "instance":
        return {name: float(pooled[name]) for name in OBJECTS}
    scores = {name: float(pooled[name]) for name in CLASSES}
    if spec.labels.no_class == 0:
        return {FOREGROUND: _mean(scorer.pooled_class_scores()["dice"][1:].tolist()), **scores}
    return scores


def _of_volumes(predictor: Predictor, stores: Sequence[Path], device: torch.device) -> dict[str, float]:
    about = predictor.spec.volume
    if about is None:
        raise DataError("a model of images cannot be judged by volumes", where=stores[0])
    cases, missing = [], 0
    for store in (VolumeStore.open(path) for path in stores):
        for index in np.flatnonzero(store.is_labelled(LAYER) & (store.splits == "test")).tolist():
            means = window_means(
                predictor, store.read_voxels(index), patch=about.patch, stride=about.stride, device=device
            )
            found, truth = means.argmax(axis=0), store.read_labels(index)
            known, spacing = truth != IGNORE, store.meta.volumes[index].spacing_mm
            each = [
                surface_scores((found == label) & known, truth == label, spacing=spacing)
                for label in range(1, len(means))
            ]
            missing += sum(any(math.isnan(value) for value in one.values()) for one in each)
            cases.append([_mean([one[name] for one in each]) for name in SURFACE_SCORES])
    if not cases:
        raise DataError("no volume that is marked test has labels", where=stores[0])
    scores = {name: _mean(values) for name, values in zip(SURFACE_SCORES, zip(*cases, strict=True), strict=True)}
    return {**scores, MISSING: float(missing)}


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
