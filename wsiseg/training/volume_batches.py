"""Batches of windows of volumes by number: first those with labels, then those without."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from wsiseg.errors import DataError
from wsiseg.executors import ordered_map
from wsiseg.labels import IGNORE
from wsiseg.training.batches import Crops, stacked
from wsiseg.training.sampling import Draws
from wsiseg.training.streams import other_seed
from wsiseg.training.volume_windows import changed, draw_cut, symmetries_of

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

    from wsiseg.methods.base import Encode
    from wsiseg.stores.volume_store import VolumeStore
    from wsiseg.training.augmentation import Augmentation
    from wsiseg.training.volume_windows import Cut
    from wsiseg.volumes import Shape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VolumeSource:
    """Some volumes of a store.

    Parameters
    ----------
    store
        The store, or anything that reads like one.
    indices
        Volumes to draw from.
    """

    store: VolumeStore
    indices: NDArray[np.int64]


class VolumeBatches:
    """An endless row of batches, each a function of its number and the seed alone; see `Batches`.

    Labelled volumes come in epochs: each once, in random order, without the last few that fill no batch; where there
    are fewer than a batch holds, several windows of one volume fill it. Those without labels come in endless rounds of
    their own. Each time that a volume is drawn, one window of it is cut. Around volumes that are smaller than it lies
    their least intensity, where nothing is learnt.

    Parameters
    ----------
    labelled
        Volumes with labels.
    encode
        Makes targets of labels (D, H, W).
    patch
        Voxels of a window, (D, H, W).
    batch_size
        Windows with labels in a batch, on each rank.
    unlabelled
        Volumes whose labels are never read.
    unlabelled_batch_size
        Windows without labels in a batch, on each rank.
    augmentation
        How windows may change: by `symmetries`, `brightness`, `contrast` and `noise`.
    seed
        Decides everything that is random.
    rank, world
        Which part of each large batch is wanted, of how many.

    Raises
    ------
    DataError
        If there is nothing to draw from.
    """

    def __init__(
        self,
        labelled: Sequence[VolumeSource],
        encode: Encode,
        *,
        patch: Shape,
        batch_size: int,
        unlabelled: Sequence[VolumeSource] = (),
        unlabelled_batch_size: int = 0,
        augmentation: Augmentation,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._labelled, self._unlabelled = _volumes(labelled), _volumes(unlabelled)
        if not self._labelled or (unlabelled_batch_size and not self._unlabelled):
            raise DataError("there is no volume to train on")
        self._encode = encode
        self._patch = patch
        self._batch_size, self._unlabelled_size = batch_size, unlabelled_batch_size
        self._augmentation = augmentation
        self._seed = seed
        self._rank, self._world = rank, world
        ones = np.ones(len(self._unlabelled), dtype=np.int64)
        self._free = Draws([ones], seed=other_seed(seed)) if self._unlabelled else None

    @property
    def images_per_batch(self) -> int:
        """Return the windows of one batch on all ranks, those without labels included."""
        return (self._batch_size + self._unlabelled_size) * self._world

    @property
    def batches_per_epoch(self) -> int:
        """Return the batches in which all labelled volumes come once, but for the last few; one at least."""
        return max(1, len(self._labelled) // (self._batch_size * self._world))

    @property
    def images_per_epoch(self) -> int:
        """Return the windows of one epoch."""
        return self.batches_per_epoch * self.images_per_batch

    def chosen(self, number: int) -> tuple[list[int], list[int]]:
        """Return which volumes batch `number` holds: of those with labels, and of those without, in their order."""
        epoch, place = divmod(number, self.batches_per_epoch)
        first = (place * self._world + self._rank) * self._batch_size
        order = _order(self._seed, epoch, len(self._labelled))
        with_labels = [int(order[draw % len(order)]) for draw in range(first, first + self._batch_size)]
        if self._free is None:
            return with_labels, []
        first = (number * self._world + self._rank) * self._unlabelled_size
        return with_labels, [self._free[draw][1] for draw in range(first, first + self._unlabelled_size)]

    def make(self, number: int) -> Crops:
        """Return batch `number`, on the CPU."""
        with_labels, without = self.chosen(number)
        images, targets = [], []
        for slot, item in enumerate(with_labels):
            store, index = self._labelled[item]
            cut, image = self._window(store, index, number, slot)
            inside = store.read_labels(index, cut.box(store.meta.volumes[index].shape))
            labels = cut.finish(inside, outside=IGNORE).astype(np.int32)
            images.append(image)
            targets.append(self._encode(labels, labels != IGNORE))
        for slot, item in enumerate(without, start=len(with_labels)):
            images.append(self._window(*self._unlabelled[item], number, slot)[1])
        return Crops(images=torch.from_numpy(np.stack(images)[:, None]), targets=stacked(targets), look={}, seed=0)

    def stream(self, start: int, stop: int, *, workers: int) -> Generator[Crops]:
        """Yield the batches from `start` up to `stop`, made ahead of time by `workers` threads."""
        return ordered_map(self.make, range(start, stop), workers=workers, ahead=2 * workers)

    def _window(self, store: VolumeStore, index: int, number: int, slot: int) -> tuple[Cut, NDArray[np.float32]]:
        """Return what is cut of a volume, and its intensities."""
        rng = np.random.default_rng((self._seed, 4, number, self._rank, slot))
        about = store.meta.volumes[index]
        symmetries = symmetries_of(about.spacing_mm) if self._augmentation.symmetries else (0,)
        cut = draw_cut(about.shape, self._patch, rng, symmetries=symmetries)
        inside = store.read_voxels(index, cut.box(about.shape))
        outside = 0.0 if inside.shape == cut.size else store.lowest(index)
        return cut, changed(cut.finish(inside, outside=outside), self._augmentation, rng)


def _volumes(sources: Sequence[VolumeSource]) -> list[tuple[VolumeStore, int]]:
    return [(source.store, int(index)) for source in sources for index in source.indices]


@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, 2, epoch)).permutation(count)
