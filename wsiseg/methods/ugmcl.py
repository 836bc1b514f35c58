"""Uncertainty-guided mutual consistency: a teacher and two tasks agree about images and volumes without labels."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from wsiseg.config import merged
from wsiseg.errors import MethodError
from wsiseg.labels import IGNORE
from wsiseg.losses import mutual
from wsiseg.losses.semantic import cross_entropy
from wsiseg.methods.cards import ClassTargets, begin, make_card
from wsiseg.methods.predictor import build_network, normalised
from wsiseg.methods.single import SingleStageMethod
from wsiseg.methods.teachers import TaughtLearner, by_kind, require_labels, told_of, with_noise
from wsiseg.methods.ugmcl_options import UgmclOptions
from wsiseg.methods.ugmcl_targets import LevelSetTargets, labels_of, relative_spacing
from wsiseg.nets.dual_task import DualTaskNet
from wsiseg.nets.factory import NetSpec, spec_type
from wsiseg.nets.two_task import TwoTaskSpec
from wsiseg.ramps import gaussian, harmonic_decay

if TYPE_CHECKING:
    from pydantic import JsonValue
    from torch import Tensor

    from wsiseg.checkpoint import ModelCard
    from wsiseg.methods.base import Batch, Clock, TrainingFacts

logger = logging.getLogger(__name__)

# A teacher that is sure of fewer pixels teaches hardly anything; looked at every so many updates, and at the end.
_FEW: Final = 0.05
_LOOK_EVERY: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taught:
    """What a teacher says of images: level sets, probabilities, and the entropy of its doubt."""

    sdf: Tensor
    prob: Tensor
    doubt: Tensor


class _CoverageWatch:
    """Says a word where a teacher is sure of next to nothing, and no other until it was sure of more in between."""

    def __init__(self) -> None:
        # Numbers would make a GPU wait at each step.
        self._seen: list[Tensor] = []
        self._is_told = False

    def note(self, coverage: Tensor) -> None:
        """Take down the part of the pixels of a batch of which the teacher is sure."""
        self._seen.append(coverage)

    def look(self, clock: Clock) -> None:
        """Look at the mean since the last look, where one is due after an update."""
        if not self._seen or ((clock.step + 1) % _LOOK_EVERY and clock.step + 1 < clock.steps):
            return
        mean = float(torch.stack(self._seen).mean())
        self._seen = []
        if mean < _FEW and not self._is_told:
            logger.warning(
                "the teacher is sure of %.1f %% of the pixels only up to update %d, so they teach hardly anything; "
                "less dropout or a higher certainty may help",
                100 * mean,
                clock.step + 1,
            )
        self._is_told = mean < _FEW


class UgmclLearner(TaughtLearner):
    """Learns classes and level sets from few labels, and on all images to agree with a teacher and with itself.

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
    .. [1] Zhang et al., "Uncertainty-guided mutual consistency learning for semi-supervised medical image
       segmentation", Artificial Intelligence in Medicine 2022.
    .. [2] Yu et al., "Uncertainty-aware Self-ensembling Model for Semi-supervised 3D Left Atrium Segmentation",
       MICCAI 2019, which measures doubt in the same way.
    """

    def __init__(self, card: ModelCard, *, kind: str, student: DualTaskNet, options: UgmclOptions) -> None:
        super().__init__(card, kind=kind, student=student)
        self._options = options
        if card.head is None:
            classes = ClassTargets(num_classes=len(card.labels), kind=kind)
            self._encode = LevelSetTargets(classes=classes, sdf=options.sdf, spacing=relative_spacing(card.volume))
        self._watch = _CoverageWatch()

    def training_step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Return ``loss`` and its parts.

        From labels come ``cross_entropy``, ``dice`` and, where they have a weight, ``distance`` of the level sets and
        ``inverse_dice`` of their masks. The images that are to agree add ``intra_task`` and ``cross_task`` and their
        ``weight``; ``coverage``, the part of the pixels of which the teacher is sure; and what `told_of` says.

        Raises
        ------
        MethodError
            If the batch has no labels.
        """
        require_labels(batch, "mutual consistency")
        images, count = normalised(batch.images, self.card), batch.labelled
        first = 0 if self._options.consistency_on == "all" else count
        agrees = first < len(images) and self._options.consistency > 0
        # Before the student, whose activations wait for the way back and would lie beside the teacher's.
        taught = self._taught(images[first:], labelled=count - first) if agrees else None
        net, mixed = self.module.student, self._options.mixed_batches
        sdf, prob, logits = by_kind(net, partial(_looked_at, net), images, count, mixed=mixed)
        losses = self._supervised(sdf[:count], prob[:count], logits[:count], batch.targets)
        if taught is None:
            return losses
        agreement, told = self._agreement(taught, sdf[first:], prob[first:], clock)
        weight = self._options.consistency * self._ramp(clock)
        losses["loss"] = losses["loss"] + weight * agreement
        return losses | told | {"weight": agreement.new_tensor(weight)}

    def after_update(self, clock: Clock) -> None:
        """Move the teacher towards the student, and say a word where it is sure of nothing."""
        self.module.follow(harmonic_decay(clock.step, longest=self._options.ema), buffers=True)
        self._watch.look(clock)

    def doubt(self, images: Tensor) -> Tensor:
        """Return the entropy of what the teacher says of images, in many passes with dropout and noise.

        Parameters
        ----------
        images
            float (B, channels, …), normalised.

        Returns
        -------
        Tensor
            float32 (B, 1, …), 0 … ln C.
        """
        options, total = self._options, None
        with torch.no_grad():
            for first in range(0, options.mc_passes, options.mc_at_once):
                passes = min(options.mc_at_once, options.mc_passes - first)
                # Whole batches one after another: each image stays at its place within its pass.
                copies = images.repeat(passes, *[1] * (images.ndim - 1))
                _, prob, _ = _looked_at(self.module.teacher, self._noisy(copies))
                found = prob.reshape(passes, len(images), *prob.shape[1:]).sum(dim=0)
                total = found if total is None else total + found
            if total is None:
                raise ValueError("doubt is measured in one pass or more")
            return mutual.entropy(total / options.mc_passes)

    def _supervised(self, sdf: Tensor, prob: Tensor, logits: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        options, (labels, truth) = self._options, labels_of(targets)
        known = (labels != IGNORE).unsqueeze(1).float()
        masks = torch.stack([labels == label for label in range(1, prob.shape[1])], dim=1).float()
        entropy = cross_entropy(logits, labels)
        dice = mutual.squared_dice(prob[:, 1:], masks, known, skips_absent=options.skips_absent)
        loss = options.supervised_weight * (entropy + dice)
        parts = {"cross_entropy": entropy, "dice": dice}
        if truth is not None and options.sdf.weight > 0:
            parts["distance"] = mutual.distance(sdf, truth, targets["settled"].view_as(truth), norm=options.sdf.loss)
            loss = loss + options.sdf.weight * parts["distance"]
        if options.sdf.inverse_dice > 0:
            inside = mutual.inverse(sdf, steepness=options.ctc.steepness)
            parts["inverse_dice"] = mutual.squared_dice(inside, masks, known, skips_absent=options.skips_absent)
            loss = loss + options.sdf.inverse_dice * parts["inverse_dice"]
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}}

    def _taught(self, images: Tensor, *, labelled: int) -> _Taught:
        """Return what the teacher says of normalised images, and how unsure it is."""
        net = self.module.teacher
        look = partial(by_kind, net, images=images, labelled=labelled, mixed=self._options.mixed_batches)
        with torch.no_grad():
            sdf, prob, _ = look(lambda part: _looked_at(net, self._noisy(part)))
        (doubt,) = look(lambda part: (self.doubt(part),))
        return _Taught(sdf=sdf, prob=prob, doubt=doubt)

    def _agreement(self, taught: _Taught, sdf: Tensor, prob: Tensor, clock: Clock) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the disagreement within and across tasks, before its ramp, and what is told of it."""
        options = self._options
        lowest, highest = options.certainty
        share = lowest + (highest - lowest) * gaussian(clock.progress / options.ramp)
        mask = (taught.doubt < mutual.certainty_limit(prob.shape[1], share)).float()
        intra = options.itc.beta * mutual.intra_task(prob, taught.prob, mask, channels=options.itc.channels)
        if options.itc.beta < 1:
            within = mutual.intra_task(sdf, taught.sdf, mask, channels=options.itc.channels)
            intra = intra + (1 - options.itc.beta) * within
        cross = mutual.cross_task(
            prob[:, 1:], sdf, steepness=options.ctc.steepness, mask=mask if options.ctc.masked else None
        )
        coverage = mask.mean()
        self._watch.note(coverage)
        return options.itc.weight * intra + options.ctc.weight * cross, {
            "intra_task": intra.detach(),
            "cross_task": cross.detach(),
            "coverage": coverage,
            **told_of(prob, taught.prob, entropy=taught.doubt),
        }

    def _ramp(self, clock: Clock) -> float:
        steps, passed = self._options.ramp_steps, clock.progress / self._options.ramp
        return gaussian(passed if steps is None else math.floor(passed * steps) / steps)

    def _noisy(self, images: Tensor) -> Tensor:
        return with_noise(images, std=self._options.noise_std, clip=self._options.noise_clip)


@dataclass(frozen=True, slots=True, kw_only=True)
class UgmclStage:
    """The method's only stage."""

    options: UgmclOptions
    name: str = "ugmcl"

    def build(self, facts: TrainingFacts) -> UgmclLearner:
        """Return an untrained learner; see `Stage`."""
        options = self.options.resolved(facts)
        arch = options.network(of_volumes=facts.volume is not None)
        head_options = options.head_options
        if options.head == "level-set" or (options.head == "auto" and facts.kind == "instances"):
            usual = {"longest_px": options.sdf.longest, "zero_ring": options.sdf.zero_ring}
            head_options = merged(usual, head_options)
        options = options.model_copy(update={"arch": arch, "head_options": head_options})
        card = make_card(options, facts, objects="level-set")
        described = _described(card)
        net = build_network(card.model_copy(update={"net": described}))
        if not isinstance(net, DualTaskNet):
            raise TypeError(f"not a network of two tasks: {type(net).__name__}")
        # Before the teacher is copied from it.
        begin(net, options, card, facts)
        card = card.model_copy(update={"net": _without_downloads(described)})
        return UgmclLearner(card, kind=facts.kind, student=net, options=options)


