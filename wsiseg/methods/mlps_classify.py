"""The classifier of multi-layer pseudo-supervision, and the masks that its gradients make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.nn import functional

from wsiseg.cam import grad_cam, pseudo_confidence, pseudo_masks
from wsiseg.errors import MethodError
from wsiseg.methods.classifier_watch import ClassifierWatch
from wsiseg.methods.mlps_options import DESCRIPTION
from wsiseg.methods.pair_options import CLASSIFY, PSEUDO_LABEL, model_card
from wsiseg.methods.pairs import begin, downloaded
from wsiseg.methods.predictor import NetPredictor, load_network, normalised
from wsiseg.methods.stages import Labelled
from wsiseg.nets.gated import ActivationMaps, build_cam

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from wsiseg.checkpoint import ModelCard
    from wsiseg.methods.base import Batch, Clock, TrainingFacts
    from wsiseg.methods.mlps_options import MlpsOptions
    from wsiseg.methods.mlps_presets import AttentionSettings
    from wsiseg.methods.sgd import Flips, SgdSettings


class ClassifyLearner:
    """Learns which classes a patch shows.

    Parameters
    ----------
    card
        The model to be.
    net
        The classifier.
    settings
        Numbers of the training.
    attention
        Schedule of the dropout attention; None for none.
    """

    def __init__(
        self, card: ModelCard, net: ActivationMaps, settings: SgdSettings, attention: AttentionSettings | None
    ) -> None:
        self._card = card
        self._net = net
        self._settings = settings
        self._attention = attention
        self._watch = ClassifierWatch(card.labels, settings)

    @property
    def module(self) -> nn.Module:
        """Return the network."""
        return self._net

    def training_step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Return ``loss``, the part of patches whose classes are ``exact``, and ``mu`` of the attention.

        ``switched_off`` is the part of positions at which the attention leaves nothing of any class.
        Both stay at 1 and 0 while it does not act. Features that have died, or are the same
        everywhere, are switched off at all positions, and nothing is learnt from there on.

        Raises
        ------
        MethodError
            If it is not known what the patches show.
        """
        present = _present(batch)
        mu = None if self._attention is None else self._attention.mu(clock.epoch(self._settings.epochs))
        logits, attention = self._net.classifier.attended(normalised(batch.images, self._card), mu=mu)
        loss = functional.multilabel_soft_margin_loss(logits.float(), present)
        return {
            "loss": loss,
            "exact": self._watch.note(logits, present, loss),
            "mu": loss.new_tensor(1.0 if mu is None else mu),
            "switched_off": loss.new_zeros(()) if attention is None else (attention == 0).float().mean(),
        }

    def rate_of(self, name: str) -> float:
        """Return 10 for the last layer, as published."""
        return self._settings.rate_of(name.removeprefix("classifier."))

    def after_update(self, clock: Clock) -> None:
        """Tell at the end of each epoch what has gone wrong."""
        self._watch.tell(clock)

    def predictor(self, module: nn.Module) -> NetPredictor:
        """Return the activation maps as a predictor."""
        return NetPredictor(self._card, module)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyStage:
    """Trains the classifier."""

    options: MlpsOptions
    settings: SgdSettings
    name: str = CLASSIFY
    flips: Flips = "both"
    blur_px: float = 0.0
    is_best_kept: bool = False

    @property
    def depends_on(self) -> dict[str, Any]:
        """Return the options of the classifier; see `PatchStage`."""
        chosen = self.options.model_dump(
            mode="json", include={"backbone", "output_stride", "init", "attention", "licence"}
        )
        numbers = self.options.resolved().model_dump(mode="json", include={"classify", "attention"})
        return {**chosen, "numbers": numbers}

    def build(self, facts: TrainingFacts, done: Mapping[str, Path], layers: tuple[str, ...]) -> ClassifyLearner:  # noqa: ARG002 - the first stage
        """Return an untrained learner; see `PatchStage`."""
        options = self.options
        card = model_card(facts, options, options.cam, description=DESCRIPTION)
        net = build_cam(options.cam, len(facts.labels), weights=downloaded(options.init))
        begin(net.classifier, init=options.init)
        return ClassifyLearner(card, net, self.settings, options.resolved().attention if options.attention else None)


class PseudoMasks:
    """Labels patches with the gradients of a classifier at its three taps.

    Parameters
    ----------
    net
        The trained classifier, on its device.
    """

    def __init__(self, net: ActivationMaps) -> None:
        self._classifier = net.classifier.eval()

    @property
    def layers(self) -> tuple[str, ...]:
        """Return the names of the taps, shallow to deep."""
        return self._classifier.tap_names

    def label(
        self,
        images: Tensor,
        present: Tensor,
        white: Tensor | None,
        *,
        indices: NDArray[np.int64],  # noqa: ARG002 - images say everything
    ) -> dict[str, Labelled]:
        """Return a mask of each tap; see `Labeller`."""
        maps = grad_cam(self._classifier.tapped, images.float() / 255)
        size = (images.shape[2], images.shape[3])
        return {
            name: Labelled(
                labels=pseudo_masks(planes, present, size, white),
                confidence=pseudo_confidence(planes, present, size, white),
            )
            for name, planes in zip(self.layers, maps, strict=True)
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PseudoLabelStage:
    """Labels the training patches with the classifier."""

    name: str = PSEUDO_LABEL

    @property
    def depends_on(self) -> dict[str, Any]:
        """Return nothing: the classifier says it all."""
        return {}

    def labeller(self, facts: TrainingFacts, done: Mapping[str, Path], device: torch.device) -> PseudoMasks:  # noqa: ARG002 - any patches can be labelled
        """Return what makes the masks."""
        net = load_network(done[CLASSIFY])
        if not isinstance(net, ActivationMaps):
            raise MethodError("this model is no classifier of the method", where=done[CLASSIFY])
        return PseudoMasks(net.to(device))


def _present(batch: Batch) -> Tensor:
    if "present" not in batch.targets:
        raise MethodError("the method learns from patches of which is known what they show")
    return batch.targets["present"]
