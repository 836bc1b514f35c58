"""Batches by number: reading, cutting and encoding in threads, looks on the device; and how long they let wait."""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from wsiseg.errors import DataError
from wsiseg.executors import ordered_map
from wsiseg.methods.base import Batch, Encode
from wsiseg.training.augmentation import change_look, draw_look, draw_scale
from wsiseg.training.sampling import Draws
from wsiseg.training.sources import Patch, Source, random_crop

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

    from wsiseg.training.augmentation import Augmentation


@dataclass(frozen=True, slots=True, kw_only=True)
class Crops:
    """A batch whose images have not got their looks yet."""

    images: Tensor
    targets: dict[str, Tensor]
    look: dict[str, Tensor]
    seed: int

    def dressed(self, device: torch.device) -> Batch:
        """Return the batch on a device, looks applied."""
        images = _moved(self.images, device)
        if self.look:
            images = change_look(
                images, {name: _moved(value, device) for name, value in self.look.items()}, seed=self.seed
            )
        targets = {name: _moved(value, device) for name, value in self.targets.items()}
        if images.ndim == 4:  # noqa: PLR2004 - volumes have an axis more
            images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images=images, targets=targets)


class BatchStream(Protocol):
    """An endless row of batches, each a function of its number."""

    @property
    def images_per_batch(self) -> int:
        """Return the images of one batch on all ranks."""
        ...

    @property
    def images_per_epoch(self) -> int:
        """Return the images of one epoch."""
        ...

    def stream(self, start: int, stop: int, *, workers: int) -> Generator[Crops]:
        """Yield the batches from `start` up to `stop`, made ahead of time by `workers` threads."""
        ...


class Awaited:
    """A stream of batches that knows for how long it was waited for.

    Time runs from the making of this object. On a GPU it is the processor that waits: the device may
    still be busy with what it was given before.

    Parameters
    ----------
    stream
        Closed with this object.
    """

    def __init__(self, stream: Generator[Crops]) -> None:
        self._stream = stream
        self._begun = self._told = time.perf_counter()
        self._waited = self._waited_when_told = 0.0

    def __next__(self) -> Crops:
        begun = time.perf_counter()
        crops = next(self._stream)
        self._waited += time.perf_counter() - begun
        return crops

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def share(self) -> float:
        """Return the share of all time that was waited, 0 … 1."""
        return self._waited / (time.perf_counter() - self._begun)

    def share_since_last(self) -> float:
        """Return the share of the time since the last call that was waited, 0 … 1."""
        now, waited = time.perf_counter(), self._waited
        share = (waited - self._waited_when_told) / (now - self._told)
        self._told, self._waited_when_told = now, waited
        return share


class Batches:
    """An endless row of batches, each a function of its number and the seed alone.

    However training is stopped, resumed, and spread over workers and machines, batch n is the
    same. Ranks of a distributed run cut one large batch into parts.

    Parameters
    ----------
    sources
        Where images come from. Either all or none have a weight.
    encode
        Makes targets of labels.
    batch_size
        Images in a batch on each rank.
    crop_px
        Side of the images.
    augmentation
        How images may change.
    seed
        Decides everything that is random.
    rank, world
        Which part of each large batch is wanted, of how many.

    Raises
    ------
    DataError
        If there is nothing to draw from, or all of it has the weight 0.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        encode: Encode,
        *,
        batch_size: int,
        crop_px: int,
        augmentation: Augmentation,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._sources = [source for source in sources if len(source.indices) > 0]
        if not self._sources:
            raise DataError("there is no patch to train on")
        weights = [source.weight for source in self._sources if source.weight is not None]
        if weights and len(weights) < len(self._sources):
            raise DataError("some sources have a weight and some have none", mend="Give all of them one, or none")
        if weights and not any(weights):
            raise DataError("all that there is to draw from has the weight 0", mend="Give more stores a weight above 0")
        # Large patches come more often, so that an epoch sees about every pixel once.
        repeats = [np.maximum(1, np.rint(source.areas() / crop_px**2)).astype(np.int64) for source in self._sources]
        self._draws = Draws(repeats, weights=weights or None, seed=seed)
        self._encode = encode
        self._batch_size = batch_size
        self._crop_px = crop_px
        self._augmentation = augmentation
        self._seed = seed
        self._rank = rank
        self._world = world

    @property
    def images_per_batch(self) -> int:
        """Return the images of one batch on all ranks."""
        return self._batch_size * self._world

    @property
    def images_per_epoch(self) -> int:
        """Return the images of one epoch."""
        return len(self._draws)

    def make(self, number: int) -> Crops:
        """Return batch `number`, on the CPU."""
        first = number * self.images_per_batch + self._rank * self._batch_size
        images, targets, looks = [], [], []
        for draw in range(first, first + self._batch_size):
            rng = np.random.default_rng((self._seed, 4, draw))
            patch = self._crop(draw, rng)
            images.append(np.ascontiguousarray(patch.image.transpose(2, 0, 1)))
            targets.append(self._encode(patch.labels, patch.valid))
            looks.append(draw_look(self._augmentation, rng))
        return Crops(
            images=torch.from_numpy(np.stack(images)),
            targets=stacked(targets),
            look=stacked(looks) if self._augmentation.changes_look else {},
            seed=zlib.crc32(np.array([self._seed, first]).tobytes()),
        )

    def stream(self, start: int, stop: int, *, workers: int) -> Generator[Crops]:
        """Yield the batches from `start` up to `stop`, made ahead of time by `workers` threads."""
        return ordered_map(self.make, range(start, stop), workers=workers, ahead=2 * workers)

    def _crop(self, draw: int, rng: np.random.Generator) -> Patch:
        pool, item = self._draws[draw]
        source = self._sources[pool]
        scale = source.scale * draw_scale(self._augmentation, rng)
        patch = random_crop(source.read(int(source.indices[item])), crop_px=self._crop_px, scale=scale, rng=rng)
        symmetry = int(rng.integers(8)) if self._augmentation.symmetries else 0
        return Patch(
            image=turned(patch.image, symmetry),
            labels=turned(patch.labels, symmetry),
            valid=turned(patch.valid, symmetry),
        )


def turned(array: NDArray[Any], symmetry: int) -> NDArray[Any]:
    """Return an array (H, W, …) mirrored left and right for symmetries from 4 on, then turned by quarters."""
    mirrored = array[:, ::-1] if symmetry >= 4 else array  # noqa: PLR2004 - four turns, with and without mirror
    return np.ascontiguousarray(np.rot90(mirrored, symmetry % 4))


def stacked(items: Sequence[dict[str, NDArray[Any]]]) -> dict[str, Tensor]:
    """Return arrays of one name stacked along a new first axis."""
    return {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
