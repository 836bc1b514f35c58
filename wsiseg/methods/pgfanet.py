"""Semi-supervised PG-FANet: a teacher and the two stages of the student agree about images without labels."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from wsiseg.losses.instance_variance import instance_variance
from wsiseg.losses.shape_attention import consistency, segmentation
from wsiseg.methods.cards import begin, make_card
from wsiseg.methods.pgfanet_options import PRESET_MPP, PgfanetOptions
from wsiseg.methods.predictor import build_network, normalised
from wsiseg.methods.single import SingleStageMethod
from wsiseg.methods.teachers import TaughtLearner, require_labels, told_of
from wsiseg.nets.pgfanet import PGFANet
from wsiseg.ramps import ema_decay, gaussian

if TYPE_CHECKING:
    from torch import Tensor

    from wsiseg.checkpoint import ModelCard
    from wsiseg.methods.base import Batch, Clock, TrainingFacts


logger = logging.getLogger(__name__)

# Part by which the resolution may differ from that of a preset before it is spoken of.
_OTHER_SCALE: Final = 0.2


class PgfanetLearner(TaughtLearner):
    """Learns from few labels with both stages, and to agree with a teacher and with itself on images without.

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

    References
    ----------
    .. [1] Jin et al., "Inter- and intra-uncertainty based feature aggregation model for semi-supervised
       histopathology image segmentation", Expert Systems with Applications 238, 2024.
    """

    def __init__(self, card: ModelCard, *, kind: str, student: PGFANet, options: PgfanetOptions) -> None:
        super().__init__(card, kind=kind, student=student)
        self._student, self._options = student, options

    def training_step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Return ``loss`` and its parts.

        From labels come ``cross_entropy`` and ``dice`` of the output, ``aux``, the same of the first stage, and for
        objects ``variance``. Images without labels, where there are some, add ``consistency`` with its parts and its
        ``weight``, and what `told_of` says.

        Raises
        ------
        MethodError
            If the batch has no labels.
        """
        require_labels(batch, "PG-FANet")
        images = normalised(batch.images, self.card)
        agreement: dict[str, Tensor] = {}
        if batch.labelled < len(images) and self._options.consistency > 0:
            agreement = self._agreed(images[batch.labelled :])
        losses = self._labelled(images[: batch.labelled], batch.targets)
        if agreement:
            weight = self._options.consistency * gaussian(clock.progress / self._options.ramp)
            losses["loss"] = losses["loss"] + weight * agreement.pop("loss")
            losses |= agreement | {"weight": losses["loss"].new_tensor(weight)}
        return losses

    def rate_of(self, name: str) -> float:
        """Return 1 for the encoders, and how much faster the rest learns."""
        is_encoder = name.removeprefix("student.").startswith(("encoder.", "encoder2."))
        return 1.0 if is_encoder else self._options.head_lr_factor

    def after_update(self, clock: Clock) -> None:
        """Move the teacher towards the student, statistics of normalisation included."""
        self.module.follow(ema_decay(clock.step, longest=self._options.ema), buffers=True)

    def _labelled(self, images: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        options, labels = self._options, targets["classes"].long()
        out, aux = (logits.float() for logits in self._student.both(images, perturb=False))
        losses, early = (segmentation(logits, labels, dice=options.dice) for logits in (out, aux))
        losses["loss"] = losses["loss"] + options.aux_weight * early["loss"]
        losses["aux"] = early["loss"].detach()
        if "objects" in targets:
            variance = instance_variance(out.softmax(dim=1), targets["objects"])
            losses["loss"] = losses["loss"] + options.variance_weight * variance
            losses["variance"] = variance.detach()
        return losses

    def _agreed(self, images: Tensor) -> dict[str, Tensor]:
        """Return the disagreement on normalised images as ``loss``, and what is told of it."""
        options = self._options
        noisy = images + options.noise_std * torch.randn_like(images)
        # Drawn on the CPU: a GPU would be waited for.
        seen, shown = (noisy, images) if float(torch.rand(())) < 0.5 else (images, noisy)  # noqa: PLR2004 - a fair coin
        # Before the student, whose activations wait for the way back and would lie beside the teacher's.
        with torch.no_grad():
            self.module.teacher.train(self.module.training and options.teacher_mode == "train")
            teacher = self.module.teacher(shown).float().softmax(dim=1)
        student, aux = (logits.float().softmax(dim=1) for logits in self._student.both(seen, perturb=True))
        parts = consistency(student, aux, teacher, variant=options.variant, detach_target=options.detach_target)
        return parts | {"consistency": parts["loss"].detach()} | told_of(student, teacher)


@dataclass(frozen=True, slots=True, kw_only=True)
class PgfanetStage:
    """The method's only stage."""

    options: PgfanetOptions
    name: str = "pgfanet"

    def build(self, facts: TrainingFacts) -> PgfanetLearner:
        """Return an untrained learner; see `Stage`."""
        options = self.options.with_preset(crop_px=facts.crop_px, kind=facts.kind)
        card = make_card(options, facts, objects="ternary")
        meant = PRESET_MPP[options.preset]
        if card.head is not None and facts.mpp is not None and abs(facts.mpp / meant - 1) > _OTHER_SCALE:
            logger.warning(
                "the preset %s is meant for %g µm per pixel, and this is %g, but objects are cut and grown by as many "
                "pixels; pass --mpp %g, --set options.preset=…, or --set options.head_options.…",
                options.preset, meant, facts.mpp, meant,
            )  # fmt: skip
        net = build_network(card)
        if not isinstance(net, PGFANet):
            raise TypeError(f"not a PG-FANet: {type(net).__name__}")
        # Before the teacher is copied from it.
        begin(net, options, card, facts)
        return PgfanetLearner(card, kind=facts.kind, student=net, options=options)


METHOD = SingleStageMethod(
    name="pgfanet",
    summary="a network of two stages learns from few labels, and to agree with itself on images without",
    options=PgfanetOptions,
    stage=PgfanetStage,
    usual=PgfanetOptions.training,
    unlabelled_weight=lambda options: options.consistency,
)
