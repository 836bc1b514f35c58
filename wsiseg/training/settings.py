"""How a network learns."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wsiseg.config import Config


class FitSettings(Config):
    """How a network learns.

    Parameters
    ----------
    steps
        Updates of the weights.
    accumulate
        Batches whose gradients are added up for one update.
    accumulation
        Gradients of several batches make their ``mean``, or their ``sum``, as some published trainings have it.
    optimiser
        ``adamw``; ``adam``, which takes the decay of weights for a part of the gradient; or ``sgd`` with momentum.
    momentum
        Of SGD.
    schedule
        ``cosine``, half a wave down; ``poly``, a power of the part that is left; or ``step``, the same for many updates
        and then much less. All begin with a rise.
    power
        Exponent of ``poly``.
    step_every, step_factor
        Updates after which ``step`` falls, and what is left then.
    lr
        Highest learning rate; some layers of a method may learn faster.
    lr_floor
        Learning rate at the end of ``cosine``, as a fraction of `lr`.
    warmup
        Part of the updates in which the learning rate rises.
    weight_decay
        Of all weights in SGD and Adam; AdamW leaves biases and scales of normalisation alone.
    clip_norm
        Longest gradient; longer ones are shortened to it. None shortens none.
    ema
        Decay of a running average of the weights, such as 0.999, which is then validated and kept. 0: none.
    amp
        Precision on the way forward; ``auto`` takes bf16 or fp16 on CUDA and full precision elsewhere.
    seed
        Decides everything that is random.
    log_every
        Updates between rows of the log.
    validate_every
        Updates between validations.
    save_interval_s
        Seconds after which the state is saved even without a validation.
    num_workers
        Threads that read and cut images.
    """

    steps: int = Field(default=5000, gt=0)
    accumulate: int = Field(default=1, gt=0)
    accumulation: Literal["mean", "sum"] = "mean"
    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    schedule: Literal["cosine", "poly", "step"] = "cosine"
    power: float = Field(default=0.9, gt=0)
    step_every: int = Field(default=2500, gt=0)
    step_factor: float = Field(default=0.1, gt=0, le=1)
    lr: float = Field(default=3e-4, gt=0)
    lr_floor: float = Field(default=0.01, ge=0, le=1)
    warmup: float = Field(default=0.03, ge=0, le=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    clip_norm: float | None = Field(default=1.0, gt=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    amp: Literal["auto", "bf16", "fp16", "off"] = "auto"
    seed: int = Field(default=0, ge=0)
    log_every: int = Field(default=20, gt=0)
    validate_every: int = Field(default=250, gt=0)
    save_interval_s: float = Field(default=300.0, ge=0)
    num_workers: int = Field(default=2, ge=0)

    @property
    def share_of_batch(self) -> float:
        """Return the factor of the gradient of each batch that goes into an update."""
        return 1 / self.accumulate if self.accumulation == "mean" else 1.0
