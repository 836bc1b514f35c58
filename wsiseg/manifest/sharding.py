"""Dealing slides out to the jobs of an array."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from wsiseg.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")


def shard(entries: Sequence[T], num_shards: int | None = None, shard_index: int | None = None) -> list[T]:
    """Return the entries that fall to this job, dealt out in turn; see `which_shard`.

    Parameters
    ----------
    entries
        All entries, in the same order in every job.
    num_shards, shard_index
        Number of jobs and which one this is, from 0.
    """
    num_shards, shard_index = which_shard(num_shards, shard_index)
    return list(entries[shard_index::num_shards])


def which_shard(num_shards: int | None = None, shard_index: int | None = None) -> tuple[int, int]:
    """Return the number of jobs and which one this is, from the place in a Slurm job array where not given.

    Raises
    ------
    ConfigError
        If only one is given or they do not fit each other.
    """
    if num_shards is None and shard_index is None:
        num_shards, shard_index = _slurm_array()
    if num_shards is None or shard_index is None:
        raise ConfigError("give both, or neither", where="--num-shards, --shard-index")
    if not 0 <= shard_index < num_shards:
        raise ConfigError(
            f"shard {shard_index} of {num_shards} does not exist",
            where="--shard-index",
            mend="Shards are counted from 0 to --num-shards - 1",
        )
    return num_shards, shard_index


def _slurm_array() -> tuple[int, int]:
    values = {}
    for name, default in (("ID", ""), ("COUNT", ""), ("MIN", "0"), ("STEP", "1")):
        text = os.environ.get(f"SLURM_ARRAY_TASK_{name}", default)
        if not text.isdigit():
            return 1, 0
        values[name] = int(text)
    count, index = values["COUNT"], (values["ID"] - values["MIN"]) // max(1, values["STEP"])
    # Arrays with gaps (--array=1,5,9) do not tell our place among the others.
    if not 0 <= index < count:
        raise ConfigError(
            f"task {values['ID']} of the Slurm array does not tell which of {count} shards it is",
            where="SLURM_ARRAY_TASK_ID",
            mend="Use an array without gaps, or --num-shards and --shard-index",
        )
    return count, index
