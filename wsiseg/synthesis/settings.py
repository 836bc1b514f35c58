"""Settings of CSinGAN: as published, and for a GPU, a few processor cores, and a first look."""

from __future__ import annotations

from typing import Any, Final, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from wsiseg.config import Config
from wsiseg.synthesis.layouts import LayoutSettings

PresetName: TypeAlias = Literal["paper", "gpu", "cpu", "smoke"]


class GanSettings(Config):
    """How the GAN of a patch is trained.

    Where the released code of [1] and what is right differ, the default is what is right; what can be chosen says so.
    Never done as published, since it would undo the method: components of generated images reach the generator
    (there they are cut from a detached copy), they are cut at each scale (there at full size, then resized), masks of
    each scale are resized from full size (there from the scale below), the mask of a map of scores is its centre
    (there the whole mask, squeezed), and the noise of the reconstruction is drawn once (there at every epoch).
    Beside these, the noise of the scale in training is drawn anew for each image (there, above the lowest scale, once
    for all masks of an epoch), and images pass from one scale to the next as they are (there in 8 bits), each
    channel within its range in the patch at that size (there within that of 8 bits).

    Parameters
    ----------
    preset
        What the other settings are unless they are given: ``paper`` (long) and ``gpu``, both for a GPU and not
        timed on one yet, ``cpu`` (less than half an hour on two cores), or ``smoke``, a first look.
    smallest_px, largest_px
        Sides of the patch at the lowest and the highest scale. Of larger patches the square of this side with most
        nuclei is taken, at the patch's own resolution; of smaller ones both shrink in proportion.
    widths
        Channels of generator and critics at each scale, from the lowest. A scale begins with the weights of the one
        below where their widths are equal.
    steps
        Updates of the generator at each scale.
    critic_steps
        Updates of the critics before each of these.
    penalty_every
        Updates of the critics from one gradient penalty to the next, which then weighs as much more.
    masks
        New masks to train with.
    mask_order
        ``random``, or ``cyclic`` as published.
    layout
        How nuclei of new masks are laid out.
    norm
        ``instance``, ``batch`` as published, or ``none``, as in all presets but ``paper``; see `Generator`, `Critics`.
    critic_output
        ``linear``, or ``relu6`` as published; see `Critics`.
    component_reduction
        ``all`` as published, or ``masked``; see `mean_scores`.
    component_weight
        Weight of the two critics of components in the loss of the generator, 1 as published; with 0 only the whole
        image counts. What lies outside a component is black to its critic, so that black gaps between nuclei that lie
        close together pass for larger nuclei; the more these critics weigh, the more such gaps a short training leaves.
    reconstruction_weight, penalty_weight
        Of the squared error of the reconstruction, and of the gradient penalty.
    noise
        Noise above the lowest scale, as a part of the error of the reconstruction there.
    lr
        Learning rate of Adam.
    seed
        Decides masks, weights and noise.

    References
    ----------
    .. [1] Lou et al., "Which Pixel to Annotate: a Label-Efficient Nuclei Segmentation Framework", IEEE TMI 42(4),
       2023. Numbers are those of its released code.
    """

    preset: PresetName = "cpu"
    smallest_px: int = Field(default=128, ge=16)
    largest_px: int = Field(default=256, ge=32)
    widths: tuple[int, ...] = Field(default=(32, 32, 32, 32, 64), min_length=2)
    steps: int = Field(default=25_000, ge=1)
    critic_steps: int = Field(default=3, ge=1)
    penalty_every: int = Field(default=1, ge=1)
    masks: int = Field(default=50, ge=1)
    mask_order: Literal["random", "cyclic"] = "random"
    layout: LayoutSettings = LayoutSettings()
    norm: Literal["none", "instance", "batch"] = "instance"
    critic_output: Literal["linear", "relu6"] = "linear"
    component_reduction: Literal["all", "masked"] = "all"
    component_weight: float = Field(default=1.0, ge=0)
    reconstruction_weight: float = Field(default=10.0, ge=0)
    penalty_weight: float = Field(default=0.1, ge=0)
    noise: float = Field(default=0.1, ge=0)
    lr: float = Field(default=5e-4, gt=0)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:  # noqa: ANN401 - whatever was given
        """Take from the preset what is not given."""
        if not isinstance(values, dict):
            return values
        return {**PRESETS.get(values.get("preset", "cpu"), {}), **values}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.smallest_px >= self.largest_px:
            raise ValueError("smallest_px must be below largest_px")
        return self


# Sides, widths, steps and critics' steps of ``paper`` are those of the released code; of the others they are chosen
# here, so that ``cpu`` takes minutes, and ``gpu`` is meant to. In so few steps networks with norms often do not find
# the colours; those without find them, and rebuild the patch itself less closely.
_SHORT: Final[dict[str, object]] = {"norm": "none", "component_weight": 0.1}
PRESETS: Final[dict[str, dict[str, object]]] = {
    "paper": {},
    "gpu": {**_SHORT, "steps": 2000},
    "cpu": {
        **_SHORT,
        "smallest_px": 64,
        "widths": (16, 16, 16, 16, 16),
        "steps": 800,
        "critic_steps": 1,
        "penalty_every": 4,
    },
    "smoke": {
        **_SHORT,
        "smallest_px": 64,
        "largest_px": 128,
        "widths": (16, 16, 16, 16, 16),
        "steps": 150,
        "critic_steps": 1,
        "penalty_every": 4,
    },
}
