"""Predictions on disk: label canvases in one OME-Zarr, written band by band.

::

    prediction.zarr/         an image of its own, the uncertainty
     ├─ s0, s1, …            uint8, entropy 0 … 1 as 0 … 255, each level half the one before
     ├─ labels/
     │   ├─ classes/s0 …     uint8, class indices; 254 = no class (where none is a background), 255 = not analysed
     │   └─ instances/s0 …   uint32, object ids; 0 = background (instance models only)
     └─ probability/s0 …     uint8 (c, y, x), probability 0 … 1 of each class as 0 … 255, or of any object (instance
                             models); 0 for all of them where there is no class or nothing is analysed (on request)

A *band* is one row of shards as high as one chunk; a shard has one writer and is written
once and whole. Shards that hold nothing but background, or no class, are not written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Self, get_args

import numpy as np
import zarr
from pydantic import ValidationError

from wsiseg.atomic import atomic_path
from wsiseg.errors import StoreError
from wsiseg.geometry import Canvas, Scale, Size, Window
from wsiseg.labels import LabelMap
from wsiseg.stores.mask_layers import (
    DTYPES,
    KEY,
    LabelArray,
    Layer,
    count_levels,
    level_size,
    make_store,
    place_of,
    shard_width,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEMA_VERSION: Final = 1


class MaskStore:
    """The predictions of one slide, open for reading or writing.

    Made by `create` or `open`.
    """

    def __init__(self, path: Path, group: zarr.Group) -> None:
        self.path = path
        try:
            about = _about(group)
            self.labels = LabelMap.model_validate(about["labels"])
            self.canvas = Canvas(
                Size(int(about["width"]), int(about["height"])), Scale(float(about["downsample"])), about["mpp"]
            )
            self.layers: tuple[Layer, ...] = tuple(layer for layer in get_args(Layer) if layer in about["layers"])
            self.band_px = int(about["band_px"])
            self._arrays = {
                layer: [_array(group, f"{place_of(layer)}s{level}") for level in range(count_levels(self.canvas.size))]
                for layer in self.layers
            }
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            raise StoreError(
                "the prediction's metadata is damaged", where=path, mend="Predict the slide again"
            ) from error

    @classmethod
    def create(
        cls, path: Path, *, canvas: Canvas, labels: LabelMap, layers: Sequence[Layer], band_px: int
    ) -> MaskStore:
        """Make an empty store, or open the one of the same description that is there.

        Parameters
        ----------
        path
            Folder to make, usually ``prediction.zarr``.
        canvas, labels
            What the layers mean.
        layers
            ``classes`` and ``uncertainty``, ``instances`` for instance models, and ``probability`` on request.
        band_px
            Canvas pixels of a chunk's side, which is the height of a band.

        Raises
        ------
        StoreError
            If another store is there already.
        """
        about = {
            "schema_version": SCHEMA_VERSION,
            "labels": labels.model_dump(mode="json"),
            "width": canvas.size.width,
            "height": canvas.size.height,
            "downsample": canvas.scale.downsample,
            "mpp": canvas.mpp,
            "layers": [layer for layer in get_args(Layer) if layer in layers],
            "band_px": band_px,
        }
        if path.exists():
            store = cls._opened(path, mode="r+")
            if store.about != about:
                raise StoreError("another prediction is here already", where=path, mend="Use --overwrite")
            return store
        with atomic_path(path) as temporary:
            make_store(temporary, canvas, labels, about)
        return cls._opened(path, mode="r+")

    @classmethod
    def open(cls, path: Path) -> MaskStore:
        """Open a store for reading.

        Raises
        ------
        StoreError
            If there is none, or one of another schema version.
        """
        return cls._opened(path, mode="r")

    @classmethod
    def _opened(cls, path: Path, *, mode: Literal["r", "r+"]) -> Self:
        try:
            group = zarr.open_group(path, mode=mode, zarr_format=3)
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise StoreError("there is no prediction here", where=path, mend="Run wsiseg predict first") from error
        found = _about(group).get("schema_version")
        if found != SCHEMA_VERSION:
            raise StoreError(
                f"the prediction has schema version {found}, this program reads {SCHEMA_VERSION}",
                where=path,
                mend="Predict the slide again",
            )
        store = cls(path, group)
        store.about = _about(group)
        return store

    about: dict[str, Any]  # Any: JSON

    @property
    def levels(self) -> int:
        """Return the number of resolutions."""
        return count_levels(self.canvas.size)

    @property
    def bands(self) -> int:
        """Return the number of bands of the finest resolution."""
        return -(-self.canvas.size.height // self.band_px)

    @property
    def shard_px(self) -> int:
        """Return the width of a shard in pixels."""
        return shard_width(self.band_px)

    def shape(self, layer: Layer, window: Window) -> tuple[int, ...]:
        """Return the shape of a layer's values in `window`: (H, W), or (C, H, W) where it has planes."""
        return (*self._arrays[layer][0].shape[:-2], window.height, window.width)

    def fill(self, layer: Layer) -> int:
        """Return what a layer holds where nothing was written."""
        return int(self._arrays[layer][0].fill_value)

    def level_size(self, level: int) -> Size:
        """Return the pixels of one resolution; each is half the one before, rounded up."""
        return level_size(self.canvas.size, level)

    def read(self, layer: Layer, window: Window, *, level: int = 0) -> LabelArray:
        """Return a piece of a layer.

        Parameters
        ----------
        layer
            One of `layers`.
        window
            Within the canvas; in pixels of `level`.
        level
            Resolution; 0 is the canvas, each further one half the one before.

        Returns
        -------
        LabelArray
            (window.height, window.width), probabilities (C, window.height, window.width); see the head of this
            module for types and values.

        Raises
        ------
        StoreError
            If the layer does not exist or a shard is damaged.
        """
        try:
            values: LabelArray = np.empty(self.shape(layer, window), dtype=DTYPES[layer])
            # Shard by shard: zarr holds the chunks of a whole request beside what it returns.
            for part in window.split(Size(self.shard_px, self.band_px)):
                values[..., *part.within(window).slices] = self._arrays[layer][level][..., *part.slices]
        except KeyError as error:
            raise StoreError(f"there is no layer {layer}", where=self.path) from error
        except (OSError, RuntimeError, ValueError) as error:
            raise StoreError(f"a shard of {layer} is damaged", where=self.path, mend="Use --overwrite") from error
        return values

    def write(self, layer: Layer, window: Window, values: LabelArray, *, level: int = 0) -> None:
        """Write whole shards, each of which appears whole or not at all.

        Parameters
        ----------
        layer, level
            As for `read`.
        window
            One or more whole shards, clipped at the edge of the canvas.
        values
            As `read` returns them.

        Raises
        ------
        StoreError
            If the disk is full or cannot be written.
        """
        try:
            self._arrays[layer][level][..., *window.slices] = values
        except OSError as error:
            raise StoreError(f"cannot be written: {error.strerror}", where=self.path) from error

    def shard_path(self, layer: Layer, window: Window) -> Path:
        """Return the file of the shard that begins at the corner of `window`; missing if it is all background."""
        row, column = window.y // self.band_px, window.x // self.shard_px
        planes = ["0"] * (self._arrays[layer][0].ndim - 2)
        return self.path.joinpath(f"{place_of(layer)}s0", "c", *planes, str(row), str(column))

    def shard(self, band: int, column: int, *, level: int = 0) -> Window:
        """Return the place of a shard, clipped at the edge of the canvas."""
        full = Window(column * self.shard_px, band * self.band_px, self.shard_px, self.band_px)
        return full.clipped(self.level_size(level))


def _about(group: zarr.Group) -> dict[str, Any]:  # Any: JSON
    about = group.attrs.asdict().get(KEY, {})
    return about if isinstance(about, dict) else {}


def _array(group: zarr.Group, path: str) -> zarr.Array[Any]:  # Any: either kind of metadata
    array = group[path]
    if not isinstance(array, zarr.Array):
        raise TypeError(path)
    return array
