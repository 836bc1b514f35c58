"""Patches on disk: images, where they lie, and layers of labels.

Layout of ``<name>.zarr`` (Zarr v3; N patches of H × W pixels)::

    images                (N, H, W, 3) uint8    one chunk per patch, in shards; absent with codec "none"
    positions             (N, 2) int64          x, y of the upper left corner, level-0 pixels of slide or image
    windows               (N, 2) int64          the same in canvas pixels
    extents               (N, 2) int32          valid width and height; the rest of the patch is padding
    tissue                (N,) float32          share of the patch that is tissue
    parent, split         (N,) int32, uint8     indices into the attributes `parents` and `splits`
    thumbnail             (h, w, 3) uint8       the slide at a few µm per pixel
    tissue_mask           (h, w) bool           tissue on the thumbnail
    labels/<layer>        (N, H, W)             int32 instances, uint8 classes, or uint8 confidence in percent
    image_labels/<layer>  (N, C) uint8          whether a class occurs in a patch: 0, 1, or 255 for unknown

Pixels beyond a patch's extent are background when read here, whatever is stored.
"""

from __future__ import annotations

import shutil
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from wsiseg.errors import StoreError
from wsiseg.stores.chunk_codecs import Zstd
from wsiseg.stores.image_labels import image_layers, read_image_layer, write_image_layer
from wsiseg.stores.patch_meta import SYNTHETIC, PatchMeta
from wsiseg.stores.patches import LayerInfo, check_layer_name
from wsiseg.stores.shards import ShardedArray
from wsiseg.stores.zarr_files import METADATA, read_array, read_metadata, write_group

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from wsiseg.labels import LabelMap
    from wsiseg.stores.image_labels import ImageLayerInfo
    from wsiseg.stores.patches import Indices, LayerKind, PixelSource


