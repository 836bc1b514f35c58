"""How methods that know patches by their classes learn."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wsiseg.config import Config

# Symmetries under which patches are seen: ``horizontal`` mirrors left and right, ``both`` also up
# and down, ``square`` turns as well.
Flips = Literal["none", "horizontal", "both", "square"]


class SgdSettings(Config):
    """Stochastic gradient descent whose learning rates fall with each update, as a power of what is left.

    Parameters
    ----------
    epochs
        Passes over the training images.
    batch_images
        Images of a batch.
    last_batch
        What becomes of an incomplete batch at the end of an epoch.
    lr
        Learning rate of the first update.
    head_lr_factor
        How much faster new layers learn.
    heads
        First parts of the names of the new layers' parameters.
    momentum
        Part of the last change that is made again.
    weight_decay
        Of all parameters.
    power
        Exponent of the schedule.
    """

    epochs: int = Field(gt=0)
    batch_images: int = Field(default=20, gt=0)
    last_batch: Literal["drop", "keep"]
    lr: float = Field(gt=0)
    head_lr_factor: float = Field(default=10.0, gt=0)
    heads: tuple[str, ...]
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    power: float = Field(default=0.9, gt=0)

    def rate_of(self, name: str) -> float:
        """Return how much faster than the trunk the parameter of a name learns."""
        return self.head_lr_factor if name.partition(".")[0] in self.heads else 1.0
