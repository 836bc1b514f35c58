"""The classifier of CRAANet, whose attention is accumulated while it learns."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wsiseg.errors import MethodError
from wsiseg.losses.resampling import nearest
from wsiseg.methods.accumulation import SATURATED, AttentionAccumulator
from wsiseg.methods.attention_labels import attention_labels
from wsiseg.methods.classifier_watch import ClassifierWatch
from wsiseg.methods.craanet_options import DESCRIPTION
from wsiseg.methods.pair_options import CLASSIFY, model_card
from wsiseg.methods.pairs import begin, downloaded
from wsiseg.methods.predictor import NetPredictor, normalised
from wsiseg.methods.processes import gathered, is_first
from wsiseg.nets.attending import build_attending
from wsiseg.nets.residual_attention import attention_maps

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.checkpoint import ModelCard
    from wsiseg.methods.base import Batch, Clock, TrainingFacts
    from wsiseg.methods.craanet_options import CraanetOptions
    from wsiseg.methods.sgd import Flips, SgdSettings
    from wsiseg.nets.attending import AttentionMaps
    from wsiseg.nets.residual_attention import ClassAttention

logger = logging.getLogger(__name__)

_OPTIONS: Final = {
    "backbone", "output_stride", "init", "heads", "residual_weight", "maps", "accumulate", "accumulation", "drop",
    "licence",
}  # fmt: skip
# Accumulated attention, beside the weights of the model.
ATTENTION: Final = "attention.npy"
_PROBABLE: Final = 0.5
# Part of the batches in which what was seen already is hidden, as published.
_HIDDEN: Final = 0.5


class AccumulatingNet(nn.Module):
    """A classifier and what it has looked at so far, which is kept with the state of the training.

    Parameters
    ----------
    net
        The classifier.
    accumulator
        Of the training patches and, in evaluation mode, of those that are validated on.
    """

    def __init__(self, net: AttentionMaps, accumulator: AttentionAccumulator) -> None:
        super().__init__()
        self.net = net
        self.accumulator = accumulator

    def __deepcopy__(self, memo: dict[int, object]) -> AccumulatingNet:
        """Return a copy that shares the accumulator, as averages of weights know no attention."""
        return AccumulatingNet(copy.deepcopy(self.net, memo), self.accumulator)

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return maps and counts as tensors."""
        return {name: torch.from_numpy(value) for name, value in self.accumulator.state().items()}

    def set_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `get_extra_state` returned."""
        self.accumulator.load_state({name: value.numpy() for name, value in state.items()})


class AttendingPredictor(NetPredictor):
    """A classifier as a predictor that is kept with what it has looked at.

    Parameters
    ----------
    card, net
        As for `NetPredictor`.
    accumulator
        As for `AccumulatingNet`.
    """

    def __init__(self, card: ModelCard, net: nn.Module, accumulator: AttentionAccumulator) -> None:
        super().__init__(card, net)
        self._accumulator = accumulator

    def save(self, folder: Path, *, metrics: Mapping[str, float], half: bool = False) -> None:
        """Write a checkpoint and the attention to `folder`; see `TrainedPredictor`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._accumulator.save(folder / ATTENTION)
        super().save(folder, metrics=metrics, half=half)


