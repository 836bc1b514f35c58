"""Features of patches: made once, in the order in which patches lie on disk, and read as often as wanted."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from wsiseg.errors import DataError
from wsiseg.executors import ordered_map, run_ahead
from wsiseg.limits import memory_limit
from wsiseg.selection.appearance import appearance
from wsiseg.selection.pool import sizes_of
from wsiseg.stores.feature_store import QUADRANTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from wsiseg.progress import Progress
    from wsiseg.selection.encoders import ImageEncoder
    from wsiseg.stopping import Stop
    from wsiseg.stores.feature_store import FeatureStore, Kind
    from wsiseg.stores.patch_set import PatchSet

logger = logging.getLogger(__name__)

# Patches of a block: results must not depend on memory or on chunks on disk, and so the blocks do not.
BLOCK: Final = 1024
# Part of the memory that features may be kept in.
_SHARE: Final = 0.25
_AHEAD: Final = 2
_RUN: Final = 64


def fingerprint_of(patches: PatchSet) -> str:
    """Return a hash of which patches there are, and in which order."""
    digest = hashlib.blake2b(digest_size=16)
    for store in patches.stores:
        digest.update(store.fingerprint.encode())
        digest.update(np.concatenate((store.windows, store.extents), axis=1).astype("<i8").tobytes())
    digest.update(repr(patches.image_shape).encode())
    return digest.hexdigest()


def quadrants_of(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the quadrants (n, 4, H // 2, W // 2, 3) of images (n, H, W, 3), row by row."""
    height, width = images.shape[1] // 2, images.shape[2] // 2
    upper, lower = images[:, :height], images[:, -height:]
    parts = (upper[:, :, :width], upper[:, :, -width:], lower[:, :, :width], lower[:, :, -width:])
    return np.stack(parts, axis=1)


@torch.inference_mode()
def encode(
    patches: PatchSet,
    encoder: ImageEncoder,
    store: FeatureStore,
    *,
    device: torch.device,
    dtype: torch.dtype | None = None,
    batch_size: int = 32,
    workers: int = 2,
    progress: Progress,
    stop: Stop,
) -> int:
    """Write the features of all patches that a store lacks, and return of how many.

    Parameters
    ----------
    patches
        Read in their order, so that each shard on disk is read once.
    encoder
        Gets each patch, and its four quadrants at their own size; of smaller images no padding. Quadrants are not
        cut from its map of the whole patch, which would halve the work: there they have seen one another.
    store
        Made for these patches.
    device, dtype
        What the encoder runs on, and its number format or None for float32.
    batch_size
        Patches at once.
    workers
        Threads that read ahead.
    progress
        Told about patches.
    stop
        Looked at after each batch.

    Raises
    ------
    DataError
        If the encoder gives what is no number.
    StoppedError
        If `stop` was requested; complete chunks stay.
    """
    encoder = encoder.to(device).to(memory_format=torch.channels_last)
    missing = store.missing()
    runs = [
        (rows, range(first, min(first + batch_size, rows.stop)))
        for rows in missing
        for first in range(rows.start, rows.stop, batch_size)
    ]

    sizes = sizes_of(patches)

    def read(run: tuple[range, range]) -> list[tuple[NDArray[np.intp], NDArray[np.uint8], NDArray[np.float32]]]:
        own = np.arange(run[1].start, run[1].stop)
        return [(places, images, appearance(images)) for places, images in _by_size(patches, own, sizes)]

    def features(images: NDArray[np.uint8]) -> NDArray[np.float16]:
        batch = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
        with torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            found: NDArray[np.float16] = encoder(batch).float().half().cpu().numpy()
        return found

    parts: list[tuple[NDArray[Any], ...]] = []
    with progress.task("features", total=len(store), unit="patches") as advance:
        advance(len(store) - sum(map(len, missing)))
        found = ordered_map(read, runs, workers=workers, ahead=_AHEAD * max(1, workers))
        for (rows, run), read_parts in zip(runs, found, strict=True):
            whole = np.empty((len(run), store.dimensions), dtype=np.float16)
            quarters = np.empty((len(run), QUADRANTS, store.dimensions), dtype=np.float16)
            looks = np.empty((len(run), 2), dtype=np.float32)
            for places, images, own in read_parts:
                whole[places], looks[places] = features(images), own
                # No larger batch than before: quadrants have a quarter of the pixels.
                quadrants = quadrants_of(images)
                made = features(quadrants.reshape(-1, *quadrants.shape[2:]))
                quarters[places] = made.reshape(len(places), QUADRANTS, -1)
            parts.append((whole, quarters, looks))
            advance(len(run))
            if run.stop == rows.stop:
                _write(store, rows, parts)
                parts = []
            # The rest of a chunk may take longer than there is time.
            if stop.is_requested:
                found.close()
                raise stop.error()
    return sum(map(len, missing))


