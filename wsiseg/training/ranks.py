"""One process or several: who I am, what I compute on, and agreeing with the others."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import distributed, nn

from wsiseg.nets.devices import choose_device

if TYPE_CHECKING:
    from collections.abc import Iterator

# The others wait while the first process labels patches or makes pages, which takes longer than libraries have patience
# for. Elsewhere theirs is right: it ends what waits for a process that is gone.
_PATIENCE: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """The place of this process among those that train together.

    Parameters
    ----------
    rank, world
        Number of this process, and of all.
    device
        What it computes on.
    patient
        Group of all in which they wait for each other as long as it takes; None where there is one.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - devices are values
    patient: distributed.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Tell whether this process writes files and speaks to people."""
        return self.rank == 0

    def agree(self, *, is_wanted: bool) -> bool:
        """Return whether any process wants something."""
        if self.world == 1:
            return is_wanted
        flag = torch.tensor(int(is_wanted), device=self.device)
        distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
        return bool(flag.item())

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401 - any picklable value
        """Return the values of all processes, by rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def share_buffers(self, module: nn.Module) -> None:
        """Give all processes the first one's statistics of normalisation."""
        if self.world > 1:
            for buffer in module.buffers():
                distributed.broadcast(buffer, src=0)

    def wait(self) -> None:
        """Wait until every process is here, up to a day."""
        if self.world > 1:
            distributed.barrier(self.patient)


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun (or srun with its variables) started, if it did.

    Parameters
    ----------
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``. Under torchrun each process takes
        the GPU of its local rank.

    Raises
    ------
    ConfigError
        If there is no such device.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(device=choose_device(device))
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = choose_device(f"cuda:{local}" if device in ("auto", "cuda") and torch.cuda.is_available() else device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    # It is one for those that belong to it, and all do.
    patient = cast("distributed.ProcessGroup", distributed.new_group(backend="gloo", timeout=_PATIENCE))
    try:
        yield Ranks(rank=distributed.get_rank(), world=world, device=chosen, patient=patient)
    finally:
        distributed.destroy_process_group()
