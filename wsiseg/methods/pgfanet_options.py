"""What can be chosen in the semi-supervised training of PG-FANet, and where it is not the published one.

The paper [1]_ was read in its abstract, its figures and accounts of others; of the rest the authors' code tells. Both
agree unless the table says otherwise. What it calls mended can be had as it was only where an option is named.

=====================  ======================================  =======================================================
what                   published, or in the authors' code      here
=====================  ======================================  =======================================================
agreement              paper: shape attention; code: entropy   attention (``variant``)
                       unless told otherwise
last convolutions      code: two of four are ever used         all four (``net.rates``)
layers without use     code: three                             none
shape attention        0 / 0 where all pixels disagree alike   0
noise on images        made for square crops only              for crops of any shape
encoders               ImageNet                                random, or ``init``, a file; nothing is downloaded
teacher, at first      built anew, with heads of its own       copy of the student
teacher, statistics    own, overwritten by the average         the average alone: its momentum is 0
teacher, normalising   by the batch                            the same (``teacher_mode``)
first update           keeps a tenth of the teacher            the same
weight of agreement,   by epochs of micro-batches              by updates
learning rate
updates                one more at the end of each epoch,      4050 and 8613: as many images in batches of one size,
                       which is smaller                        however many have labels
gradients              sum over batches, then shortened        the same (``fit.accumulation``)
augmentation           turns by any angle, shear, crops, and   turns by quarters, mirrors, scale ± 20 %, stains, light,
                       two of 19 pairs of changes of light     blur (``augmentation``); none makes black corners
masks                  resized with colours in between         nearest pixel
masks of images        read, and not used                      never read
without labels
drawing labels         images                                  patients, else slides or images (``labelled_by``)
validation             last tenth of the images by name        a fifth, drawn (``val_fraction``)
model that is kept     by accuracy of pixels, with boundaries  AJI; the teacher is measured, too
                       counted as wrong; teacher not measured
resuming               weights alone                           all: the same losses as without a break
glands, cut            not known                               3 pixels and the ring, which fits their growth by 4
growth of insides      over insides of others                  not over them; objects are connected, without holes
insides at the border  not known                               go on where the image ends
tiles                  as crops, half of one apart, so that    the same, mirrored and blended; for nuclei ``tile_px``
                       all is seen four times; padded by 0     256 with ``halo_px`` 32 sees all 1.8 times only
symmetries             mean over 8                             ``predict --tta d4``; none by default: 8 times the work
=====================  ======================================  =======================================================

References
----------
.. [1] Jin et al., "Inter- and intra-uncertainty based feature aggregation model for semi-supervised
   histopathology image segmentation", Expert Systems with Applications 238, 2024. Code: BioMedIA-repo/PG-FANet.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, JsonValue

from wsiseg.config import merged
from wsiseg.losses.shape_attention import Dice, Variant  # noqa: TC001 - the options are built from them
from wsiseg.methods.cards import NetOptions
from wsiseg.nets.pgfanet import PGFANET

PresetName = Literal["nuclei", "glands"]

# Micrometres per pixel that the numbers are meant for.
PRESET_MPP: Final[dict[PresetName, float]] = {"nuclei": 0.25, "glands": 0.5}
# Of both presets; gradients of several batches are added up, as the length they are shortened to suits their sum.
_FIT: Final[dict[str, Any]] = {
    "optimiser": "adam",
    "schedule": "poly",
    "power": 0.9,
    "warmup": 0.05,
    "lr": 2.5e-4,
    "weight_decay": 5e-4,
    "clip_norm": 4.0,
    "accumulation": "sum",
}
# As many images as 300 and 200 rounds through MoNuSeg and CRAG.
_TRAINING: Final[dict[PresetName, dict[str, Any]]] = {
    "nuclei": {"crop_px": 128, "batch_size": 16, "fit": {**_FIT, "accumulate": 4, "steps": 4050}},
    "glands": {"crop_px": 480, "batch_size": 4, "fit": {**_FIT, "accumulate": 16, "steps": 8613}},
}
# Glands grow by 4 pixels as published. How much is taken off them is not; 4 makes the two fit each other.
_HEADS: Final[dict[PresetName, dict[str, JsonValue]]] = {
    "nuclei": {},
    "glands": {"erosion_px": 3, "min_area_px": 100, "dilation_px": 4, "reach_px": 256},
}


class PgfanetOptions(NetOptions):
    """Options of the method, beside those of `NetOptions`.

    Parameters
    ----------
    preset
        Numbers of the paper for ``nuclei`` at 0.25 µm per pixel or for ``glands`` at 0.5: crops, batches, updates, and
        how objects are cut and grown. What is set apart from it holds.
    arch
        ``pgfanet``.
    encoder
        ``resnet34``, or ``resnet18`` where time is short.
    init
        ``none``, or a file of weights of such an encoder, as torchvision has them, with which both stages begin.
    head
        ``ternary`` or ``semantic``; ``auto`` takes the first for layers of instances.
    variant, detach_target
        Of the agreement with the teacher; see `wsiseg.losses.shape_attention.consistency`.
    dice
        ``pooled`` over classes as published, or ``per_class``.
    aux_weight
        Of the losses of the first stage's output on labels.
    variance_weight
        Of the variance of probabilities within objects, for the head ``ternary``.
    consistency
        Weight of the agreement with the teacher at the end of its ramp; 0 learns from labels alone.
    ramp
        Part of the training that the ramp lasts; all of it as published, less where the training is short.
    noise_std
        Standard deviation of the noise on normalised images; a coin decides whether student or teacher sees it.
    ema
        Longest memory of the teacher: the part of its weights that stays at each update.
    teacher_mode
        ``train`` normalises what the teacher sees by the statistics of the batch, as published; ``eval`` by those that
        its predictions are made with.
    head_lr_factor
        How much faster all but the encoders learns.
    """

    preset: PresetName = "nuclei"
    arch: Literal["pgfanet"] = PGFANET
    head: Literal["auto", "ternary", "semantic"] = "auto"
    variant: Variant = "shape_mask"
    detach_target: bool = False
    dice: Dice = "pooled"
    aux_weight: float = Field(default=1.0, ge=0)
    variance_weight: float = Field(default=1.0, ge=0)
    consistency: float = Field(default=0.1, ge=0)
    ramp: float = Field(default=1.0, gt=0, le=1)
    noise_std: float = Field(default=0.5, ge=0)
    ema: float = Field(default=0.99, ge=0, lt=1)
    teacher_mode: Literal["train", "eval"] = "train"
    head_lr_factor: float = Field(default=10.0, gt=0)

    def with_preset(self, *, crop_px: int, kind: str) -> PgfanetOptions:
        """Return options with the preset's head and the published halo, a quarter of a tile, where none are set.

        Parameters
        ----------
        crop_px
            Side of the crops.
        kind
            What the labels are.
        """
        has_objects = self.head == "ternary" or (self.head == "auto" and kind == "instances")
        head_options = merged(_HEADS[self.preset], self.head_options) if has_objects else self.head_options
        halo_px = (self.tile_px or crop_px) // 4 if self.halo_px is None else self.halo_px
        return self.model_copy(update={"head_options": head_options, "halo_px": halo_px})

    def training(self) -> dict[str, Any]:
        """Return the settings of a training that the preset stands for."""
        return _TRAINING[self.preset]
