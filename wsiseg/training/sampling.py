"""Which patch is drawn when: a function of a number, so that training can go on anywhere."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Draws:
    """An endless sequence of draws from several pools, without state.

    The sequence consists of epochs. Within a pool every item comes once before any comes
    twice, also across epochs; pools take turns in random order. After any number of epochs
    each pool has had its share to within two draws.

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
        self._size = int(sizes.sum())
        self._ends = np.cumsum([0.0, *(sizes if weights is None else weights)])

    def __len__(self) -> int:
        """Return the draws of one epoch."""
        return self._size

    def __getitem__(self, number: int) -> tuple[int, int]:
        """Return pool and item of draw `number`, from 0 without end."""
        epoch, place = divmod(number, len(self))
        pools, items = _epoch(self, epoch)
        return int(pools[place]), int(items[place])

    def epoch(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the pools and the items of all draws of one epoch."""
        before, after = (np.array(_shared(len(self) * epochs, self._ends)) for epochs in (number, number + 1))
        pools = np.repeat(np.arange(len(self._pools)), after - before)
        runs = zip(before.tolist(), after.tolist(), strict=True)
        items = np.concatenate([self._run(pool, first, last - first) for pool, (first, last) in enumerate(runs)])
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


def _shared(count: int, ends: NDArray[np.float64]) -> list[int]:
    """Return how many of so many draws each pool gets; of more draws none gets less.

    Halves of about the same weight share them, then halves of these, so that what rounding costs does not add up.

    Parameters
    ----------
    count
        Draws.
    ends
        Weights of the pools, summed up from the left, and what they begin with (n + 1,).
    """
    if len(ends) == 2 or count == 0:  # noqa: PLR2004 - of one pool
        return [count, *[0] * (len(ends) - 2)]
    weight = ends[-1] - ends[0]
    cut = 1 + int(np.abs(ends[1:-1] - (ends[0] + ends[-1]) / 2).argmin())
    # The lighter half is rounded: it never gets more than all of what comes on top.
    left, right = (ends[cut] - ends[0]) / weight, (ends[-1] - ends[cut]) / weight
    first = math.floor(count * left + 0.5) if left <= right else count - math.floor(count * right + 0.5)
    return _shared(first, ends[: cut + 1]) + _shared(count - first, ends[cut:])


@lru_cache(maxsize=8)
def _epoch(draws: Draws, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return draws.epoch(number)
