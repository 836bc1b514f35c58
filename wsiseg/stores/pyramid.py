"""The coarser resolutions of a prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsiseg.executors import ordered_map
from wsiseg.geometry import Window
from wsiseg.progress import SILENT, track

if TYPE_CHECKING:
    from wsiseg.progress import Progress
    from wsiseg.stores.mask_store import Layer, MaskStore


def build_pyramid(store: MaskStore, *, workers: int, progress: Progress = SILENT) -> None:
    """Fill all levels of all layers from the finest.

    A coarse pixel is the fine one at twice its index: labels cannot be averaged.
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
            source = Window(2 * target.x, 2 * target.y, 2 * target.width, 2 * target.height)
            fine = store.read(layer, source.clipped(store.level_size(level - 1)), level=level - 1)
            store.write(layer, target, fine[::2, ::2], level=level)

        done = ordered_map(halve, shards, workers=workers, ahead=workers)
        for _ in track(done, progress, what=f"pyramid level {level}", total=len(shards), unit="shards"):
            pass
