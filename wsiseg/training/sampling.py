"""Which patch is drawn when: a function of a number, so that training can go on anywhere."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Draws:
    """An endless sequence of draws from several pools, without state.

    The sequence consists of epochs. Within a pool every item comes once before any comes
    twice, also across epochs; pools take turns in random order.

    Parameters
    ----------
    repeats
        For each pool, how often each of its items comes in one round, (n,) of 1 or more.
    weights
        Share of the draws of each pool; None shares as `repeats` does.
    seed
        Decides the order.
    """

    def __init__(
        self, repeats: Sequence[NDArray[np.int64]], *, weights: Sequence[float] | None = None, seed: int
    ) -> None:
        self._pools = [np.repeat(np.arange(len(repeat)), repeat) for repeat in repeats]
        self._seed = seed
        sizes = np.array([len(pool) for pool in self._pools], dtype=np.float64)
        share = np.array(weights, dtype=np.float64) if weights is not None else sizes
        # The largest part takes what rounding leaves over.
        self._counts = np.floor(share / share.sum() * sizes.sum()).astype(np.int64)
        self._counts[np.argmax(share)] += int(sizes.sum()) - int(self._counts.sum())

    def __len__(self) -> int:
        """Return the draws of one epoch."""
        return int(self._counts.sum())

    def __getitem__(self, number: int) -> tuple[int, int]:
        """Return pool and item of draw `number`, from 0 without end."""
        epoch, place = divmod(number, len(self))
        pools, items = _epoch(self, epoch)
        return int(pools[place]), int(items[place])

    def epoch(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the pools and the items of all draws of one epoch."""
        pools = np.repeat(np.arange(len(self._pools)), self._counts)
        items = np.concatenate(
            [self._run(pool, int(count) * number, int(count)) for pool, count in enumerate(self._counts)]
        )
        order = np.random.default_rng((self._seed, 2, number)).permutation(len(pools))
        return pools[order], items[order]

    def _run(self, pool: int, start: int, count: int) -> NDArray[np.int64]:
        """Return `count` items of the pool's endless sequence of shuffled rounds from `start` on."""
        content = self._pools[pool]
        if count == 0:
            return content[:0]
        first, last = start // len(content), (start + count - 1) // len(content)
        rounds = [np.random.default_rng((self._seed, 3, pool, n)).permutation(content) for n in range(first, last + 1)]
        offset = start - first * len(content)
        return np.concatenate(rounds)[offset : offset + count]


@lru_cache(maxsize=8)
def _epoch(draws: Draws, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return draws.epoch(number)
