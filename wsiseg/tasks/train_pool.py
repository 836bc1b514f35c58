"""Annotated, synthetic and unlabelled patches: which of them a method with pseudo-labels learns from, and how often."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from wsiseg.errors import DataError
from wsiseg.stores.patch_meta import SYNTHETIC

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.tasks.train_data import TrainingData
    from wsiseg.training.sources import Source, UnlabelledSource


# Edges of stores of different resolutions that are one edge may differ so much.
_SLIGHT_PX: Final = 1e-3
# Patches to label, and the stores that they are in.
Pool: TypeAlias = "list[tuple[PatchSet, UnlabelledSource]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinds:
    """What is learnt from, by how its labels came about.

    Parameters
    ----------
    real, synthetic
        Patches with labels.
    pool
        Patches that get pseudo-labels, and the stores that they are in; none of them shows a pixel of `real`.
    """

    real: list[Source]
    synthetic: list[Source]
    pool: Pool

    def __str__(self) -> str:
        real, synthetic, pool = (_count(part) for part in (self.real, self.synthetic, [one for _, one in self.pool]))
        return f"{real} annotated and {synthetic} synthetic patches, {pool} without labels"


def kinds_of(stores: Sequence[PatchSet], data: TrainingData) -> Kinds:
    """Return what is to be learnt from.

    Patches without labels that overlap one with labels on the same slide or image are left out, be these labels
    learnt from or held out.

    Raises
    ------
    DataError
        If no patch is annotated, or all of them are.
    """
    real: list[Source] = []
    synthetic: list[Source] = []
    for source in data.labelled:
        is_synthetic = source.patches.splits[source.indices] == SYNTHETIC
        for part, own in ((real, ~is_synthetic), (synthetic, is_synthetic)):
            if own.any():
                part.append(replace(source, indices=source.indices[own]))
    if not real:
        raise DataError("no annotated patch is left to train on", mend="Add the store that they were annotated in")
    pool = apart(stores, data.unlabelled, (*real, *data.held_out))
    if not pool:
        raise DataError(
            "there is no patch without labels that could get pseudo-labels",
            mend="Add stores of such patches, or pass --method supervised",
        )
    return Kinds(real=real, synthetic=synthetic, pool=pool)


def apart(stores: Sequence[PatchSet], candidates: Sequence[UnlabelledSource], used: Sequence[Source]) -> Pool:
    """Return the candidates that show no pixel of slides or images that `used` patches show.

    Parameters
    ----------
    stores
        That both are in.
    candidates, used
        Patches of these stores.
    """
    taken = [_places(store, [one for one in used if one.patches is store]) for store in stores]
    pool = []
    for store in stores:
        for source in (one for one in candidates if one.patches is store):
            is_free = ~_overlap(_places(store, [source]), taken)
            if is_free.any():
                pool.append((store, replace(source, indices=source.indices[is_free])))
    return pool


def weighted(*kinds: tuple[Sequence[Source], float]) -> list[Source]:
    """Return sources of several kinds, each with a part of the draws; within a kind, by area."""
    found = []
    for sources, share in kinds:
        areas = [float(source.areas().sum()) for source in sources]
        found += [
            replace(source, weight=share * area / sum(areas)) for source, area in zip(sources, areas, strict=True)
        ]
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Places:
    """Where patches lie: names of slides or images (n,), and x0, y0, x1, y1 in level-0 pixels (n, 4)."""

    parents: NDArray[np.object_]
    boxes: NDArray[np.float64]


def _places(store: PatchSet, sources: Sequence[Source]) -> _Places:
    indices = np.concatenate([np.empty(0, dtype=np.int64), *(source.indices for source in sources)])
    boxes = []
    for one in store.stores:
        # Of images the canvas is the image. Positions are rounded, so that patches that touch would seem to overlap.
        scale = 1.0 if one.meta.grid is None else one.meta.grid.downsample
        boxes.append(np.concatenate((one.windows, one.windows + one.extents), axis=1) * scale)
    return _Places(parents=store.parents[indices], boxes=np.concatenate(boxes)[indices])


def _overlap(places: _Places, others: Sequence[_Places]) -> NDArray[np.bool_]:
    """Tell which places share pixels with any of the others, (n,)."""
    parents = np.concatenate([one.parents for one in others])
    boxes = np.concatenate([one.boxes for one in others])
    result = np.zeros(len(places.parents), dtype=np.bool_)
    for parent, box in zip(parents, boxes, strict=True):
        shared = np.minimum(places.boxes[:, 2:], box[2:]) - np.maximum(places.boxes[:, :2], box[:2])
        meets = shared > _SLIGHT_PX
        result |= (places.parents == parent) & meets.all(axis=1)
    return result


def _count(sources: Sequence[Source]) -> int:
    return sum(len(source.indices) for source in sources)
