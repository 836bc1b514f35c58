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


def poly(step: int, *, steps: int, power: float = 0.9, warmup_steps: int = 0) -> float:
    """Return the factor of the learning rate for one update, which falls as a power of what is left.

    A rise from 0 at the beginning takes the place of the first part of the fall.

    Parameters
    ----------
    step
        Number of the update, from 0.
    steps
        Updates in all; the factor reaches 0 only after the last.
    power
        1 is a straight line; less falls later.
    warmup_steps
        Updates of the rise, a straight line from 0 at the first.
    """
    if step < warmup_steps:
        return step / warmup_steps
    return float((1 - min(1.0, step / steps)) ** power)


def stairs(step: int, *, every: int, factor: float, warmup_steps: int = 0) -> float:
    """Return the factor of the learning rate for one update, which falls at once after every so many.

    A straight rise over the first updates takes the place of the first part.

    Parameters
    ----------
    step
        Number of the update, from 0.
    every
        Updates from one fall to the next.
    factor
        What is left after each fall, 0 … 1.
    warmup_steps
        Updates of the rise, at most `every` of them.

    >>> [stairs(step, every=2500, factor=0.1) for step in (0, 2499, 2500)]
    [1.0, 1.0, 0.1]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return float(factor ** (step // every))


def dropout_mu(
    epoch: int, *, sigma: float = 0.985, lower: float = 0.65, warmup_epochs: int = 3, overshoots: bool = False
) -> float | None:
    """Return the part of its peak up to which progressive dropout attention keeps an activation.

    Parameters
    ----------
    epoch
        Number of the epoch, from 1.
    sigma
        What is kept of the part from one epoch to the next.
    lower
        Where it stops to fall.
    warmup_epochs
        First epochs, in which the attention is off.
    overshoots
        As in the code that the authors released: the part falls during the warm-up too, and once
        more after it was last seen above `lower`. Otherwise as in the paper.

    Returns
    -------
    float | None
        None while the attention is off.

    References
    ----------
    .. [1] Han et al., "Multi-Layer Pseudo-Supervision for Histopathology Tissue Semantic
       Segmentation using Patch-level Classification Labels", Medical Image Analysis 2022.
    """
    if epoch <= warmup_epochs:
        return None
    if not overshoots:
        return float(max(lower, sigma ** (epoch - warmup_epochs)))
    mu = 1.0
    for _ in range(epoch - 1):
        if mu > lower:
            mu *= sigma
    return mu


def gaussian(progress: float) -> float:
    """Return the factor of a loss that trusts the network more and more: exp(-5 (1 - t)²).

    Parameters
    ----------
    progress
        Part of the ramp that has passed, t; it stays at its end, 1.

    References
    ----------
    .. [1] Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017.
    """
    return math.exp(-5 * (1 - min(1.0, progress)) ** 2)


def harmonic_decay(step: int, *, longest: float) -> float:
    """Return how much of a running average stays at one update, 1 - 1/(t + 1) at first: the mean of all so far.

    The first update copies the weights. Compare `ema_decay`.

    Parameters
    ----------
    step
        Number of the update, t, from 0.
    longest
        Decay that is kept once it is reached, below 1.
    """
    return min(longest, 1 - 1 / (step + 1))


def late_start(step: int, *, steps: int, start: float) -> float:
    """Return the weight of a loss that waits until the network has learnt something: 0, then 1.

    Parameters
    ----------
    step
        Number of the update, from 0.
    steps
        Updates in all.
    start
        Part of the updates, 0 … 1, for which the loss waits.
    """
    return float(step >= start * steps)
