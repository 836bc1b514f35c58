"""Filling a new array of patches from its first to its last."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsiseg.stores.shards import ShardedArray


class ShardWriter:
    """Fills an array from its first item to its last, a whole shard at a time.

    Parameters
    ----------
    array
        A new array.
    """

    def __init__(self, array: ShardedArray) -> None:
        self._array = array
        self._waiting: list[bytes | None] = []
        self._shard = 0

    def add(self, chunks: Sequence[bytes | None]) -> None:
        """Append encoded items, None for those that are not there."""
        self._waiting += chunks
        while len(self._waiting) >= self._array.items_per_shard:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        if self._waiting:
            self._flush()

    def _flush(self) -> None:
        count = self._array.items_per_shard
        if any(chunk is not None for chunk in self._waiting[:count]):
            self._array.write_shard(self._shard, self._waiting[:count])
        del self._waiting[:count]
        self._shard += 1
