"""Stores of features that tests make up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wsiseg.selection.features import PoolFeatures
from wsiseg.stores.feature_store import FeatureMeta, FeatureStore

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def stored(path: Path, quadrants: NDArray[np.float32], *, chunk: int = 32) -> FeatureStore:
    """Return a store of these quadrants (n, 4, D), and of their means as patches."""
    count, _, dimensions = quadrants.shape
    meta = FeatureMeta(
        count=count,
        dimensions=dimensions,
        chunk=chunk,
        encoder="e",
        preproc="unit",
        precision="float32",
        weights="w",
        patches="p",
    )
    store = FeatureStore.prepare(path, meta)
    for rows in store.missing():
        own = quadrants[rows.start : rows.stop].astype(np.float16)
        store.write(
            rows,
            patches=own.mean(axis=1, dtype=np.float32).astype(np.float16),
            quadrants=own,
            appearance=np.ones((len(rows), 2), np.float32),
        )
    return store


def whole(store: FeatureStore, *, memory_bytes: int | None = None) -> PoolFeatures:
    """Return the features of all patches of a store."""
    return PoolFeatures(store, np.arange(len(store)), memory_bytes=memory_bytes)
