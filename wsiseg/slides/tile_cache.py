"""Decoded tiles that several threads share, each decoded once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    import numpy as np
    from numpy.typing import NDArray


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
        self._kept: OrderedDict[Hashable, NDArray[np.uint8]] = OrderedDict()
        self._under_way: dict[Hashable, Future[NDArray[np.uint8]]] = {}

    def get(self, key: Hashable, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Return the tile of `key`, made by `make` if it is not here.

        Whatever `make` raises reaches everybody who waits for the tile, and is not kept.
        """
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
            other = self._under_way.get(key)
            if other is None:
                mine = self._under_way[key] = Future()
        if other is not None:
            return other.result()
        try:
            tile = make()
        except BaseException as error:
            with self._lock:
                del self._under_way[key]
            mine.set_exception(error)
            raise
        tile.flags.writeable = False
        with self._lock:
            del self._under_way[key]
            self._kept[key] = tile
            self._bytes += tile.nbytes
            while self._bytes > self._capacity:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        mine.set_result(tile)
        return tile

    def clear(self) -> None:
        """Forget all tiles."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0
