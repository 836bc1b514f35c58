"""Work stops on request, when its time is up, and before the scheduler kills it."""

from __future__ import annotations

import time

import pytest

from wsiseg.stopping import MARGIN_S, Stop


@pytest.fixture(autouse=True)
def _no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)


def test_nothing_stops_without_a_reason() -> None:
    assert not Stop().is_requested
    assert not Stop(1000).is_requested


def test_a_request_names_its_reason() -> None:
    stop = Stop()

    stop.request("signal SIGTERM arrived")

    assert stop.is_requested
    assert "SIGTERM" in str(stop.error())
    assert stop.error().exit_code == 75


def test_time_runs_out() -> None:
    assert Stop(-1).is_requested


@pytest.mark.parametrize(("left_s", "stops"), [(MARGIN_S - 5, True), (MARGIN_S + 500, False)])
def test_the_end_of_the_job_counts_with_room_to_close(
    left_s: float,
    stops: bool,  # noqa: FBT001 - a parameter of the table
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time() + left_s)))

    assert Stop(10_000).is_requested is stops
