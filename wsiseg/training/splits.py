"""Which patches are trained on and which are held out."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from wsiseg.errors import DataError
from wsiseg.stores.patch_meta import SYNTHETIC

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_TO_PART: Final = "If these are to be parted, tell another patient_id of each with wsiseg ingest --split TABLE.csv"


class Divisible(Protocol):
    """What can be divided into what is learnt from and what is held out: patches, or volumes."""

    def __len__(self) -> int: ...

    @property
    def groups(self) -> NDArray[np.object_]:
        """Return what must stay together, (N,) of str."""
        ...

    @property
    def splits(self) -> NDArray[np.object_]:
        """Return train, val, test, unlabelled, synthetic or nothing for each, (N,) of str."""
        ...

    @property
    def layers(self) -> Mapping[str, object]:
        """Return the layers of labels by name."""
        ...

    def is_labelled(self, layer: str) -> NDArray[np.bool_]:
        """Tell which have labels in `layer`, (N,)."""
        ...


def split_patches(
    stores: Sequence[Divisible],
    layer: str,
    *,
    val_fraction: float,
    seed: int,
    within: Sequence[NDArray[np.int64]] | None = None,
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return the indices of training and validation patches for each store.

    Patches without labels and those marked ``test`` or ``unlabelled`` are left out. Where any
    patch is marked ``val``, the marks decide. Otherwise whole groups (patients, else slides or
    images) are held out, so that no image is on both sides, also across stores.

    Where patches of a group are held out or marked ``val`` or ``test``, no other patch of it is trained on, and where
    some are marked ``test``, none is held out; a word is said of those that are left out so. Synthetic patches are of
    the group that they were made from, and never held out.

    Parameters
    ----------
    stores
        Those without the layer have nothing to give.
    layer
        Layer of labels.
    val_fraction
        Share of the labelled patches to hold out; at least one group unless 0.
    seed
        Decides which groups are held out.
    within
        Patches of each store to which both are limited; None for all.

    Raises
    ------
    DataError
        If nothing is left to train on or to hold out.
    """
    usable = [
        store.is_labelled(layer) & ~np.isin(store.splits, ["test", "unlabelled"])
        if layer in store.layers
        else np.zeros(len(store), dtype=np.bool_)
        for store in stores
    ]
    if within is not None:
        usable = [mask & np.isin(np.arange(len(mask)), own) for mask, own in zip(usable, within, strict=True)]
    if not any(np.any(mask) for mask in usable):
        raise DataError(
            "no patch has labels to train on", where=f"layer {layer}", mend="Label some, or check their splits"
        )
    tested = groups_of(stores, [store.splits == "test" for store in stores])
    may_judge = [
        mask & (store.splits != SYNTHETIC) & ~are_of(store, tested) for store, mask in zip(stores, usable, strict=True)
    ]
    if any(np.any(store.splits[mask] == "val") for store, mask in zip(stores, may_judge, strict=True)):
        held_out = [mask & (store.splits == "val") for store, mask in zip(stores, may_judge, strict=True)]
    elif val_fraction == 0 or tested.issuperset(groups_of(stores, usable)):
        held_out = [np.zeros(len(store), dtype=np.bool_) for store in stores]
    else:
        chosen = _choose_groups(stores, may_judge, val_fraction * sum(int(mask.sum()) for mask in may_judge), seed)
        held_out = [mask & are_of(store, chosen) for store, mask in zip(stores, may_judge, strict=True)]
    marked = groups_of(stores, [store.splits == "val" for store in stores])
    judged = tested | marked | groups_of(stores, held_out)
    training = [mask & ~are_of(store, judged) for store, mask in zip(stores, usable, strict=True)]
    if not any(np.any(mask) for mask in training):
        raise DataError(
            "all labelled patches are of patients, slides or images that are tested or held out",
            where=f"layer {layer}",
            mend=_TO_PART,
        )
    lost = sum(
        int((mask & (store.splits != SYNTHETIC) & ~train & ~held).sum())
        for store, mask, train, held in zip(stores, usable, training, held_out, strict=True)
    )
    if lost:
        # A study divides the same data for each of its trainings.
        logger.warning(
            "%d labelled patches are left out, as others of their patients, slides or images are marked val or test. "
            "%s",
            lost,
            _TO_PART,
            extra={"once": True},
        )
    return [(np.flatnonzero(train), np.flatnonzero(held)) for train, held in zip(training, held_out, strict=True)]


def groups_of(stores: Sequence[Divisible], masks: Sequence[NDArray[np.bool_]]) -> set[str]:
    """Return the groups of some patches of all stores."""
    return {str(group) for store, mask in zip(stores, masks, strict=True) for group in store.groups[mask]}


def are_of(store: Divisible, groups: set[str]) -> NDArray[np.bool_]:
    """Tell which patches of a store are of one of some groups, (N,)."""
    return np.isin(store.groups.astype(str), sorted(groups))


def _choose_groups(
    stores: Sequence[Divisible], usable: Sequence[NDArray[np.bool_]], wanted: float, seed: int
) -> set[str]:
    counts: dict[str, int] = {}
    for store, mask in zip(stores, usable, strict=True):
        for group in store.groups[mask].tolist():
            counts[group] = counts.get(group, 0) + 1
    if not counts:
        raise DataError(
            "all labelled patches are synthetic, so none can be held out for validation",
            mend="Add stores of real patches, or pass --val-fraction 0",
        )
    if len(counts) == 1:
        raise DataError(
            "all labelled patches come from one image or patient, so none can be held out for validation",
            mend="Add data, mark splits in the store, or pass --val-fraction 0",
        )
    names = sorted(counts)
    order = [names[place] for place in np.random.default_rng((seed, 1)).permutation(len(names))]
    chosen: set[str] = set()
    held = 0
    # The last group always stays for training.
    for group in order[:-1]:
        if chosen and held + counts[group] / 2 > wanted:
            break
        chosen.add(group)
        held += counts[group]
    return chosen
