"""How multi-layer pseudo-supervision is trained: the numbers of its paper, and those of its released code.

References
----------
.. [1] Han et al., "Multi-Layer Pseudo-Supervision for Histopathology Tissue Semantic Segmentation
   using Patch-level Classification Labels", Medical Image Analysis 2022.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from wsiseg.config import Config
from wsiseg.losses.pseudo import LAYER_WEIGHTS, Divisor, WhiteMean
from wsiseg.ramps import dropout_mu

PresetName = Literal["paper", "official-code"]


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


class AttentionSettings(Config):
    """Schedule of progressive dropout attention; see `dropout_mu`.

    Parameters
    ----------
    sigma
        What is kept of mu from one epoch to the next.
    lower
        Where mu stops to fall.
    warmup_epochs
        First epochs, in which the attention is off.
    overshoots
        Mu falls during the warm-up too, and once below `lower`.
    """

    sigma: float = Field(default=0.985, gt=0, le=1)
    lower: float = Field(default=0.65, ge=0, le=1)
    warmup_epochs: int = Field(default=3, ge=0)
    overshoots: bool = False

    def mu(self, epoch: int) -> float | None:
        """Return mu in an epoch, from 1; None while the attention is off."""
        return dropout_mu(
            epoch,
            sigma=self.sigma,
            lower=self.lower,
            warmup_epochs=self.warmup_epochs,
            overshoots=self.overshoots,
        )


class MlpsPreset(Config):
    """All numbers of the method.

    Parameters
    ----------
    classify
        Training of the classifier.
    attention
        Dropout attention of the classifier.
    segment
        Training of the segmentation network.
    layer_weights
        Of the losses with the three pseudo-masks, shallow to deep.
    white_mean, divisor
        By what the loss of the segmentation network is divided; see `multi_layer`.
    epsilon
        Probability up to which the classifier rules a class out.
    """

    classify: SgdSettings
    attention: AttentionSettings
    segment: SgdSettings
    layer_weights: tuple[float, float, float] = LAYER_WEIGHTS
    white_mean: WhiteMean
    divisor: Divisor
    epsilon: float = Field(default=0.1, ge=0, lt=1)


# The momentum is what the released code comes to; a usual one would need lower rates.
_CLASSIFY: Final = SgdSettings(
    epochs=20, last_batch="drop", lr=0.01, heads=("fc8",), momentum=0.0005, weight_decay=0.0005
)
_SEGMENT: Final = SgdSettings(
    epochs=30, last_batch="keep", lr=0.01, heads=("aspp", "decoder"), momentum=0.9, weight_decay=0.0005
)

PRESETS: Final[dict[PresetName, MlpsPreset]] = {
    "paper": MlpsPreset(
        classify=_CLASSIFY,
        attention=AttentionSettings(),
        # What the released numbers are once the loss is no longer divided by 20, the images of a batch.
        segment=_SEGMENT.model_copy(update={"lr": 0.0005, "weight_decay": 0.01}),
        white_mean="valid",
        divisor="none",
    ),
    "official-code": MlpsPreset(
        classify=_CLASSIFY,
        attention=AttentionSettings(sigma=0.98, overshoots=True),
        segment=_SEGMENT,
        white_mean="all",
        divisor="batch",
    ),
}