class ClassifyLearner:
    """Learns which classes a patch shows, and keeps where it saw them.

    Parameters
    ----------
    card
        The model to be.
    module
        The classifier and its accumulator.
    options
        Of the method.
    held_out
        Numbers of the patches that it is judged by and does not learn from.
    """

    def __init__(
        self, card: ModelCard, module: AccumulatingNet, options: CraanetOptions, *, held_out: tuple[int, ...] = ()
    ) -> None:
        self._card = card
        self._module = module
        self._options = options
        self._held_out = held_out
        self._settings = options.numbers.classify
        self._watch = ClassifierWatch(card.labels, self._settings)

    @property
    def module(self) -> nn.Module:
        """Return the classifier and its accumulator."""
        return self._module

    def training_step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Return ``loss`` and the part of patches whose classes are ``exact``; keep where classes were seen.

        Raises
        ------
        MethodError
            If it is not known which patches these are and what they show.
        """
        if not {"present", "index", "symmetry"} <= batch.targets.keys():
            raise MethodError("the method learns from numbered patches of which is known what they show")
        present = batch.targets["present"]
        images = normalised(batch.images, self._card)
        if self._options.drop and torch.rand(()) < _HIDDEN:
            images = self._hidden(images, batch)
        found = self._module.net.classifier.attended(images)
        loss = functional.binary_cross_entropy_with_logits(found.logits, present)
        if self._options.accumulate:
            self._take_in(
                gathered(batch.targets["index"]).numpy(),
                gathered(self._seen(found)).numpy(),
                gathered(found.logits.detach()).numpy(),
                gathered(present).numpy() > _PROBABLE,
                symmetries=gathered(batch.targets["symmetry"]).numpy(),
                clock=clock,
            )
        return {"loss": loss, "exact": self._watch.note(found.logits, present, loss)}

    def probe(self, batch: Batch, clock: Clock) -> NDArray[np.uint8]:
        """Return the labels that patches would get, and keep where their classes were seen; see `Probed`."""
        self._module.eval()
        with torch.inference_mode():
            found = self._module.net.classifier.attended(normalised(batch.images, self._card))
            maps, logits = self._seen(found).cpu().numpy(), found.logits.float().cpu().numpy()
        indices, symmetries = (batch.targets[name].cpu().numpy() for name in ("index", "symmetry"))
        present, accumulated = batch.targets["present"].cpu().numpy() > _PROBABLE, maps
        if self._options.accumulate:
            self._take_in(indices, maps, logits, present, symmetries=symmetries, clock=clock)
            accumulated = self._module.accumulator.maps_or(indices, maps)
        size = (batch.images.shape[2], batch.images.shape[3])
        return np.stack(
            [
                attention_labels(own, classes, size, last=last).labels
                for own, classes, last in zip(accumulated, present, maps, strict=True)
            ]
        )

    def mean_attention(self) -> dict[str, float]:
        """Return how far attention has spread over the training patches, by class; see `Probed`."""
        if not self._options.accumulate:
            return {}
        means = self._module.accumulator.class_means(without=self._held_out)
        return dict(zip(self._card.labels.names, means.tolist(), strict=True))

    def rate_of(self, name: str) -> float:
        """Return 10 for the head."""
        return self._settings.rate_of(name.removeprefix("net.classifier."))

    def after_update(self, clock: Clock) -> None:
        """Tell at the end of each epoch how far attention has spread, and what has gone wrong."""
        self._watch.tell(clock)
        epochs = self._settings.epochs
        if not (clock.ends_epoch(epochs) and is_first()):
            return
        for name, mean in self.mean_attention().items():
            if np.isnan(mean):
                continue
            logger.info("attention of %s has a mean of %.3f in epoch %d", name, mean, clock.epoch(epochs))
            if mean > SATURATED:
                logger.warning(
                    "attention of %s is nearly everywhere (its mean is %.2f): labels made of it say little; "
                    "train for fewer epochs, or pass --set options.accumulation.mode=mean",
                    name,
                    mean,
                )

    def predictor(self, module: nn.Module) -> NetPredictor:
        """Return the attention as a predictor."""
        net = module.get_submodule("net")
        if not self._options.accumulate:
            return NetPredictor(self._card, net)
        return AttendingPredictor(self._card, net, self._module.accumulator)

    def _seen(self, found: ClassAttention) -> Tensor:
        return attention_maps(found.scores if self._options.maps == "score" else found.parts)

    def _take_in(
        self,
        indices: NDArray[np.int64],
        maps: NDArray[np.float32],
        logits: NDArray[np.float32],
        present: NDArray[np.bool_],
        *,
        symmetries: NDArray[np.int64],
        clock: Clock,
    ) -> None:
        epoch = clock.epoch(self._settings.epochs)
        is_last = epoch == self._settings.epochs
        self._module.accumulator.update(
            indices, maps, logits, present, symmetries=symmetries, epoch=epoch, is_last=is_last
        )

    def _hidden(self, images: Tensor, batch: Batch) -> Tensor:
        """Return images without what was seen before."""
        seen = self._module.accumulator.attended(
            batch.targets["index"].cpu().numpy(), symmetries=batch.targets["symmetry"].cpu().numpy()
        )
        mask = nearest(torch.from_numpy(np.ascontiguousarray(seen)), (images.shape[2], images.shape[3]))
        return images.masked_fill(mask.to(images.device)[:, None], 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyStage:
    """Trains the classifier."""

    options: CraanetOptions
    settings: SgdSettings
    name: str = CLASSIFY
    flips: Flips = "both"
    blur_px: float = 0.0
    is_best_kept: bool = False

    @property
    def depends_on(self) -> dict[str, Any]:
        """Return the options of the classifier and of what it accumulates; see `PatchStage`."""
        chosen = self.options.model_dump(mode="json", include=_OPTIONS)
        return {**chosen, "numbers": {self.name: self.settings.model_dump(mode="json")}}

    def build(self, facts: TrainingFacts, done: Mapping[str, Path], layers: tuple[str, ...]) -> ClassifyLearner:  # noqa: ARG002 - the first stage
        """Return an untrained learner; see `PatchStage`."""
        options, classes = self.options, len(facts.labels)
        card = model_card(facts, options, options.classifier, description=DESCRIPTION)
        net = build_attending(options.classifier, classes, weights=downloaded(options.init))
        if facts.crop_px % net.stride:
            raise MethodError(
                f"the side of patches, {facts.crop_px} px, is no multiple of {net.stride}",
                mend="Cut patches of another size, or choose another backbone",
            )
        begin(net.classifier.trunk, init=options.init)
        side = facts.crop_px // net.stride
        accumulator = AttentionAccumulator(
            facts.patches if options.accumulate else 0, classes, (side, side), options.accumulation
        )
        return ClassifyLearner(card, AccumulatingNet(net, accumulator), options, held_out=facts.held_out)
