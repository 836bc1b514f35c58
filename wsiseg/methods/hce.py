"""Hierarchical consistency enforcement, reconstructed: decoders of disturbed features agree, led by a teacher.

This is experimental, and a reconstruction and not the authors' implementation: no code is public, and what is built
here follows the abstract of [1]_ and losses of its successor PG-FANet [2]_. Known from the abstract are a mean teacher,
auxiliary decoders of disturbed features of a hierarchical encoder, and an agreement of which one part is made more
reliable by what the teacher is unsure of and the other is among the student's decoders. Chosen here are

- the network: a dilated ResNet whose four stages go into each decoder, and three auxiliary decoders;
- the disturbances, which are those of [2]_, one drawn for each decoder and batch; images with labels
  are left as they are;
- the loss, see `hierarchical_consistency`, with the weight and the ramp of [2]_;
- the loss on labels, cross-entropy and Dice of the main output and the mean of those of the others;
- noise on the images that the teacher sees, and all numbers of the training, which are those of ``mean-teacher``.

References
----------
.. [1] Jin et al., "Semi-supervised Histological Image Segmentation via Hierarchical Consistency Enforcement",
   MICCAI 2022.
.. [2] Jin et al., "Inter- and intra-uncertainty based feature aggregation model for semi-supervised
   histopathology image segmentation", Expert Systems with Applications 238, 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field

from wsiseg.losses.hierarchical import hierarchical_consistency
from wsiseg.losses.shape_attention import Dice, segmentation
from wsiseg.methods.cards import NetOptions, begin, make_card
from wsiseg.methods.predictor import build_network, normalised
from wsiseg.methods.single import SingleStageMethod
from wsiseg.methods.teachers import TaughtLearner, require_labels, told_of, with_noise
from wsiseg.nets.hce import HCE, HCENet
from wsiseg.ramps import ema_decay, gaussian

if TYPE_CHECKING:
    from torch import Tensor

    from wsiseg.checkpoint import ModelCard
    from wsiseg.methods.base import Batch, Clock, TrainingFacts


class HceOptions(NetOptions):
    """Options of the method, beside those of its network.

    Parameters
    ----------
    arch
        ``hce``.
    encoder
        ``resnet34`` or ``resnet18``.
    head
        ``ternary`` or ``semantic``; ``auto`` takes the first for layers of instances.
    dice
        ``pooled`` over classes, or ``per_class``.
    aux_weight
        Of the losses of the auxiliary decoders on labels.
    consistency
        Weight of the agreement at the end of its ramp; 0 learns from labels alone.
    ramp
        Part of the training that the ramp lasts; all of it where that is long, less where it is short.
    noise_std, noise_clip
        Noise on the images that the teacher sees, normalised ones: its standard deviation, and the most of it.
    ema
        Longest memory of the teacher: the part of its weights that stays at each update.
    """

    arch: Literal["hce"] = HCE
    head: Literal["auto", "ternary", "semantic"] = "auto"
    dice: Dice = "pooled"
    aux_weight: float = Field(default=1.0, ge=0)
    consistency: float = Field(default=0.1, ge=0)
    ramp: float = Field(default=1.0, gt=0, le=1)
    noise_std: float = Field(default=0.1, ge=0)
    noise_clip: float = Field(default=0.2, ge=0)
    ema: float = Field(default=0.99, ge=0, lt=1)


class HceLearner(TaughtLearner):
    """Learns from few labels with all decoders, and that they agree with each other and with a teacher.

    Parameters
    ----------
    card
        The model to be.
    kind
        What the labels are.
    student
        The network that learns.
    options
        Of the method.
    """

    def __init__(self, card: ModelCard, *, kind: str, student: HCENet, options: HceOptions) -> None:
        super().__init__(card, kind=kind, student=student)
        self._student, self._options = student, options

    def training_step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Return ``loss`` and its parts.

        From labels come ``cross_entropy`` and ``dice`` of the main output, and ``aux``, both of the others. Images
        without labels, where there are some, add ``consistency`` with its parts ``inter`` and ``intra`` and its
        ``weight``, and what `told_of` says.

        Raises
        ------
        MethodError
            If the batch has no labels.
        """
        require_labels(batch, "HCE")
        images, options = normalised(batch.images, self.card), self._options
        known = images[: batch.labelled]
        losses, *others = (
            segmentation(logits.float(), batch.targets["classes"].long(), dice=options.dice)
            for logits in self._student.opinions(known, perturb=False)
        )
        aux = torch.stack([other["loss"] for other in others]).mean()
        losses["loss"] = losses["loss"] + options.aux_weight * aux
        losses["aux"] = aux.detach()
        if batch.labelled == len(images) or options.consistency == 0:
            return losses
        agreement = self._agreed(images[batch.labelled :])
        weight = options.consistency * gaussian(clock.progress / options.ramp)
        losses["loss"] = losses["loss"] + weight * agreement.pop("loss")
        return losses | agreement | {"weight": aux.new_tensor(weight)}

    def after_update(self, clock: Clock) -> None:
        """Move the teacher towards the student, statistics of normalisation included."""
        self.module.follow(ema_decay(clock.step, longest=self._options.ema), buffers=True)

    def _agreed(self, images: Tensor) -> dict[str, Tensor]:
        """Return the disagreement on normalised images as ``loss``, and what is told of it."""
        # Before the student, whose activations wait for the way back and would lie beside the teacher's.
        with torch.no_grad():
            shown = with_noise(images, std=self._options.noise_std, clip=self._options.noise_clip)
            taught = self.module.teacher(shown).float().softmax(dim=1)
        main, *others = (logits.float().softmax(dim=1) for logits in self._student.opinions(images, perturb=True))
        parts = hierarchical_consistency(main, others, taught)
        return parts | {"consistency": parts["loss"].detach()} | told_of(main, taught)


@dataclass(frozen=True, slots=True, kw_only=True)
class HceStage:
    """The method's only stage."""

    options: HceOptions
    name: str = "hce"

    def build(self, facts: TrainingFacts) -> HceLearner:
        """Return an untrained learner; see `Stage`."""
        card = make_card(self.options, facts, objects="ternary")
        net = build_network(card)
        if not isinstance(net, HCENet):
            raise TypeError(f"not a network of several decoders: {type(net).__name__}")
        # Before the teacher is copied from it.
        begin(net, self.options, card, facts)
        return HceLearner(card, kind=facts.kind, student=net, options=self.options)


METHOD = SingleStageMethod(
    name="hce",
    summary="experimental: decoders of disturbed features learn to agree with each other and with a teacher",
    options=HceOptions,
    stage=HceStage,
    unlabelled_weight=lambda options: options.consistency,
)
