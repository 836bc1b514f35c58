"""Draws are a function of their number, fair within pools and as weighted between them."""

from __future__ import annotations

from collections import Counter

import numpy as np

from wsiseg.training.sampling import Draws

POOLS = [np.ones(10, np.int64), np.array([3, 1], np.int64)]


def test_an_epoch_draws_everything_as_often_as_it_repeats() -> None:
    draws = Draws(POOLS, seed=1)

    for epoch in range(3):
        counts = Counter(draws[epoch * 14 + n] for n in range(14))

        assert len(draws) == 14
        assert counts == {**{(0, n): 1 for n in range(10)}, (1, 0): 3, (1, 1): 1}


def test_a_draw_depends_on_its_number_alone() -> None:
    forward, backward = Draws(POOLS, seed=1), Draws(POOLS, seed=1)

    assert [forward[n] for n in range(60)] == [backward[n] for n in reversed(range(60))][::-1]
    assert [Draws(POOLS, seed=2)[n] for n in range(60)] != [forward[n] for n in range(60)]


def test_weights_share_the_draws_and_rounds_go_on_across_epochs() -> None:
    draws = Draws(POOLS, weights=[1, 1], seed=0)
    drawn = [draws[n] for n in range(20 * len(draws))]

    counts = Counter(pool for pool, _ in drawn)
    items = Counter(item for pool, item in drawn if pool == 0)

    assert counts[0] == counts[1]
    assert max(items.values()) - min(items.values()) <= 1
