"""Which patches GANs learn from and what of them, and which GANs were made from patches that a selection chose."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.errors import ConfigError, DataError, NothingMatchedError
from wsiseg.nets.csingan import SMALLEST_SIDE_PX
from wsiseg.stores.patch_meta import SYNTHETIC
from wsiseg.stores.patches import patch_names
from wsiseg.synthesis.gan_card import read_card
from wsiseg.synthesis.gan_files import Example
from wsiseg.synthesis.nucleus_bank import NucleusBank, bank_of
from wsiseg.tasks.select_files import find_rows, match_rows, read_chosen, row_place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.synthesis.layouts import Density, LayoutSettings
    from wsiseg.synthesis.settings import GanSettings

logger = logging.getLogger(__name__)

# More than this of unknown pixels, and masks of the patch would say too often that nothing is where nuclei are.
MOST_IGNORED: Final = 0.05
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chosen:
    """A patch to learn from.

    Parameters
    ----------
    name, index
        What it is called, and its place in the stores.
    example
        What is learnt from: the patch, or the square of it with most nuclei.
    offset_px
        x, y of that square in the patch.
    bank
        Its nuclei.
    """

    name: str
    index: int
    example: Example
    offset_px: tuple[int, int]
    bank: NucleusBank


def chosen_patches(
    store: PatchSet, layer: str, names: Sequence[str], selection: Path | None, settings: GanSettings
) -> tuple[list[Chosen], dict[int, DataError]]:
    """Return the patches that were named, or those of a selection, and why others of it are left out, by index.

    Parameters
    ----------
    store
        All stores.
    layer
        A layer of instances.
    names
        Names of patches, as `patch_names` gives them.
    selection
        Table of wsiseg select, whose rows of rank 1 are taken, as far as they can be learnt from.
    settings
        How GANs are trained.

    Raises
    ------
    ConfigError
        If both are given, or neither.
    DataError
        If a patch is not there or is synthetic, or one that was named cannot be learnt from.
    """
    if bool(names) == (selection is not None):
        raise ConfigError(
            "either patches or a selection must be named", where="--patch", mend="Pass --patch ID, or --selection FILE"
        )
    known = patch_names(store)
    rows = [{"patch": name} for name in names] if selection is None else first_choices(selection)
    indices = [
        _only(row["patch"], found, store, known, selection)
        for row, found in zip(rows, find_rows(rows, store), strict=True)
    ]
    chosen: list[Chosen] = []
    refused: dict[int, DataError] = {}
    for index in dict.fromkeys(indices):
        try:
            chosen.append(_chosen(store, layer, index, known[index], settings))
        except DataError as error:
            # Who names a patch wants this one; what else was selected is as good without it.
            if selection is None:
                raise
            refused[index] = error
    return chosen, refused


def densities_of(chosen: Sequence[Chosen], settings: LayoutSettings) -> list[Density]:
    """Return how densely new nuclei of each patch lie: by how much nuclei cover of it, compared with the others."""
    if settings.density != "auto":
        return [settings.density] * len(chosen)
    if not chosen:
        return []
    median = float(np.median([one.bank.coverage for one in chosen]))
    return ["dense" if one.bank.coverage > median else "normal" for one in chosen]


def _only(name: str, found: Sequence[int], store: PatchSet, known: Sequence[str], selection: Path | None) -> int:
    """Return the one patch that was found."""
    if len(found) == 1:
        return found[0]
    where = "--patch" if selection is None else selection
    if found:
        raise DataError(f"{len(found)} patches are named {name!r}", where=where, mend="Pass its store alone")
    if name in known:
        raise DataError("the patch is synthetic itself", where=name, mend="Choose a real one")
    some = dict.fromkeys(one for one, split in zip(known, store.splits, strict=True) if split != SYNTHETIC)
    mend = (
        f"Name one as {', '.join(list(some)[:_SHOWN])}" if selection is None else "Pass all stores that it chose from"
    )
    raise DataError(f"no patch is named {name!r}", where=where, mend=mend)


def first_choices(selection: Path) -> list[dict[str, str]]:
    """Return the rows of the patches that a selection chose first.

    Raises
    ------
    DataError
        If it cannot be read, or names none.
    """
    try:
        rows = read_chosen(selection)
    except OSError as error:
        raise DataError("the selection cannot be read", where=selection) from error
    except ValueError:
        rows = []
    if not rows:
        raise DataError("the selection names no patch", where=selection, mend="Pass the selection.csv of wsiseg select")
    return rows


def chosen_gans(folders: Sequence[Path], selections: Sequence[Path]) -> list[Path]:
    """Return the folders of the GANs of the patches that selections chose first, and name those that have none.

    Raises
    ------
    DataError
        If a selection cannot be read, or names none.
    NothingMatchedError
        If there is no GAN of any.
    """
    rows = [row for selection in selections for row in first_choices(selection)]
    cards = [read_card(folder) for folder in folders]
    places = [(card.parent, str(card.position[0]), str(card.position[1])) for card in cards]
    found = match_rows(rows, places, [card.patch for card in cards])
    if not any(found):
        raise NothingMatchedError(
            "there is no GAN of a patch that is chosen", where=selections[0], mend="Make them with wsiseg synth fit"
        )
    # Two selections may have chosen one patch, and two patches may have one name.
    patches = {(row["patch"], *row_place(row)): bool(own) for row, own in zip(rows, found, strict=True)}
    if without := [name for (name, *_), has_gan in patches.items() if not has_gan]:
        logger.warning(
            "%s: %d of %d chosen patches have no GAN: %s. Unless they could not be learnt from, make them with wsiseg "
            "synth fit",
            ", ".join(map(str, selections)),
            len(without),
            len(patches),
            ", ".join(without),
        )
    return [folders[at] for at in sorted({at for own in found for at in own})]


def _chosen(store: PatchSet, layer: str, index: int, name: str, settings: GanSettings) -> Chosen:
    if not store.is_labelled(layer)[index]:
        raise DataError(
            f"the patch has no labels in the layer {layer!r}", where=name, mend="Label it with wsiseg label"
        )
    width, height = store.extents[index].tolist()
    image = store.read_images([index])[0, :height, :width]
    labels = store.read_labels(layer, [index])[0, :height, :width].astype(np.int32)
    ignored = float((labels < 0).mean())
    if ignored > MOST_IGNORED:
        raise DataError(
            f"{ignored:.0%} of the patch are marked as unknown",
            where=name,
            mend="Annotate all nuclei of the patch, to its border",
        )
    labels = np.maximum(labels, 0)
    side = min(settings.largest_px, width, height)
    x, y = _busiest(labels > 0, side)
    part = np.s_[y : y + side, x : x + side]
    if (width, height) != (side, side):
        logger.info("%s: of %d × %d px the square of %d px at %d, %d is learnt from", name, width, height, side, x, y)
    example = Example(image=np.ascontiguousarray(image[part]), labels=numbered(labels[part]))
    lowest = example.sides(settings)[0]
    if lowest < SMALLEST_SIDE_PX:
        raise DataError(
            f"a patch of {side} px is too small: its lowest scale would have {lowest} px, and at least "
            f"{SMALLEST_SIDE_PX} are needed",
            where=name,
            mend=f"Choose a larger patch, or raise --set smallest_px={settings.smallest_px}",
        )
    return Chosen(name=name, index=index, example=example, offset_px=(x, y), bank=bank_of(example.labels, where=name))


def numbered(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return labels with nuclei numbered from 1 by their first pixels, whatever they were called."""
    ids, first, owner = np.unique(labels, return_index=True, return_inverse=True)
    nuclei = np.flatnonzero(ids)
    numbers = np.zeros(len(ids), dtype=np.int32)
    numbers[nuclei[np.argsort(first[nuclei])]] = np.arange(1, len(nuclei) + 1)
    numbered: NDArray[np.int32] = numbers[owner.reshape(labels.shape)]
    return numbered


def _busiest(mask: NDArray[np.bool_], side: int) -> tuple[int, int]:
    """Return x, y of the square that holds most of a mask; of equal ones that nearest to the corner."""
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), dtype=np.int64)
    sums[1:, 1:] = mask.cumsum(axis=0).cumsum(axis=1)
    held = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    y, x = np.unravel_index(int(held.argmax()), held.shape)
    return int(x), int(y)
