"""Everything that changes while a network learns, and how it is kept so that nothing is lost."""

from __future__ import annotations

import copy
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from wsiseg.config import flattened
from wsiseg.errors import DataError
from wsiseg.ramps import ema_decay
from wsiseg.training.state_file import State, load_state, save_state

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from wsiseg.training.ranks import Ranks


# Longer texts in a plan are hashes, which say nothing to people.
_LONGEST: Final = 24
# How torch calls what a module keeps beside its weights.
_EXTRA: Final = "_extra_state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """What somebody can pass where a training cannot go on.

    Parameters
    ----------
    anew, effect
        Starts it from the beginning, and what that does.
    slower
        Lowers its learning rate.
    """

    anew: str = "--overwrite"
    effect: str = "train from the start"
    slower: str = "a lower --lr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """How far a training on disk is.

    Parameters
    ----------
    plan
        What its result depends on.
    step
        Updates made.
    best, best_step
        Highest value of the validation metric, and the updates before it.
    """

    plan: State
    step: int
    best: float
    best_step: int


def read_begun(path: Path, remedy: Remedy) -> Begun | None:
    """Return how far the training is whose state lies at `path`, or None where there is none.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    if not path.exists():
        return None
    state = _read(path, remedy, is_mapped=True)
    try:
        return Begun(plan=state["plan"], step=state["step"], best=state["best"], best_step=state["best_step"])
    except KeyError as error:
        raise _misfit(path, remedy) from error


def check_plan(before: State, plan: State, *, where: Path, remedy: Remedy) -> None:
    """See that a training has the plan that it was begun with.

    Parameters
    ----------
    before, plan
        What its result depended on, and depends on now; nested.
    where
        Its folder.
    remedy
        What to do otherwise.

    Raises
    ------
    DataError
        If it has not; what differs is named.
    """
    if "labels" not in before:
        # Trainings that were begun before plans told of labels may go on.
        plan = {key: value for key, value in plan.items() if key != "labels"}
    if before == plan:
        return
    old, new = flattened(before), flattened(plan)
    changed = "; ".join(
        _difference(key, old.get(key), new.get(key)) for key in sorted({*old, *new}) if old.get(key) != new.get(key)
    )
    raise DataError(
        f"the training was begun with other settings or data ({changed})",
        where=where,
        mend=f"Use the same settings or another output folder, or pass {remedy.anew} to {remedy.effect}",
    )


def seed_all(seed: int, rank: int = 0) -> None:
    """Seed torch, NumPy and Python; ranks get seeds of their own."""
    torch.manual_seed(seed + 7919 * rank)
    np.random.seed((seed + 7919 * rank) % 2**32)  # noqa: NPY002 - for libraries that use the global state
    random.seed(seed + 7919 * rank)


class TrainingState:
    """Weights, optimiser, scaler, averages, counters and random states of a training.

    Parameters
    ----------
    module
        The learner's module, on its device.
    optimiser
        Over the module's parameters.
    scaler
        Of losses, for half precision.
    ema
        Decay of the running average of the weights; 0 keeps none.
    ranks
        The processes that train together.
    """

    def __init__(
        self,
        module: nn.Module,
        optimiser: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        ema: float,
        ranks: Ranks,
    ) -> None:
        self.module = module
        self.optimiser = optimiser
        self.scaler = scaler
        self.average = copy.deepcopy(module).requires_grad_(requires_grad=False) if ema > 0 else None
        self.step = 0
        self.best = -math.inf
        self.best_step = 0
        self._ema = ema
        self._ranks = ranks
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    @property
    def judged(self) -> nn.Module:
        """Return the module that is validated and kept: the average where there is one."""
        return self.module if self.average is None else self.average

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the running average towards the weights; statistics of normalisation are copied."""
        if self.average is None:
            return
        decay = ema_decay(self.step, longest=self._ema)
        kept, new = list(self.average.parameters()), [value.detach() for value in self.module.parameters()]
        get_ema_multi_avg_fn(decay)(kept, new, None)  # type: ignore[no-untyped-call]
        for mine, theirs in zip(self.average.buffers(), self.module.buffers(), strict=True):
            mine.copy_(theirs)

    def note(self, losses: dict[str, Tensor]) -> None:
        """Add to the losses of which `mean_losses` gives the mean; does not wait for the device."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach().float()
        self._count += 1

    def mean_losses(self) -> dict[str, float]:
        """Return the mean of what was noted since the last call."""
        means = {name: value.item() / self._count for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means

    def save(self, path: Path, plan: State) -> None:
        """Write everything to `path`; all ranks call it, the first writes."""
        random_states = self._ranks.gather(_random_state(self._ranks.device))
        if not self._ranks.is_first:
            return
        state = {
            "plan": plan,
            "step": self.step,
            "best": self.best,
            "best_step": self.best_step,
            "module": self.module.state_dict(),
            "average": None if self.average is None else _weights(self.average),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": random_states,
            "sums": self._sums,
            "count": self._count,
        }
        save_state(path, state)

    def load(self, path: Path, plan: State, remedy: Remedy) -> None:
        """Take up what `save` wrote.

        Raises
        ------
        DataError
            If it was written for another plan or does not fit.
        """
        state = _read(path, remedy)
        check_plan(state.get("plan", {}), plan, where=path.parent, remedy=remedy)
        try:
            self.module.load_state_dict(state["module"])
            if self.average is not None:
                self.average.load_state_dict({**self.average.state_dict(), **state["average"]})
            self.optimiser.load_state_dict(state["optimiser"])
            self.scaler.load_state_dict(state["scaler"])
            self.step, self.best, self.best_step = state["step"], state["best"], state["best_step"]
            device = self._ranks.device
            self._sums, self._count = {key: value.to(device) for key, value in state["sums"].items()}, state["count"]
            if len(state["random"]) == self._ranks.world:
                _set_random_state(state["random"][self._ranks.rank], device)
            else:
                raise DataError(
                    f"the training was begun by {len(state['random'])} processes, not {self._ranks.world}",
                    where=path.parent,
                    mend="Start as many processes as before",
                )
        except (KeyError, RuntimeError, ValueError) as error:
            raise _misfit(path, remedy) from error


def _read(path: Path, remedy: Remedy, *, is_mapped: bool = False) -> State:
    try:
        return load_state(path, is_mapped=is_mapped)
    except DataError as error:
        raise DataError(error.what, where=error.where, mend=f"Pass {remedy.anew} to {remedy.effect}") from error


def _misfit(path: Path, remedy: Remedy) -> DataError:
    return DataError("the state does not fit the network", where=path, mend=f"Pass {remedy.anew} to {remedy.effect}")


def _difference(key: str, before: object, now: object) -> str:
    if all(
        value is None or (isinstance(value, int | float | str) and len(str(value)) <= _LONGEST)
        for value in (before, now)
    ):
        return f"{key} was {before} and is {now}"
    return f"{key} differ"


def _weights(module: nn.Module) -> State:
    # What a module keeps beside its weights has no average.
    return {name: value for name, value in module.state_dict().items() if not name.endswith(_EXTRA)}


def _random_state(device: torch.device) -> dict[str, Any]:
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 - the global state is meant
    version, internal, cached = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "python": [version, list(internal), cached],
    }


def _set_random_state(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002 - the global state is meant
    version, internal, cached = state["python"]
    random.setstate((version, tuple(internal), cached))
