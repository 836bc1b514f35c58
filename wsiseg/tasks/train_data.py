"""What is trained and validated on: labels of pixels, from one or several stores."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from wsiseg.errors import ConfigError, DataError
from wsiseg.stores.patch_meta import SYNTHETIC
from wsiseg.stores.patch_set import are_alike
from wsiseg.tasks.patch_places import are_set_aside
from wsiseg.tasks.train_labelled import listed_patches, patch_units, unit_of_draws
from wsiseg.training.labelled import part_labelled, without_labels
from wsiseg.training.sources import Source, UnlabelledSource
from wsiseg.training.splits import split_patches

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.stores.patches import LayerInfo
    from wsiseg.tasks.train_job import TrainConfig


logger = logging.getLogger(__name__)


class Fingerprinted(Protocol):
    """A store that knows what it was made from."""

    @property
    def fingerprint(self) -> str:
        """Return the hash of that."""
        ...


def fingerprints(paths: Sequence[Path], stores: Sequence[Fingerprinted]) -> dict[str, str]:
    """Return the fingerprint of each store by its name, numbered where several have one."""
    names = [path.resolve().name for path in paths]
    numbered = [name if names.count(name) == 1 else f"{name} ({at})" for at, name in enumerate(names, start=1)]
    return {name: store.fingerprint for name, store in zip(numbered, stores, strict=True)}


def common_layer(stores: Sequence[PatchSet], name: str | None) -> tuple[str, LayerInfo]:
    """Return the layer to train on, the same in all stores; pseudo-labels only if they are asked for."""
    # How sure labels are is nothing to learn.
    infos = {layer: info for store in stores for layer, info in store.layers.items() if info.kind != "confidence"}
    known, given = sorted(infos), sorted(layer for layer, info in infos.items() if not info.made_by)
    if not known:
        raise DataError(
            "the stores have no layer of labels", mend="Make them with wsiseg ingest --labels-as, or import labels"
        )
    if name is None and len(given) > 1:
        raise ConfigError(
            "the stores have several layers of labels", mend=f"Pass --layer with one of {', '.join(given)}"
        )
    if name is None and not given:
        raise DataError(
            "the stores have pseudo-labels only",
            mend=f"Give them labels, or pass --layer with one of {', '.join(known)}",
        )
    name = name or given[0]
    for store in stores:
        if name not in known or name not in store.layers:
            raise DataError(
                f"a store has no layer {name!r}",
                where=", ".join(sorted(set(store.parents))[:3]),
                mend=f"There are: {', '.join(layer for layer in known if layer in store.layers) or 'none'}",
            )
    found = [store.layers[name] for store in stores]
    if not all(are_alike(found[0], info) for info in found):
        raise DataError(f"the layers {name!r} of the stores have different classes", mend="Train on them one by one")
    return name, found[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """What a network learns from and is judged by.

    Parameters
    ----------
    layer, info
        The layer of labels, and what it holds.
    labelled, unlabelled
        What is learnt from with labels and without.
    held_out
        What models are chosen by.
    set_aside
        Patches that are neither of these, as their labels say that they are to be ignored whole.
    chosen
        The patients, slides, images or patches whose labels are used, where not all of them are.
    has_patients
        Whether several images may be of one patient, who is never on both sides; else images stand for themselves.
    """

    layer: str
    info: LayerInfo
    labelled: list[Source]
    unlabelled: list[UnlabelledSource]
    held_out: list[Source]
    set_aside: list[Source]
    chosen: list[str] | None
    has_patients: bool

    @property
    def fingerprint(self) -> str:
        """Return a hash of the labels that are learnt from and judged by."""
        sources = " ".join(source.fingerprint for source in (*self.labelled, *self.held_out))
        return hashlib.blake2b(sources.encode(), digest_size=16).hexdigest()


def training_data(
    stores: Sequence[PatchSet], mpp: float | None, config: TrainConfig, *, takes_unlabelled: bool
) -> TrainingData:
    """Return what to train and to validate on.

    Parameters
    ----------
    stores
        As the user gave them.
    mpp
        Micrometres per pixel to train at.
    config
        Layer, splits, weights, and which labels may be used.
    takes_unlabelled
        Whether the method learns from images without labels; stores that have no labels are for it alone, and
        left out for others.

    Raises
    ------
    ConfigError, DataError
        If the stores do not go together, or nothing is left to train on.
    """
    with_layer = [store for store in stores if _has_labels(store, config.layer)]
    layer, info = common_layer(with_layer or stores, config.layer)
    if not takes_unlabelled and 0 < len(with_layer) < len(stores):
        logger.info(
            "%d of %d stores have no layer %r and are left out, as %s learns from labels alone",
            len(stores) - len(with_layer), len(stores), layer, config.method,
        )  # fmt: skip
    weights: Sequence[float | None] = config.weights or [None] * len(stores)
    if len(weights) != len(stores):
        raise ConfigError(f"{len(weights)} weights for {len(stores)} stores", where="weights", mend="Give one for each")
    seed = config.fit.seed if config.split_seed is None else config.split_seed
    has_patients = any(np.any(store.groups != store.parents) for store in stores)
    training, held_out, chosen = _divided(stores, layer, config, seed, has_patients=has_patients)
    data = TrainingData(
        layer=layer,
        info=info,
        labelled=[],
        unlabelled=[],
        held_out=[],
        set_aside=[],
        chosen=chosen,
        has_patients=has_patients,
    )
    free = without_labels(stores, training, held_out)
    for store, weight, train, val, rest in zip(stores, weights, training, held_out, free, strict=True):
        if layer in store.layers:
            source = Source(patches=store, layer=layer, indices=train, mpp=mpp, weight=weight)
            data.labelled.append(_without_set_aside(source, data.set_aside))
        if len(val):
            source = Source(patches=store, layer=layer, indices=val, mpp=mpp)
            data.held_out.append(_without_set_aside(source, data.set_aside))
        if takes_unlabelled and len(rest):
            data.unlabelled.append(UnlabelledSource(patches=store, layer="", indices=rest, mpp=mpp, weight=weight))
    _check_left(data)
    return data


def _without_set_aside(source: Source, aside: list[Source]) -> Source:
    """Return a source without the patches that are to be ignored whole, which are added to `aside`.

    Nothing can be learnt from them, and any model is perfect on them. That is only looked at once it is known which
    labels may be read.
    """
    is_aside = are_set_aside(source)
    if is_aside.any():
        aside.append(replace(source, indices=source.indices[is_aside]))
    return replace(source, indices=source.indices[~is_aside])


def _check_left(data: TrainingData) -> None:
    """See that not all patches to train on, or all that are held out, are to be ignored whole."""
    if not data.set_aside:
        return
    if not any(np.any(source.patches.splits[source.indices] != SYNTHETIC) for source in data.labelled):
        raise DataError(
            "all annotated patches to train on are to be ignored whole",
            mend="Annotate others, or hold out others (--set split_seed=1, or --val-fraction 0)",
        )
    if data.held_out and not any(len(source.indices) for source in data.held_out):
        raise DataError(
            "all patches that are held out are to be ignored whole",
            mend="Hold out others (--set split_seed=1), or none (--val-fraction 0)",
        )


def _has_labels(store: PatchSet, layer: str | None) -> bool:
    """Tell whether a store has a layer of labels; pseudo-labels count only if they are asked for."""
    return layer in store.layers if layer else any(not info.made_by for info in store.layers.values())


def _divided(
    stores: Sequence[PatchSet], layer: str, config: TrainConfig, seed: int, *, has_patients: bool
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]], list[str] | None]:
    """Return the patches of each store to train on with labels and to validate on, and what was drawn."""
    is_drawn_first = config.labelled is not None and config.val_from == "labelled"
    fraction = 0 if is_drawn_first else config.val_fraction
    splits = split_patches(stores, layer, val_fraction=fraction, seed=seed)
    training, held_out = [train for train, _ in splits], [val for _, val in splits]
    if config.labelled is None:
        return training, held_out, None
    listed = listed_patches(config.labelled, stores, layer)
    units, what = None, unit_of_draws(stores, config, has_patients=has_patients)
    if config.labelled_by == "patch" or listed is not None:
        units, what = patch_units(stores, layer), "patches"
    elif config.labelled_by == "image":
        units = [store.parents for store in stores]
    training, chosen = part_labelled(
        stores, training, config.labelled, seed=seed, units=units, what=what, listed=listed
    )
    # Where the stores mark what is held out, that has been done.
    if is_drawn_first and not any(len(val) for val in held_out):
        splits = split_patches(stores, layer, val_fraction=config.val_fraction, seed=seed, within=training)
        training, held_out = [train for train, _ in splits], [val for _, val in splits]
    return training, held_out, chosen


def roles(stores: Sequence[PatchSet], data: TrainingData) -> str:
    """Return what each image is to a training, as CSV.

    Parameters
    ----------
    stores
        As they were given to `training_data`.
    data
        What that returned.

    Returns
    -------
    str
        A row with image, group, role and the number of patches for each image and each role that patches of it have:
        train-labelled, train-synthetic, train-unlabelled, val, test or unused. What a network made of an
        image stands with that image.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    parts: dict[str, Sequence[Source]] = {
        "train-unlabelled": data.unlabelled,
        "train-labelled": data.labelled,
        "val": data.held_out,
    }
    for store in stores:
        own = np.where(store.splits == "test", "test", "unused").astype(np.object_)
        for role, sources in parts.items():
            for source in sources:
                if source.patches is store:
                    own[source.indices] = role
        own[(own == "train-labelled") & (store.splits == SYNTHETIC)] = "train-synthetic"
        counts.update(zip(store.parents.tolist(), store.groups.tolist(), own.tolist(), strict=True))
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("image", "group", "role", "patches"))
    writer.writerows((*row, count) for row, count in counts.items())
    return file.getvalue()


def judging_data(stores: Sequence[PatchSet], layer: str, mpp: float | None) -> list[Source]:
    """Return the labelled patches that are marked ``test``.

    Raises
    ------
    DataError
        If there is none.
    """
    found = []
    for store in stores:
        if layer in store.layers:
            indices = np.flatnonzero(store.is_labelled(layer) & (store.splits == "test"))
            found.append(_without_set_aside(Source(patches=store, layer=layer, indices=indices, mpp=mpp), []))
    if not any(len(source.indices) for source in found):
        raise DataError("no patch that is marked test has labels", where=f"layer {layer}")
    return found
