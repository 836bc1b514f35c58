"""The part of the canvas that is painted but not yet on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.atomic import sync, sync_names
from wsiseg.stores.mask_layers import DTYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from wsiseg.geometry import Window
    from wsiseg.stores.mask_layers import LabelArray, Layer
    from wsiseg.stores.mask_store import MaskStore

# Stands on pixels of objects that were dropped, so that whether they were does not decide who gets the pixels.
CLAIMED: Final = np.uint32(0xFFFFFFFF)


class Bands:
    """Shards in memory, made when first painted and given up when written.

    Parameters
    ----------
    store
        Where they go.
    closed
        Number of bands that are on disk already; painting there has no effect on the disk.
    """

    def __init__(self, store: MaskStore, *, closed: int) -> None:
        self._store = store
        self._closed = closed
        self._shards: dict[tuple[Layer, int, int], LabelArray] = {}

    def get(self, layer: Layer, window: Window) -> LabelArray:
        """Return a copy of what is painted in `window`; what the store holds unwritten where nothing is."""
        values = np.full(self._store.shape(layer, window), self._store.fill(layer), dtype=DTYPES[layer])
        for key, place, part in self._parts(layer, window):
            shard = self._shards.get(key)
            if shard is not None:
                values[..., *part.within(window).slices] = shard[..., *part.within(place).slices]
        return values

    def paint(
        self, layer: Layer, window: Window, values: LabelArray, *, where: NDArray[np.bool_] | None = None
    ) -> None:
        """Paint `values`, of the layer's shape in `window`, on the pixels that `where`, (H, W), says, or on all."""
        fill = self._store.fill(layer)
        for key, place, part in self._parts(layer, window):
            inner = part.within(window).slices
            if key not in self._shards:
                if not (values[..., *inner] != fill if where is None else where[inner]).any():
                    continue
                # Fresh zeros take no memory until they are painted.
                blank = np.zeros(self._store.shape(layer, place), dtype=DTYPES[layer])
                if fill:
                    blank.fill(fill)
                self._shards[key] = blank
            target = self._shards[key][..., *part.within(place).slices]
            if where is None:
                target[:] = values[..., *inner]
            else:
                np.copyto(target, values[..., *inner], where=where[inner])

    def write_settled(self, bottom: int, right: int) -> None:
        """Write the shards above `bottom` and left of `right` to disk and give up their memory."""
        settled = [
            key
            for key in self._shards
            if self._store.shard(*key[1:]).bottom <= bottom and self._store.shard(*key[1:]).right <= right
        ]
        for key in settled:
            self._write(key, self._shards.pop(key))

    def _write(self, key: tuple[Layer, int, int], shard: LabelArray) -> None:
        layer, band, column = key
        if band < self._closed:
            return
        if layer == "instances":
            shard[shard == CLAIMED] = 0
        window = self._store.shard(band, column)
        self._store.write(layer, window, shard)
        file = self._store.shard_path(layer, window)
        if file.exists():
            # The journal must never know of a band that a power cut can take away, nor the name of its file or folder.
            sync(file)
            for folder in file.parents[: shard.ndim + 1]:
                sync_names(folder)

    def _parts(self, layer: Layer, window: Window) -> Iterator[tuple[tuple[Layer, int, int], Window, Window]]:
        """Yield (key, window of the shard, window of the part) of the shards that `window` touches."""
        if window.is_empty:
            return
        height, width = self._store.band_px, self._store.shard_px
        for band in range(window.y // height, (window.bottom - 1) // height + 1):
            for column in range(window.x // width, (window.right - 1) // width + 1):
                place = self._store.shard(band, column)
                yield (layer, band, column), place, place.intersection(window)