METHOD = SingleStageMethod(
    name="ugmcl",
    summary="classes and distances learn from few labels, and to agree where a teacher is sure of images without",
    options=UgmclOptions,
    stage=UgmclStage,
    usual=UgmclOptions.training,
    usual_of_volumes=UgmclOptions.training_of_volumes,
    resolve=UgmclOptions.resolved,
    unlabelled_weight=lambda options: options.consistency,
)


def _looked_at(net: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return level sets, probabilities and logits of images in full precision, whatever the network computes in."""
    if not isinstance(net, DualTaskNet):
        raise TypeError(f"not a network of two tasks: {type(net).__name__}")
    sdf, logits = (mutual.exact(maps) for maps in net.both(images))
    return sdf, logits.softmax(dim=1), logits


def _described(card: ModelCard) -> dict[str, JsonValue]:
    """Return the settings of the card's network with a second task."""
    arch, is_joined = str(card.net["arch"]), card.head is not None
    # Objects are all of one class.
    count = 1 if is_joined else len(card.labels) - 1
    if "level_sets" in card.net:
        return {**card.net, "level_sets": count, "joined": is_joined}
    if spec_type(arch) is not NetSpec:
        raise MethodError(f"the network {arch} cannot be taught level sets", where="--arch", mend="Take dual-unet")
    spec = TwoTaskSpec(net=card.net, level_sets=count, joined=is_joined)
    described: dict[str, JsonValue] = spec.model_dump(mode="json")
    return described


def _without_downloads(net: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return settings by which a network is built again before it gets trained weights."""
    inner = net.get("net")
    return {**net, "net": {**inner, "encoder_weights": None}} if isinstance(inner, dict) else net
