"""Ramps start, peak and end where they say."""

from __future__ import annotations

import pytest

from wsiseg.ramps import dropout_mu, ema_decay, gaussian, harmonic_decay, late_start, poly, stairs, warmup_cosine


def test_the_learning_rate_rises_to_one_and_falls_to_its_floor() -> None:
    factors = [warmup_cosine(step, steps=100, warmup_steps=10, floor=0.01) for step in range(101)]

    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1
    assert factors[55] == pytest.approx(0.505)
    assert factors[100] == pytest.approx(0.01)
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_without_warm_up_it_starts_at_one() -> None:
    assert warmup_cosine(0, steps=1, warmup_steps=0, floor=0) == 1


def test_a_young_average_forgets_fast() -> None:
    assert ema_decay(0, longest=0.999) == pytest.approx(0.1)
    assert ema_decay(10**6, longest=0.999) == 0.999


def test_a_power_of_what_is_left_falls_from_one_to_zero() -> None:
    factors = [poly(step, steps=100) for step in range(101)]

    assert factors[0] == 1
    assert factors[50] == pytest.approx(0.5**0.9)
    assert factors[99] > 0
    assert factors[100] == poly(200, steps=100) == 0
    assert factors == sorted(factors, reverse=True)


def test_a_power_may_begin_with_a_rise_from_nothing() -> None:
    factors = [poly(step, steps=100, warmup_steps=5) for step in range(101)]

    assert factors[:5] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert factors[5:] == [poly(step, steps=100) for step in range(5, 101)]


def test_stairs_fall_at_once_after_every_so_many_updates_and_may_begin_with_a_rise() -> None:
    factors = [stairs(step, every=4, factor=0.5) for step in range(10)]

    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert [stairs(step, every=4, factor=0.5, warmup_steps=2) for step in range(10)] == [0.5, *factors[1:]]


def test_dropout_attention_is_off_at_first_and_stops_at_its_bound() -> None:
    parts = [dropout_mu(epoch) for epoch in range(1, 61)]

    assert parts[:3] == [None] * 3
    assert parts[3] == 0.985
    assert parts[19] == pytest.approx(0.7734, abs=5e-5)
    assert min(part for part in parts if part is not None) == parts[-1] == 0.65


def test_dropout_attention_of_the_released_code_falls_early_and_overshoots() -> None:
    parts = [dropout_mu(epoch, sigma=0.98, overshoots=True) for epoch in range(1, 61)]

    assert parts[:3] == [None] * 3
    assert parts[3] == pytest.approx(0.9412, abs=5e-5)
    assert parts[19] == pytest.approx(0.6812, abs=5e-5)
    assert parts[-2] == parts[-1] == pytest.approx(0.6412, abs=5e-5)


def test_a_late_loss_counts_from_its_start_on() -> None:
    weights = [late_start(step, steps=40_000, start=0.125) for step in (0, 4_999, 5_000, 39_999)]

    assert weights == [0, 0, 1, 1]
    assert late_start(0, steps=10, start=0) == 1
    assert late_start(9, steps=10, start=1) == 0


def test_trust_grows_to_one_at_the_end() -> None:
    factors = [0.1 * gaussian(step / 100) for step in range(101)]

    assert [factors[at] for at in (0, 25, 50, 75, 100)] == pytest.approx(
        [0.000674, 0.0060, 0.0287, 0.0732, 0.1], rel=0.01
    )
    assert factors == sorted(factors)
    assert gaussian(2) == 1


def test_averages_of_two_kinds_forget_as_published() -> None:
    assert [ema_decay(step, longest=0.99) for step in range(4)] == pytest.approx([0.1, 0.1818, 0.25, 0.3077], abs=1e-4)
    assert ema_decay(889, longest=0.99) < 0.99 == ema_decay(890, longest=0.99)
    assert [harmonic_decay(step, longest=0.99) for step in range(4)] == pytest.approx([0, 0.5, 2 / 3, 0.75])
    assert harmonic_decay(98, longest=0.99) < 0.99 == harmonic_decay(99, longest=0.99)
