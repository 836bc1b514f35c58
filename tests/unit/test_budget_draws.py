"""Trainings of a study are dealt out evenly to the jobs of an array."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from wsiseg.tasks.budget_draws import Plan, dealt


@given(methods=st.integers(1, 6), sizes=st.integers(1, 5), seeds=st.integers(1, 4), jobs=st.integers(1, 9))
def test_each_job_gets_as_many_trainings_of_each_method(methods: int, sizes: int, seeds: int, jobs: int) -> None:
    plans = [
        Plan(method=f"method{method}", size=f"{size}", seed=seed)
        for seed in range(seeds)
        for size in range(sizes)
        for method in range(methods)
    ]

    shares = [dealt(plans, jobs, index) for index in range(jobs)]

    assert sorted(plans.index(plan) for share in shares for plan in share) == list(range(len(plans)))
    assert all(share == sorted(share, key=plans.index) for share in shares)
    for method in range(methods):
        counts = [Counter(plan.method for plan in share)[f"method{method}"] for share in shares]
        assert max(counts) - min(counts) <= 1
