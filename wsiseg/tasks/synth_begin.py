"""Beginning the GANs of patches, and seeing what became of those that were begun before."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.errors import BusyError, DataError
from wsiseg.lock import locked
from wsiseg.synthesis.gan_card import GanCard, changes, check_alike, is_begun, read_card
from wsiseg.synthesis.gan_files import PATCH, begin, is_foreign, read_tensors, remove
from wsiseg.tasks.synth_patches import densities_of, numbered

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.synthesis.settings import GanSettings
    from wsiseg.tasks.synth_patches import Chosen

logger = logging.getLogger(__name__)

# What annotating a patch anew changes of its card.
_OF_LABELS: Final = {"source", "offset_px"}


def begin_gans(
    output: Path, store: PatchSet, layer: str, chosen: Sequence[Chosen], settings: GanSettings, *, is_anew: bool
) -> list[Chosen]:
    """Begin the GANs of patches, or see that those that are there were begun alike.

    What was begun keeps its density, whatever else is fitted now. Where a patch has other labels now, its GAN begins
    anew.

    Parameters
    ----------
    output
        Gets a folder for the GAN of each patch.
    store, layer
        The patches, and their layer of instances.
    chosen
        What is learnt from.
    settings
        How.
    is_anew
        Begin all of them anew.

    Returns
    -------
    list[Chosen]
        Those that no other process is at.

    Raises
    ------
    DataError
        If one was begun otherwise, or something else is in the place of one; then none is begun.
    """
    cards = [
        GanCard(
            patch=one.name,
            parent=str(store.parents[one.index]),
            group=str(store.groups[one.index]),
            position=_position(store, one.index),
            offset_px=one.offset_px,
            mpp=store.mpp,
            layer=layer,
            labels=store.layers[layer].labels,
            density=density,
            source=one.example.fingerprint,
            settings=settings,
        )
        for one, density in zip(chosen, densities_of(chosen, settings.layout), strict=True)
    ]
    parts = [(one, output / one.name, card) for one, card in zip(chosen, cards, strict=True)]
    for one, folder, card in parts:
        if is_begun(folder) and not is_anew:
            _going_on(folder, card, store, one.index)
        elif is_foreign(folder):
            raise DataError(
                "the GAN of the patch would be here, and what is there is none",
                where=folder,
                mend="Choose another --output",
            )
    free = []
    for one, folder, card in parts:
        try:
            with locked(output / f".{one.name}.lock"):
                is_there = is_begun(folder) and not is_anew
                kept = _going_on(folder, card, store, one.index) if is_there else None
                if kept is None:
                    if is_there:
                        logger.warning("%s: the patch has other labels now, and its GAN begins anew", one.name)
                    # Also what is left of a folder that a kill kept from being removed.
                    remove(folder)
                begin(folder, kept or card, one.example)
        except BusyError:
            continue
        free.append(one)
    return free


def remove_stale(output: Path, store: PatchSet, layer: str, indices: Iterable[tuple[str, int]]) -> None:
    """Remove the GANs of patches, by name and index, that cannot be learnt from any more as their labels changed.

    GANs of other patches that have the same names stay, and those that another process is at.
    """
    for name, index in indices:
        folder = output / name
        try:
            with locked(output / f".{name}.lock"):
                if is_begun(folder) and _is_stale(folder, store, layer, index):
                    logger.warning("%s: the patch has other labels now, and its GAN is removed", name)
                    remove(folder)
        except BusyError:
            continue


def _going_on(folder: Path, card: GanCard, store: PatchSet, index: int) -> GanCard | None:
    """Return the card that a GAN goes on with, or None if it has to begin anew as its patch has other labels now."""
    before = read_card(folder)
    if card.settings.layout.density == "auto":
        card = card.model_copy(update={"density": before.density})
    changed = set(changes(before, card))
    if changed and changed <= _OF_LABELS and _has_same_image(folder, store, index):
        return None
    check_alike(folder, card)
    return card


def _is_stale(folder: Path, store: PatchSet, layer: str, index: int) -> bool:
    """Tell whether a GAN is of this very patch and layer, and of other labels than there are now."""
    card = read_card(folder)
    now = str(store.parents[index]), _position(store, index), store.mpp, layer
    if (card.parent, card.position, card.mpp, card.layer) != now or not _has_same_image(folder, store, index):
        return False
    return not _has_same_labels(folder, store, layer, index)


def _position(store: PatchSet, index: int) -> tuple[int, int]:
    x, y = store.positions[index].tolist()
    return x, y


def _has_same_image(folder: Path, store: PatchSet, index: int) -> bool:
    image = read_tensors(folder / PATCH)["image"].numpy()
    x, y = read_card(folder).offset_px
    side = len(image)
    return np.array_equal(store.read_images([index])[0, y : y + side, x : x + side], image)


def _has_same_labels(folder: Path, store: PatchSet, layer: str, index: int) -> bool:
    labels = read_tensors(folder / PATCH)["labels"].numpy()
    x, y = read_card(folder).offset_px
    side = len(labels)
    now = store.read_labels(layer, [index])[0, y : y + side, x : x + side]
    return bool((now >= 0).all()) and np.array_equal(numbered(now), labels)
