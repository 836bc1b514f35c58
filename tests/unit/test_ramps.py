"""Ramps start, peak and end where they say."""

from __future__ import annotations

import pytest

from wsiseg.ramps import ema_decay, warmup_cosine


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
