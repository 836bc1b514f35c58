"""The coarser resolutions of a prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wsiseg.executors import ordered_map
from wsiseg.geometry import Window
from wsiseg.progress import SILENT, track
from wsiseg.stores.mask_layers import DTYPES

if TYPE_CHECKING:
    from wsiseg.progress import Progress
    from wsiseg.stores.mask_layers import Layer
    from wsiseg.stores.mask_store import MaskStore


def build_pyramid(store: MaskStore, *, workers: int, progress: Progress = SILENT) -> None:
    """Fill all levels of all layers from the finest.

    A coarse pixel is the fine one at twice its index: labels cannot be averaged, and what is known of them
    must stay with them.
    """
    for level in range(1, store.levels):
        size = store.level_size(level)
        shards = [
            (layer, band, column)
            for layer in store.layers
            for band in range(-(-size.height // store.band_px))
            for column in range(-(-size.width // store.shard_px))
        ]

        def halve(shard: tuple[Layer, int, int], *, level: int = level) -> None:
            layer, band, column = shard
            target = store.shard(band, column, level=level)
            coarse = np.empty(store.shape(layer, target), dtype=DTYPES[layer])
            # One shard of the finer level beside the other takes half the memory of both at once.
            for left in range(target.x, target.right, store.shard_px // 2):
                part = Window(left, target.y, store.shard_px // 2, target.height).intersection(target)
                source = Window(2 * part.x, 2 * part.y, 2 * part.width, 2 * part.height)
                fine = store.read(layer, source.clipped(store.level_size(level - 1)), level=level - 1)
                coarse[..., *part.within(target).slices] = fine[..., ::2, ::2]
            store.write(layer, target, coarse, level=level)

        done = ordered_map(halve, shards, workers=workers, ahead=workers)
        for _ in track(done, progress, what=f"pyramid level {level}", total=len(shards), unit="shards"):
            pass
