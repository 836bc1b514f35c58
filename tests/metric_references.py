"""Slow, obvious versions of the metrics, one loop for each sum sign in their definitions."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Labels = NDArray[np.int64]
    Masks = list[NDArray[np.bool_]]


def masks_of(labels: Labels) -> Masks:
    """Return the objects in the order of their first pixels, which decides between equals."""
    return [labels == label for label in dict.fromkeys(labels.ravel().tolist()) if label != 0]


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def aji(pred: Labels, truth: Labels) -> float:
    preds, truths = masks_of(pred), masks_of(truth)
    intersection, union, used = 0, 0, set()
    for mask in truths:
        ious = [iou(mask, other) for other in preds]
        if not ious or max(ious) == 0:
            union += mask.sum()
            continue
        best = int(np.argmax(ious))
        used.add(best)
        intersection += (mask & preds[best]).sum()
        union += (mask | preds[best]).sum()
    union += sum(mask.sum() for index, mask in enumerate(preds) if index not in used)
    return float(intersection / union) if union else 1.0


def pairings(preds: int, truths: int) -> Iterator[list[tuple[int, int]]]:
    """Yield every one-to-one pairing (pred, truth) of as many objects as can be paired."""
    if preds <= truths:
        for chosen in permutations(range(truths), preds):
            yield list(enumerate(chosen))
    else:
        for chosen in permutations(range(preds), truths):
            yield [(pred, truth) for truth, pred in enumerate(chosen)]


def best_iou_sum(pred: Labels, truth: Labels) -> float:
    preds, truths = masks_of(pred), masks_of(truth)
    return max(sum(iou(preds[p], truths[t]) for p, t in pairs) for pairs in pairings(len(preds), len(truths)))


def matched_ious(pred: Labels, truth: Labels, threshold: float) -> list[float]:
    ious = [iou(one, other) for one in masks_of(pred) for other in masks_of(truth)]
    return [value for value in ious if value > threshold]


def f1(pred: Labels, truth: Labels, threshold: float) -> float:
    objects = len(masks_of(pred)) + len(masks_of(truth))
    return 2 * len(matched_ious(pred, truth, threshold)) / objects if objects else 1.0


def panoptic_quality(pred: Labels, truth: Labels) -> float:
    objects = len(masks_of(pred)) + len(masks_of(truth))
    return sum(matched_ious(pred, truth, 0.5)) / (objects / 2) if objects else 1.0


def object_f1(pred: Labels, truth: Labels) -> float:
    preds, truths = masks_of(pred), masks_of(truth)
    if not preds and not truths:
        return 1.0
    detected = set()
    for mask in preds:
        shared = [int((mask & other).sum()) for other in truths]
        if shared and max(shared) > 0:
            best = int(np.argmax(shared))
            if 2 * shared[best] >= truths[best].sum():
                detected.add(best)
    return 2 * len(detected) / (len(preds) + len(truths))


def object_dice(pred: Labels, truth: Labels) -> float:
    preds, truths = masks_of(pred), masks_of(truth)
    if not preds and not truths:
        return 1.0
    return (_side_dice(preds, truths) + _side_dice(truths, preds)) / 2


def _side_dice(here: Masks, there: Masks) -> float:
    total = sum(mask.sum() for mask in here)
    found = 0.0
    for mask in here:
        shared = [int((mask & other).sum()) for other in there]
        if shared and max(shared) > 0:
            found += mask.sum() / total * dice(mask, there[int(np.argmax(shared))])
    return found


def hausdorff(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    first, second = np.argwhere(one).astype(float), np.argwhere(other).astype(float)
    distances = np.linalg.norm(first[:, None] - second[None], axis=2)
    return float(max(distances.min(axis=1).max(), distances.min(axis=0).max()))


def object_hausdorff(pred: Labels, truth: Labels) -> float:
    preds, truths = masks_of(pred), masks_of(truth)
    diagonal = float(np.hypot(*pred.shape))
    if not preds and not truths:
        return 0.0
    if not preds or not truths:
        return diagonal
    return (_side_hausdorff(preds, truths, diagonal) + _side_hausdorff(truths, preds, diagonal)) / 2


def _side_hausdorff(here: Masks, there: Masks, diagonal: float) -> float:
    total = sum(mask.sum() for mask in here)
    found = 0.0
    for mask in here:
        shared = [int((mask & other).sum()) for other in there]
        if max(shared) > 0:
            distance = hausdorff(mask, there[int(np.argmax(shared))])
        else:
            distance = min(diagonal, *(hausdorff(mask, other) for other in there))
        found += mask.sum() / total * distance
    return found


def border(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the pixels of a mask with one of four neighbours outside the mask or the image."""
    padded = np.pad(mask, 1)
    return [
        (int(y), int(x))
        for y, x in np.argwhere(mask)
        if not (padded[y, x + 1] and padded[y + 2, x + 1] and padded[y + 1, x] and padded[y + 1, x + 2])
    ]


def hausdorff95(pred: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    there = [min(np.hypot(y - v, x - u) for v, u in border(truth)) for y, x in border(pred)]
    back = [min(np.hypot(y - v, x - u) for v, u in border(pred)) for y, x in border(truth)]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def edges(labels: Labels) -> list[tuple[int, int]]:
    """Return labelled pixels with one of four neighbours, inside the image and judged, of another label."""
    height, width = labels.shape
    found = []
    for y, x in np.argwhere(labels > 0):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [labels[v, u] for v, u in around if 0 <= v < height and 0 <= u < width]
        if any(label >= 0 and label != labels[y, x] for label in inside):
            found.append((int(y), int(x)))
    return found


def boundary_f1(pred: Labels, truth: Labels, tolerance: float) -> float:
    there, back = edges(pred), edges(truth)
    if not there and not back:
        return float("nan")
    if not there or not back:
        return 0.0
    precision = np.mean([min(np.hypot(y - v, x - u) for v, u in back) <= tolerance for y, x in there])
    recall = np.mean([min(np.hypot(y - v, x - u) for v, u in there) <= tolerance for y, x in back])
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def confusion(pred: Labels, truth: Labels, classes: int, ignore_index: int) -> NDArray[np.int64]:
    counts = np.zeros((classes, classes + 1), dtype=np.int64)
    for true, given in zip(truth.ravel(), pred.ravel(), strict=True):
        if true != ignore_index:
            counts[true, classes if given == ignore_index else given] += 1
    return counts
