"""What can be chosen in CRAANet and PFSCNet."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from wsiseg.config import Config
from wsiseg.methods.accumulation import AccumulationSettings
from wsiseg.methods.attention_labels import ReliabilitySettings
from wsiseg.methods.pair_options import PairOptions
from wsiseg.methods.sgd import SgdSettings
from wsiseg.nets.attending import AttendingSpec

DESCRIPTION: Final = "Tissue classes, learnt from what patches show by a reconstruction of CRAANet and PFSCNet"


class ClassifyNumbers(SgdSettings):
    """How the classifier is trained; see `SgdSettings`."""

    epochs: int = Field(default=20, gt=0)
    last_batch: Literal["drop", "keep"] = "drop"
    lr: float = Field(default=0.01, gt=0)
    heads: tuple[str, ...] = ("head",)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0005, ge=0)


class SegmentNumbers(SgdSettings):
    """How the segmentation network is trained; see `SgdSettings`."""

    epochs: int = Field(default=30, gt=0)
    last_batch: Literal["drop", "keep"] = "keep"
    lr: float = Field(default=0.001, gt=0)
    heads: tuple[str, ...] = ("aspp", "decoder", "classifier", "projection")
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0005, ge=0)


class StageNumbers(Config):
    """Numbers of the two trainings.

    Parameters
    ----------
    classify, segment
        By the name of their stage.
    """

    classify: ClassifyNumbers = ClassifyNumbers()
    segment: SegmentNumbers = SegmentNumbers()


class EnergySettings(Config):
    """The dense energy; see `dense_energy`.

    Parameters
    ----------
    weight
        Beside a cross-entropy of weight 1; 0 leaves the energy out. What is published is a sum
        over pixels with a weight of 1e-7; for the normalised form that comes to 1.
    sigma_px, sigma_rgb, scale
        Range in place and colour, and resolution.
    """

    weight: float = Field(default=1.0, ge=0)
    sigma_px: float = Field(default=100.0, gt=0)
    sigma_rgb: float = Field(default=15.0, gt=0)
    scale: float = Field(default=0.25, gt=0, le=1)


class ContrastSettings(Config):
    """Pixel clustering; see `pixel_clustering` and `ClassCentres`.

    Parameters
    ----------
    weight
        Beside a cross-entropy of weight 1; 0 leaves contrast, projection and centres out.
    start
        Part of the updates, 0 … 1, that it waits, until the network has learnt something. An eighth
        is published, of 40,000 updates. Of few updates that is too early: vectors of a network that
        knows nothing gather around nothing, and the training can collapse. Then take a half.
    temperature, base_temperature, max_samples, max_views
        Of the contrast.
    channels
        Length of the vectors of pixels.
    centre_momentum, centres_per_class
        Of the centres.
    relabel_margin
        By how much an unreliable pixel's vector must be nearer to one centre than to the second,
        as a difference of cosines, to take its class for the contrast. None relabels nothing.
    """

    weight: float = Field(default=0.1, ge=0)
    start: float = Field(default=0.125, ge=0, le=1)
    temperature: float = Field(default=0.1, gt=0)
    base_temperature: float = Field(default=0.07, gt=0)
    max_samples: int = Field(default=1024, gt=0)
    max_views: int = Field(default=100, gt=0)
    channels: int = Field(default=128, gt=0)
    centre_momentum: float = Field(default=0.99, ge=0, lt=1)
    centres_per_class: int = Field(default=1, gt=0)
    relabel_margin: float | None = Field(default=None, ge=0)


class CraanetOptions(PairOptions):
    """Options of the method, beside those of `PairOptions`.

    Which defaults are reconstructed stands in `wsiseg.methods.craanet`.

    Parameters
    ----------
    heads, residual_weight
        Of the classifier; a weight of 0 leaves class residual attention out. See `AttendingSpec`.
    maps
        What is accumulated: ``score``, how much a position looks like a class, or ``residual``,
        what it adds to the logit, whose peaks are sharper.
    accumulate
        Accumulate attention over the epochs; otherwise labels are made of the trained classifier's.
    accumulation
        Which maps count, and how they are laid over one another.
    drop
        In half of the batches, hide from the classifier where it has seen a class already; needs `accumulate`.
    reliability
        Which labels are learnt from.
    decoder
        Of the segmentation network: ``v3plus`` at output stride 16, or ``none``, which is DeepLabV3 at
        output stride 8.
    vertical_flips
        Mirror patches up and down, too, in training of the segmentation network.
    numbers
        Of the trainings, by stage.
    energy, contrast
        Losses beside the cross-entropy.
    gate
        In prediction only the classes that the classifier sees in a tile are let through.
    epsilon
        Probability up to which the classifier rules a class out.
    """

    heads: Literal[1, 2, 4, 6, 8] = 1
    residual_weight: float = Field(default=0.3, ge=0)
    maps: Literal["score", "residual"] = "score"
    accumulate: bool = True
    accumulation: AccumulationSettings = AccumulationSettings()
    drop: bool = False
    reliability: ReliabilitySettings = ReliabilitySettings()
    decoder: Literal["v3plus", "none"] = "v3plus"
    vertical_flips: bool = False
    numbers: StageNumbers = StageNumbers()
    energy: EnergySettings = EnergySettings()
    contrast: ContrastSettings = ContrastSettings()
    gate: bool = False
    epsilon: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.drop and not self.accumulate:
            raise ValueError("drop hides what accumulated attention has seen; leave it out, or set accumulate to true")
        return self

    @property
    def classifier(self) -> AttendingSpec:
        """Return the classifier."""
        return AttendingSpec(
            backbone=self.backbone,
            output_stride=self.output_stride,
            heads=self.heads,
            residual_weight=self.residual_weight,
        )
