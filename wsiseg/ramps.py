"""Numbers that change in the course of training, as pure functions of how far it is."""

from __future__ import annotations

import math


def warmup_cosine(step: int, *, steps: int, warmup_steps: int, floor: float) -> float:
    """Return the factor of the learning rate for one update.

    It rises in a straight line over the first updates, then falls along half a cosine.

    Parameters
    ----------
    step
        Number of the update, from 0.
    steps
        Updates in all.
    warmup_steps
        Updates of the rise; the last of them has factor 1.
    floor
        Factor at the very end.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    passed = (step - warmup_steps) / max(1, steps - warmup_steps)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, passed)))


def ema_decay(step: int, *, longest: float) -> float:
    """Return how much of a running average of weights stays at one update.

    Young averages forget faster, so that random first weights do not linger.

    Parameters
    ----------
    step
        Number of the update, from 0.
    longest
        Decay that is approached, below 1.
    """
    return min(longest, (1 + step) / (10 + step))
