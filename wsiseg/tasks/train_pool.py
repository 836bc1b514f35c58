"""Annotated, synthetic and unlabelled patches: which of them a method with pseudo-labels learns from, and how often."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from wsiseg.errors import DataError
from wsiseg.stores.patch_meta import SYNTHETIC
from wsiseg.tasks.patch_places import Places, are_repeats, known_box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.tasks.train_data import TrainingData
    from wsiseg.training.sources import Source, UnlabelledSource


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

    Patches without labels that show what is labelled on the same slide or image are left out, be these labels learnt
    from or held out, or to be ignored. So are annotated patches of which no more is known than of another, which holds
    all of it.

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
    pool = apart(stores, data.unlabelled, (*real, *data.held_out, *data.set_aside))
    real = _without_repeats([(store, source) for store in stores for source in real if source.patches is store])
    if not pool:
        raise DataError(
            "there is no patch without labels that could get pseudo-labels",
            mend="Add stores of such patches, or pass --method supervised",
        )
    return Kinds(real=real, synthetic=synthetic, pool=pool)


def apart(stores: Sequence[PatchSet], candidates: Sequence[UnlabelledSource], used: Sequence[Source]) -> Pool:
    """Return the candidates that show no pixel of slides or images of which something is known by `used` patches.

    Of patches that are known in part a box around that part counts.

    Parameters
    ----------
    stores
        That both are in.
    candidates, used
        Patches of these stores. Of those that have no layer all counts as known.
    """
    parts = [(store, source) for store in stores for source in candidates if source.patches is store]
    places = Places.of(parts)
    is_free = np.ones(len(places.boxes), dtype=np.bool_)
    for store, source in ((store, source) for store in stores for source in used if source.patches is store):
        taken = Places.of([(store, source)])
        for parent, box, index in zip(taken.parents, taken.boxes, source.indices.tolist(), strict=True):
            if (places.meets(parent, box) & is_free).any():
                is_free &= ~places.meets(parent, known_box(source, index, box))
    ends = np.cumsum([len(source.indices) for _, source in parts])
    pool = []
    for (store, source), own in zip(parts, np.split(is_free, ends)[:-1], strict=True):
        if own.any():
            pool.append((store, replace(source, indices=source.indices[own])))
    return pool


def drawn(pool: Pool, count: int, *, seed: int) -> Pool:
    """Return at most so many patches of a pool, drawn at random; fewer are a part of more."""
    ends = np.cumsum([len(source.indices) for _, source in pool])
    is_drawn = np.zeros(ends[-1], dtype=np.bool_)
    is_drawn[np.random.default_rng((seed, 6)).permutation(len(is_drawn))[:count]] = True
    parts = zip(pool, np.split(is_drawn, ends)[:-1], strict=True)
    return [(store, replace(source, indices=source.indices[own])) for (store, source), own in parts if own.any()]


def for_teacher(kinds: Kinds, *, real: float) -> list[Source]:
    """Return annotated and synthetic patches, of which the first have the part `real` of the draws."""
    return _weighted((kinds.real, real), (kinds.synthetic, 1 - real))


def for_student(kinds: Kinds, shares: tuple[float, float, float], *, batch_size: int) -> tuple[list[Source], int]:
    """Return what a student learns from beside pseudo-labels, and how many images of a batch have these.

    Parameters
    ----------
    kinds
        What there is.
    shares
        Parts of the images that are annotated, synthetic and pseudo-labelled. Where there are no synthetic ones, the
        others share what is left in the same proportion.
    batch_size
        Images, 2 or more.
    """
    real, synthetic, pseudo = shares
    part = pseudo / (real + pseudo + (synthetic if kinds.synthetic else 0))
    count = min(max(1, round(part * batch_size)), batch_size - 1)
    return _weighted((kinds.real, real), (kinds.synthetic, synthetic)), count


def _weighted(*kinds: tuple[Sequence[Source], float]) -> list[Source]:
    """Return sources of several kinds, each with a part of the draws; within a kind, by area."""
    found = []
    for sources, share in kinds:
        areas = [float(source.areas().sum()) for source in sources]
        found += [
            replace(source, weight=share * area / sum(areas)) for source, area in zip(sources, areas, strict=True)
        ]
    return found


def _without_repeats(parts: Sequence[tuple[PatchSet, Source]]) -> list[Source]:
    """Return sources without the patches that would be learnt from many times over; see `are_repeats`."""
    is_repeat = are_repeats(parts)
    ends = np.cumsum([len(source.indices) for _, source in parts])
    found = []
    for (_, source), own in zip(parts, np.split(~is_repeat, ends)[:-1], strict=True):
        if own.any():
            found.append(replace(source, indices=source.indices[own]))
    return found


def _count(sources: Sequence[Source]) -> int:
    return sum(len(source.indices) for source in sources)
