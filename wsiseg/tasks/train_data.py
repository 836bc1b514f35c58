"""What is trained and validated on: labels of pixels, from one or several stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsiseg.errors import ConfigError, DataError
from wsiseg.training.sources import Source, split_patches

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.stores.patches import LayerInfo
    from wsiseg.tasks.train_job import TrainConfig


def fingerprints(paths: Sequence[Path], stores: Sequence[PatchSet]) -> dict[str, str]:
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
    if any(info != found[0] for info in found):
        raise DataError(f"the layers {name!r} of the stores have different classes", mend="Train on them one by one")
    return name, found[0]


def sources(
    stores: Sequence[PatchSet], layer: str, mpp: float | None, config: TrainConfig
) -> tuple[list[Source], list[Source]]:
    """Return what to train and to validate on."""
    weights: Sequence[float | None] = config.weights or [None] * len(stores)
    if len(weights) != len(stores):
        raise ConfigError(f"{len(weights)} weights for {len(stores)} stores", where="weights", mend="Give one for each")
    splits = split_patches(stores, layer, val_fraction=config.val_fraction, seed=config.fit.seed)
    training, held_out = [], []
    for store, weight, (train_indices, val_indices) in zip(stores, weights, splits, strict=True):
        training.append(Source(patches=store, layer=layer, indices=train_indices, mpp=mpp, weight=weight))
        if len(val_indices):
            held_out.append(Source(patches=store, layer=layer, indices=val_indices, mpp=mpp))
    return training, held_out
