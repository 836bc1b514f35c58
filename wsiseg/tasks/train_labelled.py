"""Which patches a training may read the labels of, where these are named or drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsiseg.errors import DataError
from wsiseg.stores.patch_meta import SYNTHETIC
from wsiseg.stores.patches import patch_names, patch_places, real_places
from wsiseg.tasks.select_files import read_chosen, row_place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.stores.patches import Place
    from wsiseg.tasks.train_job import TrainConfig


def unit_of_draws(stores: Sequence[PatchSet], config: TrainConfig, *, has_patients: bool) -> str:
    """Return what of patch stores is drawn where only some labels may be used: patients, slides, images or patches.

    Parameters
    ----------
    stores
        As they were given.
    config
        Says whether single images or patches are.
    has_patients
        Whether several images may be of one patient.
    """
    if config.labelled_by != "patient":
        return {"image": "images", "patch": "patches"}[config.labelled_by]
    if has_patients:
        return "patients"
    return "slides" if all(part.meta.slide for store in stores for part in store.stores) else "images"


def patch_units(stores: Sequence[PatchSet], layer: str) -> list[NDArray[np.object_]]:
    """Return the name of each patch of each store, (N,) of str.

    Patches of images in different folders that share a name are called by these folders, too. Synthetic patches have
    the name of the patch that they were made from, so that nothing is learnt of one whose labels may not be read.

    Parameters
    ----------
    stores
        As they were given, each of which names its patches by itself.
    layer
        Layer of labels.
    """
    units = [np.array(patch_names(store), dtype=np.object_) for store in stores]
    owners: dict[str, set[str]] = {}
    for store, own in zip(stores, units, strict=True):
        for name, parent in zip(own.tolist(), store.parents.tolist(), strict=True):
            owners.setdefault(name, set()).add(parent)
    for store, own in zip(stores, units, strict=True):
        for index, (name, parent) in enumerate(zip(own.tolist(), store.parents.tolist(), strict=True)):
            if len(owners[name]) > 1:
                own[index] = parent + name.removeprefix(parent.rpartition("/")[2])
    known = _by_place(stores, units, layer)
    for store, own in zip(stores, units, strict=True):
        places = patch_places(store)
        for index in np.flatnonzero(store.splits == SYNTHETIC).tolist():
            own[index] = known.get(places[index], own[index])
    return units


def listed_patches(wanted: str, stores: Sequence[PatchSet], layer: str) -> list[str] | None:
    """Return the patches that a table lists, such as one of `wsiseg select`, by their names in the stores.

    Parameters
    ----------
    wanted
        Perhaps a table with a column ``patch``. Rows are found by slide and place where it tells these, else by name.
    stores, layer
        See `patch_units`.

    Returns
    -------
    list[str] | None
        None if it is no such table.

    Raises
    ------
    DataError
        If a row means several patches.
    """
    try:
        rows = read_chosen(Path(wanted))
    except (OSError, ValueError):
        return None
    units = patch_units(stores, layer)
    known = _by_place(stores, units, layer)
    found = [known.get(row_place(row), row["patch"]) for row in rows]
    counts = Counter(
        name
        for store, own in zip(stores, units, strict=True)
        if layer in store.layers
        for name in own[store.is_labelled(layer) & (store.splits != SYNTHETIC)].tolist()
    )
    if repeated := next((name for name in found if counts[name] > 1), None):
        raise DataError(
            f"{counts[repeated]} annotated patches are named {repeated!r}",
            where=wanted,
            mend="Pass the store of one of them alone, or rename its slide or image",
        )
    return found


def _by_place(stores: Sequence[PatchSet], units: Sequence[NDArray[np.object_]], layer: str) -> dict[Place, str]:
    """Return the names of real patches that may have labels by slide or image, x and y."""
    found: dict[Place, str] = {}
    for store, own in zip(stores, units, strict=True):
        if layer in store.layers:
            for place, indices in real_places(store).items():
                found.setdefault(place, own[indices[0]])
    return found