class PatchStore:
    """The patches of one slide or of one folder of images. Reading is safe from several threads.

    Parameters
    ----------
    path
        The folder ``<name>.zarr``.
    open_pixels
        Gives the pixels of a store that holds positions only (codec ``none``).

    Raises
    ------
    StoreError
        If there is no store, it is damaged, or it has another schema version.
    """

    def __init__(self, path: Path, *, open_pixels: Callable[[PatchMeta], PixelSource] | None = None) -> None:
        self.path = path
        self.meta = PatchMeta.read(path)
        self.positions: NDArray[np.int64] = read_array(path / "positions")
        self.windows: NDArray[np.int64] = read_array(path / "windows")
        self.extents: NDArray[np.int32] = read_array(path / "extents")
        self.tissue: NDArray[np.float32] = read_array(path / "tissue")
        self._parent: NDArray[np.int32] = read_array(path / "parent")
        self._split: NDArray[np.uint8] = read_array(path / "split")
        self._open_pixels = open_pixels
        self._pixels: PixelSource | None = None
        self._opening = threading.Lock()
        self._images = ShardedArray(path / "images") if self.meta.codec != "none" else None
        self._labels: dict[str, ShardedArray] = {}
        counts = {len(array) for array in (self.positions, self.windows, self.extents, self.tissue, self._parent)}
        if self._images is not None:
            counts.add(len(self._images))
        if len(counts) != 1:
            raise StoreError("the arrays of the store have different lengths", where=path, mend="Make the store again")

    @classmethod
    def open(cls, path: Path, *, open_pixels: Callable[[PatchMeta], PixelSource] | None = None) -> Self:
        """Open the store at `path`; see the class."""
        return cls(path, open_pixels=open_pixels)

    @staticmethod
    def count(path: Path) -> int:
        """Return the number of patches of the store at `path` without opening its arrays."""
        return int(read_metadata(path / "positions")["shape"][0])

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def mpp(self) -> float | None:
        """Return the micrometres per patch pixel, or None where unknown."""
        return self.meta.mpp

    @property
    def image_shape(self) -> tuple[int, int]:
        """Return height and width of the patch arrays."""
        if self._images is not None:
            return self._images.item_shape[0], self._images.item_shape[1]
        if self.meta.grid is None:
            raise StoreError("a store without images must know its grid", where=self.path)
        return self.meta.grid.patch_px, self.meta.grid.patch_px

    @property
    def patch_px(self) -> int:
        """Return the longer edge of the patch arrays."""
        return max(self.image_shape)

    @property
    def parents(self) -> NDArray[np.object_]:
        """Return the slide or image that each patch comes from, (N,) of str."""
        return _named(self.meta.parents, self._parent)

    @property
    def groups(self) -> NDArray[np.object_]:
        """Return what must stay together in splits (patient, else parent), (N,) of str."""
        return _named(self.meta.groups, self._parent)

    @property
    def splits(self) -> NDArray[np.object_]:
        """Return train, val, test, unlabelled, synthetic or nothing for each patch, (N,) of str.

        Patches of a synthetic store are all ``synthetic``, so that no mark makes them judge anything.
        """
        if self.meta.origin == "synthetic":
            return _named((SYNTHETIC,), np.zeros(len(self), dtype=np.int64))
        return _named(self.meta.splits, self._split)

    @property
    def fingerprint(self) -> str:
        """Return the hash of what the store was made from."""
        return self.meta.fingerprint

    @property
    def layers(self) -> dict[str, LayerInfo]:
        """Return the layers of labels by name."""
        names = sorted(file.parent.name for file in (self.path / "labels").glob(f"[!.]*/{METADATA}"))
        layers = {name: self._layer(name) for name in names}
        return {name: LayerInfo.from_attributes(one.attributes, where=one.folder) for name, one in layers.items()}

    @property
    def image_layers(self) -> dict[str, ImageLayerInfo]:
        """Return the layers of image labels by name."""
        return image_layers(self.path)

    def thumbnail(self) -> NDArray[np.uint8]:
        """Return the slide's thumbnail, RGB (h, w, 3); empty for images."""
        return read_array(self.path / "thumbnail")

    def tissue_mask(self) -> NDArray[np.bool_]:
        """Return the tissue mask on the thumbnail, (h, w); empty for images."""
        return read_array(self.path / "tissue_mask")

    def is_labelled(self, layer: str) -> NDArray[np.bool_]:
        """Tell which patches have labels in `layer`, (N,)."""
        return self._layer(layer).has()

    def read_images(self, indices: Indices) -> NDArray[np.uint8]:
        """Return patches in the order of `indices`, repeats allowed: RGB (n, H, W, 3), background beyond extents.

        Raises
        ------
        StoreError
            If stored bytes are damaged.
        SlideError
            If the store holds no pixels and the slide is gone or another.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if self._images is not None:
            images: NDArray[np.uint8] = self._images.read(wanted)
        else:
            images = self._source().read(self.windows[wanted], self.patch_px)
        height, width = self.image_shape
        for image, (right, bottom) in zip(images, self.extents[wanted].tolist(), strict=True):
            if right < width:
                image[:, right:] = self.meta.background
            if bottom < height:
                image[bottom:] = self.meta.background
        return images

    def read_labels(self, layer: str, indices: Indices) -> NDArray[Any]:
        """Return labels in the order of `indices`, (n, H, W): int32 instances, uint8 classes or confidence.

        Patches without labels are 0 in layers of instances and 255 (ignored) in others;
        `is_labelled` tells them apart.
        """
        return self._layer(layer).read(indices)

    def labels_fingerprint(self, layer: str, indices: Indices) -> str:
        """Return the hash of the labels of some patches."""
        return self._layer(layer).fingerprint(indices)

    def add_layer(self, name: str, kind: LayerKind, labels: LabelMap, *, made_by: str = "") -> None:
        """Add an empty layer of labels; see `LayerInfo`.

        Raises
        ------
        StoreError
            If the store has a layer of that name.
        """
        made_at = datetime.now(UTC).isoformat(timespec="microseconds") if made_by else ""
        info = LayerInfo(kind=kind, labels=labels, made_by=made_by, made_at=made_at)
        folder = self.path / "labels" / name
        check_layer_name(name, where=self.path)
        if (folder / METADATA).exists():
            raise StoreError(f"the store has a layer {name!r} already", where=self.path, mend="Choose another name")
        if not (folder.parent / METADATA).exists():
            write_group(folder.parent, {})
        ShardedArray.create(
            folder,
            count=len(self),
            item_shape=self.image_shape,
            dtype=info.dtype,
            codec=Zstd(info.dtype.itemsize),
            fill=info.fill,
            attributes=info.attributes,
        )

    def remove_layer(self, name: str) -> None:
        """Remove a layer of labels, if there is one of that name; nobody may be reading it."""
        folder = self.path / "labels" / name
        # Without it the rest is no layer any more.
        (folder / METADATA).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        self._labels.pop(name, None)

    def write_labels(self, layer: str, indices: Indices, arrays: Sequence[NDArray[Any]]) -> None:
        """Write labels of some patches; one process at a time.

        Parameters
        ----------
        layer
            A layer made by `add_layer`.
        indices
            Patches, in any order; whole runs of neighbours are fastest.
        arrays
            Integers, (H, W) each.
        """
        self._layer(layer).write(indices, arrays)

    def read_image_labels(self, layer: str, indices: Indices) -> NDArray[np.uint8]:
        """Return which classes occur in patches, in the order of `indices`: (n, C) of 1, 0 and 255 for unknown."""
        return read_image_layer(self.path, layer)[np.asarray(indices, dtype=np.int64)]

    def add_image_layer(
        self, name: str, info: ImageLayerInfo, values: NDArray[np.integer[Any]], *, overwrite: bool = False
    ) -> None:
        """Add a whole layer of image labels, (N, C); see `write_image_layer`."""
        if len(values) != len(self):
            raise ValueError(f"{len(values)} rows do not fit {len(self)} patches")
        write_image_layer(self.path, name, info, values, overwrite=overwrite)

    def close(self) -> None:
        """Release the slide of a store that holds no pixels."""
        if self._pixels is not None:
            self._pixels.close()
            self._pixels = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self.close()

    def _source(self) -> PixelSource:
        if self._open_pixels is None:
            raise StoreError(
                "the store holds positions only",
                where=self.path,
                mend="Open it with wsiseg.tiling.reading.open_patches",
            )
        with self._opening:
            if self._pixels is None:
                self._pixels = self._open_pixels(self.meta)
            return self._pixels

    def _layer(self, name: str) -> ShardedArray:
        if name not in self._labels:
            if not (self.path / "labels" / name / METADATA).exists():
                known = ", ".join(self.layers) or "none"
                raise StoreError(f"the store has no layer {name!r}", where=self.path, mend=f"It has: {known}")
            self._labels[name] = ShardedArray(self.path / "labels" / name)
        return self._labels[name]


def _named(names: Sequence[str], indices: NDArray[Any]) -> NDArray[np.object_]:
    table = np.empty(len(names), dtype=np.object_)
    table[:] = names
    return table[indices] if len(names) else np.empty(0, dtype=np.object_)
