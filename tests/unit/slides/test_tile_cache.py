"""Tiles are made once, kept within bounds, and never change under a reader."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from wsiseg.slides.tile_cache import TileCache

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.slides.tile_cache import Make


def full_of(value: int, made: list[int] | None = None) -> Make:
    def make(buffer: NDArray[np.uint8] | None, /) -> NDArray[np.uint8]:
        if made is not None:
            made.append(value)
        pixels = np.empty((4, 4, 3), np.uint8) if buffer is None else buffer
        pixels[:] = value
        return pixels

    return make


def test_a_tile_is_made_once() -> None:
    cache, made = TileCache(1000), list[int]()

    for _ in range(3):
        lease = cache.take("a", full_of(7, made))
        cache.give_back(lease)

    assert made == [7]
    assert cache.holds("a")


def test_the_tile_used_longest_ago_goes_first() -> None:
    cache = TileCache(2 * 48)
    for key in ("a", "b", "a", "c"):
        cache.give_back(cache.take(key, full_of(1)))

    assert [key for key in "abc" if cache.holds(key)] == ["a", "c"]


def test_a_tile_that_is_looked_at_keeps_its_pixels() -> None:
    cache = TileCache(48)
    looked_at = cache.take(0, full_of(200))
    for key in range(1, 30):
        cache.give_back(cache.take(key, full_of(key)))

    assert (looked_at.pixels == 200).all()
    cache.give_back(looked_at)


def test_memory_is_used_again() -> None:
    cache = TileCache(48)
    first = cache.take(0, full_of(0))
    cache.give_back(first)
    cache.give_back(cache.take(1, full_of(1)))

    third = cache.take(2, full_of(2))

    assert third.pixels is first.pixels


def test_two_threads_share_the_making() -> None:
    cache, made = TileCache(1000), list[int]()
    barrier, may_finish = threading.Barrier(4), threading.Event()

    def slow(buffer: NDArray[np.uint8] | None, /) -> NDArray[np.uint8]:
        may_finish.wait(5)
        return full_of(9, made)(buffer)

    def ask() -> int:
        barrier.wait(5)
        lease = cache.take("a", slow)
        value = int(lease.pixels[0, 0, 0])
        cache.give_back(lease)
        return value

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask) for _ in range(4)]
        may_finish.set()
        values = [one.result() for one in asked]

    assert values == [9] * 4
    assert made == [9]


def test_a_failure_reaches_the_caller_and_is_not_kept() -> None:
    cache = TileCache(1000)

    def fail(_: NDArray[np.uint8] | None, /) -> NDArray[np.uint8]:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        cache.take("a", fail)

    assert (cache.take("a", full_of(3)).pixels == 3).all()
    cache.clear()
    assert not cache.holds("a")
