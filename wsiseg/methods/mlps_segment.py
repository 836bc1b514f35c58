"""The segmentation network of multi-layer pseudo-supervision, and the gate before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsiseg.errors import MethodError
from wsiseg.losses.pseudo import multi_layer
from wsiseg.methods.mlps_options import DESCRIPTION
from wsiseg.methods.pair_options import CLASSIFY, SEGMENT, model_card
from wsiseg.methods.pairs import UngatedPredictor, begun
from wsiseg.methods.predictor import normalised
from wsiseg.nets.gated import GatedSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from wsiseg.checkpoint import ModelCard
    from wsiseg.methods.base import Batch, Clock, TrainingFacts
    from wsiseg.methods.mlps_options import MlpsOptions
    from wsiseg.methods.mlps_presets import MlpsPreset
    from wsiseg.methods.predictor import NetPredictor
    from wsiseg.methods.sgd import Flips, SgdSettings
    from wsiseg.nets.gated import GatedDeepLab


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

    @property
    def depends_on(self) -> dict[str, Any]:
        """Return the options of the segmentation network, of its losses and of the gate; see `PatchStage`."""
        options = self.options
        return {
            "segmenter": options.segmenter_backbone,
            "init_segmenter": options.segmenter_init,
            "gate": options.gate,
            "licence": options.licence,
            "numbers": options.resolved().model_dump(mode="json", exclude={"classify", "attention"}),
        }

    def build(self, facts: TrainingFacts, done: Mapping[str, Path], layers: tuple[str, ...]) -> SegmentLearner:
        """Return an untrained learner; see `PatchStage`."""
        options, numbers = self.options, self.options.resolved()
        spec = GatedSpec(
            backbone=options.segmenter_backbone,
            classifier=options.cam if options.gate else None,
            epsilon=numbers.epsilon,
        )
        net = begun(spec, len(facts.labels), init=options.segmenter_init, done=done, stage=CLASSIFY)
        card = model_card(facts, options, spec, description=DESCRIPTION)
        return SegmentLearner(card, net, numbers, layers)
