"""Making a patch store: complete or not there."""

from __future__ import annotations

import logging
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wsiseg.atomic import put_folder, sync
from wsiseg.errors import StoreError
from wsiseg.stores.chunk_codecs import Jpeg, Zstd
from wsiseg.stores.image_labels import write_image_layer
from wsiseg.stores.patch_meta import KEY
from wsiseg.stores.shards import ShardedArray
from wsiseg.stores.zarr_files import METADATA, write_array, write_group

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.stores.chunk_codecs import ChunkCodec
    from wsiseg.stores.image_labels import ImageLayerInfo
    from wsiseg.stores.patch_meta import PatchMeta
    from wsiseg.stores.patches import LayerInfo


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchTable:
    """What is known of each patch before its pixels are read.

    Parameters
    ----------
    positions
        (N, 2) int64, level-0 x, y of the upper left corner.
    windows
        (N, 2) int64, the same in canvas pixels.
    extents
        (N, 2) int32, valid width and height in pixels.
    tissue
        (N,) float32, share that is tissue.
    parent
        (N,) int32, index into the names of parents.
    split
        (N,) uint8, index into the names of splits.
    """

    positions: NDArray[np.int64]
    windows: NDArray[np.int64]
    extents: NDArray[np.int32]
    tissue: NDArray[np.float32]
    parent: NDArray[np.int32]
    split: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.positions)


class PatchWriter:
    """A store under construction.

    Parameters
    ----------
    folder
        Temporary folder that becomes the store.
    meta
        What the store says about itself.
    table
        The patches.
    image_shape
        Height and width of the patch arrays.
    jpeg_quality
        Quality noted for codec ``jpeg``.
    """

    def __init__(
        self, folder: Path, meta: PatchMeta, table: PatchTable, image_shape: tuple[int, int], *, jpeg_quality: int = 90
    ) -> None:
        self._folder = folder
        self._image_shape = image_shape
        write_group(folder / "labels", {})
        self.codec: ChunkCodec = Zstd(1) if meta.codec == "zstd" else Jpeg(jpeg_quality)
        self._images: ShardedArray | None = None
        self.describe(meta, table)
        self.write_overview(np.zeros((0, 0, 3), np.uint8), np.zeros((0, 0), np.bool_))

    @property
    def images(self) -> ShardedArray:
        """Return the array of images, to be written shard by shard."""
        if self._images is None:
            raise StoreError("a store of positions holds no images", where=self._folder)
        return self._images

    def describe(self, meta: PatchMeta, table: PatchTable) -> None:
        """Say what the store holds; again where fewer patches came about than were planned.

        Of images that are written already the first ``len(table)`` stay.
        """
        self._count = len(table)
        write_group(self._folder, {KEY: meta.model_dump(mode="json")})
        for name in ("positions", "windows", "extents", "tissue", "parent", "split"):
            write_array(self._folder / name, getattr(table, name))
        if meta.codec != "none":
            self._images = ShardedArray.create(
                self._folder / "images",
                count=self._count,
                item_shape=(*self._image_shape, 3),
                dtype=np.dtype(np.uint8),
                codec=self.codec,
                # A patch of which the slide holds no pixels is bare glass.
                fill=255,
            )

    def write_overview(self, thumbnail: NDArray[np.uint8], tissue_mask: NDArray[np.bool_]) -> None:
        """Write the thumbnail (h, w, 3) and the tissue mask (h, w) on it."""
        write_array(self._folder / "thumbnail", thumbnail)
        write_array(self._folder / "tissue_mask", tissue_mask)

    def layer(self, name: str, info: LayerInfo) -> ShardedArray:
        """Add a layer of labels, to be written shard by shard."""
        return ShardedArray.create(
            self._folder / "labels" / name,
            count=self._count,
            item_shape=self._image_shape,
            dtype=info.dtype,
            codec=Zstd(info.dtype.itemsize),
            fill=info.fill,
            attributes=info.attributes,
        )

    def image_layer(self, name: str, info: ImageLayerInfo, values: NDArray[np.uint8]) -> None:
        """Add a layer of image labels, 0, 1 and 255, (N, C)."""
        write_image_layer(self._folder, name, info, values)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder that becomes `path` when the block ends well; the caller holds the lock.

    A store that was at `path` is replaced then, and labels that only the old one had are told.
    What an earlier, killed run left behind is removed.
    """
    # A link stays one, and the new store lies on the disk of the old.
    path = path.resolve()
    temporary = part_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        sync(temporary)
        if lost := sorted(_labels(path) - _labels(temporary)):
            logger.warning("%s is made anew, without the labels that it had: %s", path, ", ".join(lost))
        put_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _labels(store: Path) -> set[str]:
    """Return the layers of labels and of image labels in a folder, as paths inside."""
    return {f"{file.parents[1].name}/{file.parent.name}" for file in store.glob(f"*labels/[!.]*/{METADATA}")}


def part_path(path: Path) -> Path:
    """Return the folder in which the store `path` is built."""
    return path.with_name(f".{path.name}.part")
