"""What can be chosen in uncertainty-guided mutual consistency learning.

References
----------
.. [1] Zhang et al., "Uncertainty-guided mutual consistency learning for semi-supervised medical image segmentation",
   Artificial Intelligence in Medicine 2022.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from wsiseg.config import Config, merged
from wsiseg.level_sets import Norm  # noqa: TC001 - the options are built from them
from wsiseg.losses.mutual import STEEPNESS, Channels, Distance
from wsiseg.methods.cards import NetOptions
from wsiseg.methods.ugmcl_presets import PRESETS, TRAINING, TRAINING_OF_VOLUMES, PresetName
from wsiseg.methods.ugmcl_targets import relative_spacing

if TYPE_CHECKING:
    from wsiseg.methods.base import TrainingFacts

# What images of 128 px and more have room for.
_LONGEST: Final = 32.0
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]


class LevelSetSettings(Config):
    """How level sets are made of labels, and learnt.

    Parameters
    ----------
    norm, zero_ring
        See `level_set`. Padding is no part of the crop in the norm ``crop``. Instance heads always take the norm
        ``truncated``.
    longest
        Distance that becomes 1 in the norm ``truncated``, in pixels, or of volumes in the finest distance of voxels.
        None takes a quarter of the shortest side of the crop or window, 32 at most: level sets that reach further than
        what is seen of them are nearly the same everywhere, and teach nothing.
    loss
        ``mse`` or ``l1``.
    weight
        Of the error of level sets.
    inverse_dice
        Weight of the Dice loss of the masks of level sets. It moves pixels near the border only.
    """

    norm: Norm = "truncated"
    longest: float | None = Field(default=None, gt=0)
    zero_ring: bool = False
    loss: Distance = "mse"
    weight: float = Field(default=0.3, ge=0)
    inverse_dice: float = Field(default=0.0, ge=0)


class IntraTaskSettings(Config):
    """How student and teacher agree; Eq. (4) of the paper.

    Parameters
    ----------
    beta
        Share of probabilities, beside level sets.
    channels
        The ``sum`` of their differences, as printed, or their ``mean``, which does not grow with the classes.
    weight
        Beside the other consistency.
    """

    beta: float = Field(default=0.75, ge=0, le=1)
    channels: Channels = "mean"
    weight: float = Field(default=1.0, ge=0)


class CrossTaskSettings(Config):
    """How probabilities and level sets agree; Eq. (6) of the paper.

    Parameters
    ----------
    steepness
        k of the way back from level sets to masks; 100 to 300 reach more pixels where level sets are truncated.
    masked
        Only pixels of which the teacher is sure count. In the paper all do.
    weight
        Beside the other consistency.
    """

    steepness: float = Field(default=STEEPNESS, gt=0)
    masked: bool = False
    weight: float = Field(default=1.0, ge=0)


class UgmclOptions(NetOptions):
    """Options of the method, beside those of `NetOptions`.

    Parameters
    ----------
    preset
        Numbers of the ``paper``; of the ``official-code``, but for its head that both tasks share; or our own,
        ``wsiseg``, for images and volumes. What is set apart from it holds.
    arch
        ``auto`` takes ``dual-unet`` for images, and for volumes ``unet3d`` or, in the paper's preset, ``vnet``. Other
        networks of images are taught a second task; they must have dropout, such as by ``net.dropout``.
    head
        ``level-set`` or ``semantic``; ``auto`` takes the first for layers of instances.
    supervised_weight
        Of cross-entropy and Dice on labels, each.
    skips_absent
        Classes that no image of a batch shows have no part in the Dice loss; see `squared_dice`.
    sdf, itc, ctc
        Level sets, and the consistency within and across tasks.
    consistency
        Weight of both at the end of its ramp; 0 learns from labels alone.
    ramp
        Part of the training that the ramp lasts, and that of the certainty; all of it as published, less where the
        training is short.
    ramp_steps
        The ramp rises in so many steps; evenly where None.
    consistency_on
        ``all`` images, as published, or those ``unlabelled``.
    ema
        Longest memory of the teacher: the part of its weights that stays at each update.
    mc_passes
        Passes of the teacher with dropout by which doubt is measured.
    mc_at_once
        How many of them are made together.
    noise_std, noise_clip
        Noise on normalised images that the teacher sees: its standard deviation, and the most of it.
    mixed_batches
        Images with labels and without pass through the networks together, as published, so that batch normalisation
        scales each by both; else each kind by its own.
    certainty
        Pixels are certain whose entropy is below this share of the largest, at the beginning and at the end.
    """

    preset: PresetName = "wsiseg"
    arch: str = "auto"
    head: Literal["auto", "level-set", "semantic"] = "auto"
    supervised_weight: float = Field(default=0.5, ge=0)
    skips_absent: bool = True
    sdf: LevelSetSettings = LevelSetSettings()
    itc: IntraTaskSettings = IntraTaskSettings()
    ctc: CrossTaskSettings = CrossTaskSettings()
    consistency: float = Field(default=0.1, ge=0)
    ramp: float = Field(default=1.0, gt=0, le=1)
    ramp_steps: int | None = Field(default=None, gt=0)
    consistency_on: Literal["all", "unlabelled"] = "all"
    ema: float = Field(default=0.99, ge=0, lt=1)
    mc_passes: int = Field(default=8, gt=0)
    mc_at_once: int = Field(default=2, gt=0)
    noise_std: float = Field(default=0.1, ge=0)
    noise_clip: float = Field(default=0.2, ge=0)
    mixed_batches: bool = False
    certainty: tuple[Share, Share] = (0.75, 1.0)

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, values: Any) -> Any:  # noqa: ANN401 - what a user typed
        if not isinstance(values, dict):
            return values
        # A preset that does not exist is found out when the field is.
        return merged(PRESETS.get(values.get("preset", "wsiseg"), {}), values)

    def network(self, *, of_volumes: bool) -> str:
        """Return the name of the network, where ``auto`` leaves it open that for images or for volumes."""
        if self.arch != "auto":
            return self.arch
        if not of_volumes:
            return "dual-unet"
        return "vnet" if self.preset == "paper" else "unet3d"

    def resolved(self, facts: TrainingFacts) -> Self:
        """Return options in which level sets reach as far as the data let them, where that was left open."""
        if self.sdf.longest is not None:
            return self
        sides: tuple[float, ...] = (facts.crop_px,)
        if facts.volume is not None:
            spacing = relative_spacing(facts.volume) or (1.0,) * len(facts.volume.patch)
            sides = tuple(side * step for side, step in zip(facts.volume.patch, spacing, strict=True))
        longest = min(_LONGEST, min(sides) / 4)
        return self.model_copy(update={"sdf": self.sdf.model_copy(update={"longest": longest})})

    def training(self) -> dict[str, Any]:
        """Return the settings of a training on images that the preset stands for."""
        return TRAINING[self.preset]

    def training_of_volumes(self) -> dict[str, Any]:
        """Return the settings of a training on volumes that the preset stands for."""
        return TRAINING_OF_VOLUMES[self.preset]
