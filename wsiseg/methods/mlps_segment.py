"""The segmentation network of multi-layer pseudo-supervision, and the gate before it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsiseg import checkpoint
from wsiseg.errors import MethodError
from wsiseg.initial_weights import initialise, read_weights
from wsiseg.losses.pseudo import multi_layer
from wsiseg.methods.mlps_options import CLASSIFY, SEGMENT, model_card
from wsiseg.methods.predictor import NetPredictor, normalised
from wsiseg.nets.classifiers import RESNET38D
from wsiseg.nets.gated import GatedDeepLab, GatedSpec, build_gated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from wsiseg.checkpoint import ModelCard
    from wsiseg.methods.base import Batch, Clock, TrainingFacts
    from wsiseg.methods.mlps_options import MlpsOptions
    from wsiseg.methods.mlps_presets import MlpsPreset
    from wsiseg.methods.sgd import Flips, SgdSettings

logger = logging.getLogger(__name__)


class UngatedPredictor(NetPredictor):
    """The pair without its gate, by which models are chosen; it is kept with its gate."""

    def forward(self, batch: Tensor) -> Tensor:
        """Return the segmentation network's own probabilities."""
        segmenter = self._net.get_submodule("segmenter")
        maps: Tensor = segmenter(normalised(batch, self.card)).float()
        return maps.softmax(dim=1)


class SegmentLearner:
    """Learns from several masks of each patch at once.

    Parameters
    ----------
    card
        The model to be.
    net
        The pair; its classifier stays as it is.
    numbers
        Of the method.
    layers
        Names of the masks, in the order of their weights.
    """

    def __init__(self, card: ModelCard, net: GatedDeepLab, numbers: MlpsPreset, layers: tuple[str, ...]) -> None:
        self._card = card
        self._net = net
        self._numbers = numbers
        self._layers = layers

    @property
    def module(self) -> nn.Module:
        """Return the pair."""
        return self._net

    def training_step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:  # noqa: ARG002 - the loss is constant
        """Return ``loss`` and its parts.

        Raises
        ------
        MethodError
            If the batch lacks a mask.
        """
        missing = [layer for layer in self._layers if layer not in batch.targets]
        if missing:
            raise MethodError(f"patches lack the masks {', '.join(missing)}", mend="Run the stage pseudo-label first")
        numbers = self._numbers
        return multi_layer(
            self._net.segmenter(normalised(batch.images, self._card)),
            {layer: batch.targets[layer] for layer in self._layers},
            weights=numbers.layer_weights,
            white_mean=numbers.white_mean,
            divisor=numbers.divisor,
        )

    def rate_of(self, name: str) -> float:
        """Return 10 for all but the backbone, as published."""
        return self._numbers.segment.rate_of(name.removeprefix("segmenter."))

    def after_update(self, clock: Clock) -> None:
        """Do nothing."""

    def predictor(self, module: nn.Module) -> NetPredictor:
        """Return the pair as a predictor that is judged without its gate."""
        return UngatedPredictor(self._card, module)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentStage:
    """Trains the segmentation network."""

    options: MlpsOptions
    settings: SgdSettings
    name: str = SEGMENT
    flips: Flips = "horizontal"
    blur_px: float = 1.0
    is_best_kept: bool = True

    def build(self, facts: TrainingFacts, done: Mapping[str, Path], layers: tuple[str, ...]) -> SegmentLearner:
        """Return an untrained learner; see `PatchStage`."""
        options, numbers = self.options, self.options.resolved()
        spec = GatedSpec(
            backbone=options.segmenter or ("resnet101" if options.backbone == RESNET38D else options.backbone),
            classifier=options.cam if options.gate else None,
            epsilon=numbers.epsilon,
        )
        given = options.init_segmenter or (options.init if options.init == "imagenet" else "none")
        net = build_gated(spec, len(facts.labels), weights="imagenet" if given == "imagenet" else None)
        if given == "none":
            logger.warning("the segmentation network begins with random weights and learns slowly")
        elif given != "imagenet":
            initialise(net.segmenter, read_weights(Path(given)), where=Path(given))
        if net.classifier is not None:
            trained = checkpoint.read(done[CLASSIFY])
            if trained.card.net != options.cam.model_dump(mode="json"):
                raise MethodError(
                    "the classifier was trained with another backbone",
                    where=done[CLASSIFY],
                    mend=f"Run the stage {CLASSIFY} again, or choose the same backbone",
                )
            weights = {name.removeprefix("classifier."): value for name, value in trained.weights.items()}
            net.classifier.load_state_dict(weights)
            net.classifier.requires_grad_(requires_grad=False)
        card = model_card(facts, options, net=spec.model_dump(mode="json"))
        return SegmentLearner(card, net, numbers, layers)
