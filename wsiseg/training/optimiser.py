"""What changes the weights, and how fast, in the course of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from wsiseg.ramps import poly, stairs, warmup_cosine

if TYPE_CHECKING:
    from torch import nn

    from wsiseg.methods.base import Clock, Learner
    from wsiseg.training.settings import FitSettings

# Where a group of parameters keeps how much faster than the rest it learns.
FACTOR = "factor"


def make_optimiser(learner: Learner, settings: FitSettings) -> torch.optim.Optimizer:
    """Return the optimiser of what a learner learns; see `FitSettings`."""
    kinds: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, value in learner.module.named_parameters():
        if value.requires_grad:
            is_decayed = value.ndim > 1 or settings.optimiser != "adamw"
            key = (learner.rate_of(name), settings.weight_decay if is_decayed else 0.0)
            kinds.setdefault(key, []).append(value)
    # Groups in a fixed order, whatever the order of the parameters: their state is saved by number.
    groups: list[dict[str, Any]] = [
        {"params": kinds[factor, decay], "weight_decay": decay, FACTOR: factor} for factor, decay in sorted(kinds)
    ]
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
    kind = torch.optim.Adam if settings.optimiser == "adam" else torch.optim.AdamW
    return kind(groups, lr=settings.lr)


def set_rates(optimiser: torch.optim.Optimizer, settings: FitSettings, clock: Clock) -> None:
    """Give each group of parameters its learning rate for one update."""
    warmup_steps = round(settings.warmup * settings.steps)
    if settings.schedule == "poly":
        factor = poly(clock.step, steps=clock.steps, power=settings.power, warmup_steps=warmup_steps)
    elif settings.schedule == "step":
        factor = stairs(clock.step, every=settings.step_every, factor=settings.step_factor, warmup_steps=warmup_steps)
    else:
        factor = warmup_cosine(clock.step, steps=clock.steps, warmup_steps=warmup_steps, floor=settings.lr_floor)
    for group in optimiser.param_groups:
        group["lr"] = settings.lr * factor * group[FACTOR]
