"""Mean teacher: a network learns to agree with the running average of itself, on images without labels, too."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import torch
from pydantic import Field

from wsiseg.errors import MethodError
from wsiseg.methods.cards import NetOptions, begin, make_card
from wsiseg.methods.label_loss import LabelLoss, outputs_of
from wsiseg.methods.predictor import build_network, normalised
from wsiseg.methods.single import SingleStageMethod
from wsiseg.methods.teachers import TaughtLearner, by_kind, require_labels, told_of, with_noise
from wsiseg.ramps import gaussian, harmonic_decay

if TYPE_CHECKING:
    from torch import Tensor

    from wsiseg.checkpoint import ModelCard
    from wsiseg.methods.base import Batch, Clock, TrainingFacts

# The instance head whose maps are probabilities of classes.
TERNARY: Final = "ternary"


class MeanTeacherOptions(NetOptions):
    """Options of the method, beside those of its network.

    Parameters
    ----------
    dice_weight
        Weight of the soft Dice loss beside the cross-entropy, for classes of pixels.
    ema
        Longest memory of the teacher: the part of its weights that stays at each update.
    consistency
        Weight of the agreement with the teacher at the end of its ramp; 0 learns from labels alone.
    ramp
        Part of the training that the ramp lasts; usually all of it, and where that is short less.
    noise_std, noise_clip
        Noise on the images that the teacher sees, normalised ones: its standard deviation, and the most of it.
    mixed_batches
        Images with labels and without pass through the networks together, as usual, so that batch normalisation scales
        each by both; else each kind by its own.
    """

    dice_weight: float = Field(default=1.0, ge=0)
    ema: float = Field(default=0.99, ge=0, lt=1)
    consistency: float = Field(default=0.1, ge=0)
    ramp: float = Field(default=1.0, gt=0, le=1)
    noise_std: float = Field(default=0.1, ge=0)
    noise_clip: float = Field(default=0.2, ge=0)
    mixed_batches: bool = False


class MeanTeacherLearner(TaughtLearner):
    """Learns from labels as ``supervised`` does, and on all images to agree with a teacher that sees noise.

    Parameters
    ----------
    card
        The model to be.
    kind
        What the labels are.
    options
        Weights, noise and memory.

    References
    ----------
    .. [1] Tarvainen and Valpola, "Mean teachers are better role models: Weight-averaged consistency targets improve
       semi-supervised deep learning results", NeurIPS 2017. As usual in segmentation, the student sees images
       without the noise, and the ramp is 0.1 exp(-5 (1 - t)²) over the whole training.
    """

    def __init__(self, card: ModelCard, *, kind: str, options: MeanTeacherOptions) -> None:
        super().__init__(card, kind=kind, student=build_network(card))
        self._loss, self._options = LabelLoss(card, dice_weight=options.dice_weight), options

    def training_step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Return ``loss`` and its parts.

        ``consistency`` is the mean squared difference of probabilities, and ``weight`` its weight; the rest is that of
        `told_of`. Without consistency there are the losses on labels alone.

        Raises
        ------
        MethodError
            If the batch has no labels.
        """
        require_labels(batch, "the mean teacher")
        images = normalised(batch.images, self.card)
        if self._options.consistency == 0:
            return self._loss(outputs_of(self.module.student, images[: batch.labelled]), batch.targets)
        student, teacher = self.module.student, self.module.teacher
        look = partial(by_kind, labelled=batch.labelled, mixed=self._options.mixed_batches)
        # Before the student, whose activations wait for the way back and would lie beside the teacher's.
        with torch.no_grad():
            noisy = with_noise(images, std=self._options.noise_std, clip=self._options.noise_clip)
            (taught,) = look(teacher, lambda part: (teacher(part).float().softmax(dim=1),), noisy)
        outputs = look(student, lambda part: outputs_of(student, part), images)
        losses = self._loss([maps[: batch.labelled] for maps in outputs], batch.targets)
        prob = outputs[0].softmax(dim=1)
        consistency = (prob - taught).square().mean()
        weight = self._options.consistency * gaussian(clock.progress / self._options.ramp)
        return {
            **losses,
            "loss": losses["loss"] + weight * consistency,
            "consistency": consistency.detach(),
            "weight": consistency.new_tensor(weight),
        } | told_of(prob, taught)

    def after_update(self, clock: Clock) -> None:
        """Move the teacher towards the student."""
        self.module.follow(harmonic_decay(clock.step, longest=self._options.ema), buffers=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanTeacherStage:
    """The method's only stage."""

    options: MeanTeacherOptions
    name: str = "mean-teacher"

    def build(self, facts: TrainingFacts) -> MeanTeacherLearner:
        """Return an untrained learner; see `Stage`."""
        card = make_card(self.options, facts, objects=TERNARY)
        if card.head is not None and card.head.kind != TERNARY:
            raise MethodError(
                f"the maps of the head {card.head.kind} are no probabilities that a teacher could agree with",
                where="--head",
                mend=f"Use --head {TERNARY}",
            )
        learner = MeanTeacherLearner(card, kind=facts.kind, options=self.options)
        begin(learner.module.student, self.options, card, facts)
        # The teacher begins with the same weights.
        learner.module.follow(0.0, buffers=True)
        return learner


METHOD = SingleStageMethod(
    name="mean-teacher",
    summary="a network learns from few labels, and to agree with its running average on all images",
    options=MeanTeacherOptions,
    stage=MeanTeacherStage,
    unlabelled_weight=lambda options: options.consistency,
)
