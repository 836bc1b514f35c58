"""Threads give results in order, within bounds, and hand on what they raise."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from wsiseg.executors import ordered_map, run_ahead

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item * item

    results = list(ordered_map(work, range(20), workers=workers, ahead=4))

    assert results == [item * item for item in range(20)]


def test_no_more_than_ahead_items_are_drawn_beyond_the_one_waited_for() -> None:
    drawn: list[int] = []

    def items() -> Generator[int]:
        for item in range(20):
            drawn.append(item)
            yield item

    results = ordered_map(lambda item: item, items(), workers=2, ahead=3)

    assert next(results) == 0
    assert len(drawn) == 4
    results.close()


def test_an_error_is_raised_in_its_turn() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    results = ordered_map(work, range(10), workers=2, ahead=4)

    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_running_ahead_keeps_order_and_stays_in_one_thread() -> None:
    threads = set()

    def items() -> Generator[int]:
        for item in range(50):
            threads.add(threading.get_ident())
            yield item

    assert list(run_ahead(items(), depth=3)) == list(range(50))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_an_error_ahead_is_raised_after_what_came_before_it() -> None:
    def items() -> Generator[int]:
        yield 1
        raise ValueError("broken")

    results = run_ahead(items(), depth=2)

    assert next(results) == 1
    with pytest.raises(ValueError, match="broken"):
        next(results)


def test_closing_early_closes_what_runs_ahead() -> None:
    closed = threading.Event()

    def items() -> Generator[int]:
        try:
            yield from range(1000)
        finally:
            closed.set()

    results = run_ahead(items(), depth=2)
    next(results)
    results.close()

    assert closed.is_set()
