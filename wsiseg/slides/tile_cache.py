"""Decoded tiles that several threads share, each decoded once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy as np
    from numpy.typing import NDArray

# Fresh memory costs as much as decoding a small tile, so a few buffers wait to be used again.
SPARE_BUFFERS = 8


class Make(Protocol):
    """Makes a tile."""

    def __call__(self, buffer: NDArray[np.uint8] | None, /) -> NDArray[np.uint8]:
        """Return the pixels, in `buffer` if it is given and fits."""


@dataclass(slots=True)
class Lease:
    """A tile that stays as it is until it is given back."""

    pixels: NDArray[np.uint8]
    holders: int = 1
    is_evicted: bool = False


class TileCache:
    """Keep the tiles used last, up to a number of bytes.

    A tile that several threads ask for at once is made by one of them while the others
    wait; making goes on outside the lock, so different tiles are made side by side.

    Parameters
    ----------
    capacity
        Bytes of pixels to keep at most.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._bytes = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, Lease] = OrderedDict()
        # None until somebody waits: most tiles are asked for by one thread only.
        self._under_way: dict[Hashable, threading.Event | None] = {}
        self._spare: list[NDArray[np.uint8]] = []

    def take(self, key: Hashable, make: Make) -> Lease:
        """Return the tile of `key`, made by `make` if it is not here; give it back after use.

        Whatever `make` raises reaches the caller, and others who wait try for themselves.
        """
        while True:
            with self._lock:
                lease = self._kept.get(key)
                if lease is not None:
                    self._kept.move_to_end(key)
                    lease.holders += 1
                    return lease
                if key not in self._under_way:
                    self._under_way[key] = None
                    buffer = self._spare.pop() if self._spare else None
                    break
                other = self._under_way[key]
                if other is None:
                    other = self._under_way[key] = threading.Event()
            other.wait()
        lease = None
        try:
            lease = Lease(make(buffer))
        finally:
            with self._lock:
                waiting = self._under_way.pop(key)
                if lease is not None:
                    self._keep(key, lease)
            if waiting is not None:
                waiting.set()
        return lease

    def holds(self, key: Hashable) -> bool:
        """Tell whether the tile is here."""
        return key in self._kept

    def give_back(self, lease: Lease) -> None:
        """Note that a tile from `take` is no longer looked at."""
        with self._lock:
            lease.holders -= 1
            self._recycle(lease)

    def clear(self) -> None:
        """Forget all tiles."""
        with self._lock:
            self._kept.clear()
            self._spare.clear()
            self._bytes = 0

    def _keep(self, key: Hashable, lease: Lease) -> None:
        self._kept[key] = lease
        self._bytes += lease.pixels.nbytes
        while self._bytes > self._capacity:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.pixels.nbytes
            oldest.is_evicted = True
            self._recycle(oldest)

    def _recycle(self, lease: Lease) -> None:
        if lease.is_evicted and lease.holders == 0 and len(self._spare) < SPARE_BUFFERS:
            self._spare.append(lease.pixels)
