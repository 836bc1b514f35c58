"""How many tiles a device takes at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Beyond this a GPU gains nothing more and an interrupted batch loses more.
_MAX_BATCH = 16
# Share of the free memory that a batch may take: convolutions look for work space beyond what they hold.
_USABLE = 0.6


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory that one tile needs on its way through the network, in bytes."""

    per_tile: int

    def batch(self, free: int) -> int:
        """Return the largest power of two of tiles that fits into `free` bytes, 1 … 16."""
        fits = int(free * _USABLE) // max(1, self.per_tile)
        return 1 << (max(1, min(_MAX_BATCH, fits)).bit_length() - 1)


def free_memory(device: torch.device) -> int:
    """Return the free bytes of a CUDA device."""
    return int(torch.cuda.mem_get_info(device)[0])