def _write(store: FeatureStore, rows: range, parts: Sequence[tuple[NDArray[Any], ...]]) -> None:
    """Write a chunk whose batches are complete."""
    patches, quadrants, looks = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    try:
        store.write(rows, patches=patches, quadrants=quadrants, appearance=looks)
    except ValueError as error:
        raise DataError(
            f"the encoder gives no usable features ({error})",
            where=store.path,
            mend="Choose another --encoder, or --init",
        ) from error


def look_at(patches: PatchSet, *, workers: int, progress: Progress, stop: Stop) -> NDArray[np.float32]:
    """Return the appearance of all patches, (N, 2), for strategies that need no features.

    Raises
    ------
    StoppedError
        If `stop` was requested.
    """
    runs = [np.arange(first, min(first + _RUN, len(patches))) for first in range(0, len(patches), _RUN)]
    sizes, looks = sizes_of(patches), np.empty((len(patches), 2), dtype=np.float32)

    def look(run: NDArray[np.int64]) -> int:
        for places, images in _by_size(patches, run, sizes):
            looks[run[places]] = appearance(images)
        return len(run)

    found = ordered_map(look, runs, workers=workers, ahead=2 * workers)
    with progress.task("appearance", total=len(patches), unit="patches") as advance:
        for seen in found:
            advance(seen)
            if stop.is_requested:
                found.close()
                raise stop.error()
    return looks


def _by_size(
    patches: PatchSet, indices: NDArray[np.int64], sizes: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.uint8]]]:
    """Yield patches of one size together, (n, H, W, 3), with their places among the indices."""
    images, own = patches.read_images(indices), sizes[indices]
    for width, height in np.unique(own, axis=0).tolist():
        places = np.flatnonzero((own == (width, height)).all(axis=1))
        yield places, images[places, :height, :width]


class PoolFeatures:
    """The features of the patches to choose from, by their places 0 … n - 1 among these.

    Parameters
    ----------
    store
        Complete.
    indices
        The patches in the store, sorted, (n,).
    memory_bytes
        Features that take no more are kept in memory; a quarter of what there is where None.
    """

    def __init__(self, store: FeatureStore, indices: NDArray[np.int64], *, memory_bytes: int | None = None) -> None:
        self._store = store
        self._indices = indices
        usable = int(_SHARE * memory_limit()) if memory_bytes is None else memory_bytes
        size = len(indices) * (1 + QUADRANTS) * store.dimensions * np.dtype(np.float16).itemsize
        self._is_kept = size <= usable
        self._kept: dict[Kind, NDArray[np.float16]] = {}

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, kind: Kind, places: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return features of some patches, in the order of `places`; sorted ones are fastest."""
        if not self._is_kept:
            found: NDArray[np.float16] = self._store.read(kind, self._indices[places])
            return found
        if kind not in self._kept:
            self._kept[kind] = self._store.read(kind, self._indices)
        return self._kept[kind][places]

    def blocks(self, kind: Kind) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield the features of all patches, block by block, with their places."""
        return run_ahead(self._blocks(kind), depth=_AHEAD)

    def _blocks(self, kind: Kind) -> Any:  # noqa: ANN401 - a generator, as `run_ahead` wants it
        for first in range(0, len(self), BLOCK):
            places = slice(first, min(first + BLOCK, len(self)))
            yield places, self.read(kind, np.arange(places.start, places.stop)).astype(np.float32)
