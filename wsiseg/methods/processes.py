"""What learners share where several processes train together; alone, each function does next to nothing."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def gathered(values: Tensor) -> Tensor:
    """Return values (B, …) of all processes on the CPU; see `of_all`."""
    return of_all(values).cpu()


def of_all(values: Tensor) -> Tensor:
    """Return values (B, …) of all processes, in the order of their ranks, on the device of one's own.

    All processes call it at the same place with arrays of one shape. Nothing flows back from it.
    """
    if not _are_several():
        return values
    whole = values.contiguous()
    parts = [torch.empty_like(whole) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, whole)
    return torch.cat(parts)


def is_first() -> bool:
    """Tell whether this process speaks for all."""
    return not _are_several() or distributed.get_rank() == 0


def _are_several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
