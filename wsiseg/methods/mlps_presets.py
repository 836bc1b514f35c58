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
from wsiseg.methods.sgd import SgdSettings
from wsiseg.ramps import dropout_mu

PresetName = Literal["paper", "official-code"]


class AttentionSettings(Config):
    """Schedule of progressive dropout attention, whose mu begins at 1, as published; see `dropout_mu`.

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
