"""Which patches may be chosen, and how much tissue there is to choose from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import Field

from wsiseg.config import Config
from wsiseg.stores.patch_meta import SYNTHETIC

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wsiseg.stores.patch_set import PatchSet

_HELD_OUT: Final = ("val", "test")


class PoolSettings(Config):
    """What a patch must show to be chosen. The published method has no such rules, and may choose bare glass.

    Parameters
    ----------
    min_tissue
        Share of a patch that is tissue, by the store and by its pixels; 0 keeps blank patches.
    min_nuclei, max_nuclei
        Share of its pixels that are stained with haematoxylin as strongly as nuclei are; 0 and 1 keep all. Folds and
        ink are dark all over, but so are some whole slides.
    """

    min_tissue: float = Field(default=0.5, ge=0, le=1)
    min_nuclei: float = Field(default=0.03, ge=0, le=1)
    max_nuclei: float = Field(default=1.0, ge=0, le=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoolReport:
    """Which patches are left, and why the others are not.

    Parameters
    ----------
    indices
        Patches that may be chosen, sorted.
    removed
        How many each rule removed of what those before it had left.
    """

    indices: NDArray[np.int64]
    removed: dict[str, int]


def filter_pool(
    patches: PatchSet,
    appearance: NDArray[np.float32],
    settings: PoolSettings,
    *,
    is_taken: NDArray[np.bool_],
    uncertainty: NDArray[np.float32] | None = None,
) -> PoolReport:
    """Return the patches that may be chosen.

    Parameters
    ----------
    patches
        All patches.
    appearance
        Of each, (N, 2); see `wsiseg.selection.appearance`.
    settings
        What a patch must show.
    is_taken
        Patches that are annotated already, (N,).
    uncertainty
        Of what was predicted of each, (N,), 0 where nothing was; None where no prediction has a say.
    """
    tissue = np.minimum(patches.tissue, appearance[:, 0])
    rules = {
        "synthetic": patches.splits == SYNTHETIC,
        "held out": np.isin(patches.splits, _HELD_OUT),
        "cut off by the edge": _cut_off(patches),
        "annotated": is_taken,
        "blank": tissue < settings.min_tissue,
        "without nuclei": appearance[:, 1] < settings.min_nuclei,
        "dark all over": appearance[:, 1] > settings.max_nuclei,
    }
    if uncertainty is not None:
        rules["not predicted, or certain"] = uncertainty == 0
    is_left = np.ones(len(patches), dtype=np.bool_)
    removed = {}
    for name, is_out in rules.items():
        removed[name] = int(np.count_nonzero(is_left & is_out))
        is_left &= ~is_out
    return PoolReport(indices=np.flatnonzero(is_left), removed=removed)


def boxes_of(patches: PatchSet) -> NDArray[np.int64]:
    """Return number of the image, left, top, right and bottom of each patch, (N, 5), in canvas pixels of its image."""
    numbers: dict[tuple[int, str], int] = {}
    images = [
        numbers.setdefault((at, str(parent)), len(numbers))
        for at, store in enumerate(patches.stores)
        for parent in store.parents
    ]
    windows = np.concatenate([store.windows for store in patches.stores])
    return np.column_stack((images, windows, windows + patches.extents)).astype(np.int64)


def tissue_px(patches: PatchSet) -> int:
    """Return how many pixels of tissue there are to choose from, each counted once however many patches share it.

    What is held out or synthetic does not count. Where patches overlap, the mean of their shares of tissue is taken.
    """
    is_in = ~np.isin(patches.splits, (*_HELD_OUT, SYNTHETIC))
    return round(_pixels(patches, np.flatnonzero(is_in), patches.tissue[is_in]))


def chosen_px(patches: PatchSet, indices: Sequence[int]) -> int:
    """Return how many pixels some patches have, glass included, each counted once however many of them share it."""
    return round(_pixels(patches, np.asarray(indices, dtype=np.int64), np.ones(len(indices), dtype=np.float32)))


def _pixels(patches: PatchSet, indices: NDArray[np.int64], weights: NDArray[np.float32]) -> float:
    boxes = boxes_of(patches)[indices]
    order = np.argsort(boxes[:, 0], kind="stable")
    starts = np.flatnonzero(np.diff(boxes[order, 0])) + 1
    return sum(covered_px(boxes[own, 1:], weights[own]) for own in np.split(order, starts) if len(own))


def sizes_of(patches: PatchSet) -> NDArray[np.int64]:
    """Return width and height of what is looked at of each patch, (N, 2).

    Whole images come without the padding that smaller ones have beside larger ones. Patches that are cut off keep
    theirs: there may be hardly anything else of them.
    """
    shapes = [np.full((len(store), 2), store.image_shape[::-1]) for store in patches.stores]
    sizes: NDArray[np.int64] = np.where(_cut_off(patches)[:, None], np.concatenate(shapes), patches.extents)
    return sizes


def _cut_off(patches: PatchSet) -> NDArray[np.bool_]:
    """Tell which patches are smaller than others of their store, as their slide or image ends there, (N,).

    What is all there is of an image is whole, however small.
    """
    parts = []
    for store in patches.stores:
        is_smaller = (store.extents != store.image_shape[::-1]).any(axis=1)
        _, owners, counts = np.unique(store.parents.astype(str), return_inverse=True, return_counts=True)
        is_image = (counts[owners] == 1) & (store.meta.grid is None)
        parts.append(is_smaller & ~is_image)
    return np.concatenate(parts)


def covered_px(boxes: NDArray[np.int64], weights: Sequence[float] | NDArray[np.float32]) -> float:
    """Return the area under boxes (n, 4), each part times the mean weight of the boxes over it."""
    columns, rows = np.unique(boxes[:, [0, 2]]), np.unique(boxes[:, [1, 3]])
    left, right = np.searchsorted(columns, boxes[:, 0]), np.searchsorted(columns, boxes[:, 2])
    top, bottom = np.searchsorted(rows, boxes[:, 1]), np.searchsorted(rows, boxes[:, 3])
    # Corners of boxes; summed along both axes they become the boxes.
    sums = np.zeros((2, len(rows), len(columns)))
    for layer, values in zip(sums, (np.ones(len(boxes)), np.asarray(weights, dtype=np.float64)), strict=True):
        np.add.at(layer, (top, left), values)
        np.add.at(layer, (bottom, right), values)
        np.subtract.at(layer, (top, right), values)
        np.subtract.at(layer, (bottom, left), values)
    counts, weighted = sums.cumsum(axis=1).cumsum(axis=2)[:, :-1, :-1]
    mean = np.divide(weighted, counts, out=np.zeros_like(counts), where=counts > 0.5)  # noqa: PLR2004 - a whole number
    return float(np.sum(mean * np.diff(rows)[:, None] * np.diff(columns)))
