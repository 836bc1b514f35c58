"""Draws are a function of their number, fair within pools and as weighted between them."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

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


@given(st.lists(st.tuples(st.integers(1, 6), st.floats(1e-3, 10)), min_size=1, max_size=30), st.integers(1, 30))
def test_each_pool_has_its_share_after_any_number_of_epochs(pools: list[tuple[int, float]], epochs: int) -> None:
    weights = np.array([weight for _, weight in pools])
    draws = Draws([np.ones(size, np.int64) for size, _ in pools], weights=weights.tolist(), seed=0)

    counts = np.zeros(len(pools))
    for number in range(epochs):
        counts += np.bincount(draws.epoch(number)[0], minlength=len(pools))

        wanted = weights / weights.sum() * len(draws) * (number + 1)
        assert counts.sum() == len(draws) * (number + 1)
        assert (np.abs(counts - wanted) < 2).all()


def test_many_pools_of_one_item_are_all_drawn_alike() -> None:
    ones = [np.ones(1, np.int64)] * 20
    for weights in (None, [0.25 * (1 / 20)] * 20):
        draws = Draws(ones, weights=weights, seed=0)

        assert Counter(draws[n] for n in range(800)) == {(pool, 0): 40 for pool in range(20)}


def test_pools_with_a_small_share_come_up() -> None:
    draws = Draws([*[np.ones(1, np.int64)] * 12, np.ones(24, np.int64)], weights=[0.25 / 12] * 12 + [0.75], seed=0)

    counts = Counter(draws[n][0] for n in range(40 * 36))

    assert counts == {**dict.fromkeys(range(12), 30), 12: 1080}


def test_a_pool_without_weight_is_never_drawn() -> None:
    draws = Draws([np.ones(3, np.int64)] * 3, weights=[0.0, 1.0, 0.0], seed=0)

    assert {draws[n][0] for n in range(27)} == {1}
