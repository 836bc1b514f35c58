"""Which patches are trained on and which are held out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from wsiseg.errors import DataError
from wsiseg.stores.patch_meta import SYNTHETIC

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


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

    Synthetic patches are never held out, and are not trained on where patches of the group that they were made from
    are held out or marked ``val`` or ``test``.

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
    total = sum(int(mask.sum()) for mask in usable)
    if total == 0:
        raise DataError(
            "no patch has labels to train on", where=f"layer {layer}", mend="Label some, or check their splits"
        )
    synthetic = [store.splits == SYNTHETIC for store in stores]
    real = [mask & ~made for mask, made in zip(usable, synthetic, strict=True)]
    if any(np.any(store.splits[mask] == "val") for store, mask in zip(stores, real, strict=True)):
        held_out = [store.splits == "val" for store in stores]
    elif val_fraction == 0:
        held_out = [np.zeros(len(store), dtype=np.bool_) for store in stores]
    else:
        chosen = _choose_groups(stores, real, val_fraction * sum(int(mask.sum()) for mask in real), seed)
        held_out = [
            np.isin(store.groups, sorted(chosen)) & ~made for store, made in zip(stores, synthetic, strict=True)
        ]
    judges = {
        str(group)
        for store, held in zip(stores, held_out, strict=True)
        for group in store.groups[held | np.isin(store.splits, ["val", "test"])]
    }
    result = []
    for store, mask, held, made in zip(stores, usable, held_out, synthetic, strict=True):
        is_leak = made & np.isin(store.groups.astype(str), sorted(judges))
        result.append((np.flatnonzero(mask & ~held & ~is_leak), np.flatnonzero(mask & held)))
    if not any(len(train) for train, _ in result):
        raise DataError("every labelled patch is held out, nothing is left to train on", where=f"layer {layer}")
    return result


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
