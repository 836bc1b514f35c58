"""Batches of two streams: first images with labels, then images without, or with labels that are less certain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wsiseg.executors import ordered_map
from wsiseg.training.batches import Batches, Crops

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from wsiseg.training.augmentation import Augmentation
    from wsiseg.training.sources import UnlabelledSource


class TwoStreams:
    """An endless row of batches whose first images have labels and whose others have none.

    Each stream goes through all of its patches before any comes twice, at its own pace: the few labelled ones come
    round more often.

    Parameters
    ----------
    labelled
        Batches with targets.
    unlabelled
        Batches without.
    """

    def __init__(self, labelled: Batches, unlabelled: Batches) -> None:
        self._labelled, self._unlabelled = labelled, unlabelled

    @property
    def images_per_batch(self) -> int:
        """Return the images of one batch on all ranks, of both streams."""
        return self._labelled.images_per_batch + self._unlabelled.images_per_batch

    @property
    def images_per_epoch(self) -> int:
        """Return the images of both streams, each seen once."""
        return self._labelled.images_per_epoch + self._unlabelled.images_per_epoch

    def make(self, number: int) -> Crops:
        """Return batch `number`, on the CPU."""
        first, second = self._labelled.make(number), self._unlabelled.make(number)
        return Crops(
            images=torch.cat((first.images, second.images)),
            targets=self._targets(first.targets, second.targets),
            look={name: torch.cat((value, second.look[name])) for name, value in first.look.items()},
            seed=first.seed,
        )

    def stream(self, start: int, stop: int, *, workers: int) -> Generator[Crops]:
        """Yield the batches from `start` up to `stop`, made ahead of time by `workers` threads."""
        return ordered_map(self.make, range(start, stop), workers=workers, ahead=2 * workers)

    def _targets(self, first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002 - of those there are none
        return first


class PseudoStreams(TwoStreams):
    """An endless row of batches whose first images have labels that were given, and whose others have pseudo-labels.

    A further target tells of each image whether it is one of the others, bool (B,).

    Parameters
    ----------
    given, pseudo
        Batches with targets of the same kind.
    mark
        Name of the further target.
    """

    def __init__(self, given: Batches, pseudo: Batches, *, mark: str) -> None:
        super().__init__(given, pseudo)
        self._mark = mark

    def _targets(self, first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, Tensor]:
        counts = [len(next(iter(part.values()))) for part in (first, second)]
        both = {name: torch.cat((value, second[name])) for name, value in first.items()}
        return {**both, self._mark: torch.arange(sum(counts)) >= counts[0]}


def unlabelled_batches(
    sources: Sequence[UnlabelledSource],
    *,
    batch_size: int,
    crop_px: int,
    augmentation: Augmentation,
    seed: int,
    rank: int = 0,
    world: int = 1,
) -> Batches:
    """Return batches of which nothing is known; see `Batches`. Their draws have nothing to do with those of others."""
    return Batches(
        sources,
        _nothing,
        batch_size=batch_size,
        crop_px=crop_px,
        augmentation=augmentation,
        seed=other_seed(seed),
        rank=rank,
        world=world,
    )


def other_seed(seed: int) -> int:
    """Return the seed of a second stream, whose draws have nothing to do with those of the first."""
    return int(np.random.SeedSequence((seed, 5)).generate_state(1)[0])


def _nothing(labels: NDArray[np.int32], valid: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:  # noqa: ARG001 - there are none
    return {}
