"""PFSCNet: a segmentation network that learns from labels of which some are wrong."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from torch import Tensor, nn

from wsiseg.errors import MethodError
from wsiseg.labels import IGNORE
from wsiseg.losses.centres import ClassCentres
from wsiseg.losses.contrast import pixel_clustering
from wsiseg.losses.dense_energy import dense_energy
from wsiseg.losses.resampling import nearest
from wsiseg.losses.semantic import cross_entropy
from wsiseg.methods.craanet_options import DESCRIPTION
from wsiseg.methods.pair_options import CLASSIFY, SEGMENT, model_card
from wsiseg.methods.pairs import UngatedPredictor, begun
from wsiseg.methods.predictor import normalised
from wsiseg.methods.processes import is_first, of_all
from wsiseg.nets.deeplab import FEATURES
from wsiseg.nets.gated import GatedSpec
from wsiseg.nets.projection import ProjectionHead
from wsiseg.ramps import late_start

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from wsiseg.checkpoint import ModelCard
    from wsiseg.methods.base import Batch, Clock, TrainingFacts
    from wsiseg.methods.craanet_options import ContrastSettings, CraanetOptions
    from wsiseg.methods.predictor import NetPredictor
    from wsiseg.methods.sgd import Flips, SgdSettings
    from wsiseg.nets.deeplab import Decoded
    from wsiseg.nets.gated import GatedDeepLab

logger = logging.getLogger(__name__)

_OPTIONS: Final = {"decoder", "vertical_flips", "energy", "contrast", "gate", "epsilon", "licence"}
_PROBABLE: Final = 0.5
# Updates in which a network has mostly learnt what contrast can build on.
_FEW: Final = 100


class PixelSpace(nn.Module):
    """The space in which pixels are compared; needed in training only.

    Parameters
    ----------
    classes
        Number of classes.
    settings
        Of the contrast.
    """

    def __init__(self, classes: int, settings: ContrastSettings) -> None:
        super().__init__()
        self.projection = ProjectionHead(FEATURES, settings.channels)
        self.centres = ClassCentres(
            classes, settings.channels, per_class=settings.centres_per_class, momentum=settings.centre_momentum
        )


class ComparingNet(nn.Module):
    """A segmentation network beside the space of its pixels; only the network is kept.

    Parameters
    ----------
    net
        The network, with or without its gate.
    space
        None where pixels are not compared.
    """

    def __init__(self, net: GatedDeepLab, space: PixelSpace | None) -> None:
        super().__init__()
        self.net = net
        self.space = space


class SegmentLearner:
    """Learns from reliable labels, and how pixels without one relate to those with one.

    Parameters
    ----------
    card
        The model to be.
    module
        The network; a classifier in it stays as it is.
    options
        Of the method.
    layers
        Names of all labels, and of the reliable ones.
    """

    def __init__(self, card: ModelCard, module: ComparingNet, options: CraanetOptions, layers: tuple[str, str]) -> None:
        self._card = card
        self._module = module
        self._options = options
        self._settings = options.numbers.segment
        self._layers = layers

    @property
    def module(self) -> nn.Module:
        """Return the network and the space of its pixels."""
        return self._module

    def training_step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Return ``loss`` and its parts, unweighted.

        Raises
        ------
        MethodError
            If the batch lacks labels.
        """
        missing = [layer for layer in (*self._layers, "present") if layer not in batch.targets]
        if missing:
            raise MethodError(f"patches lack the labels {', '.join(missing)}", mend="Run the stage pseudo-label first")
        complete, labels = (batch.targets[layer] for layer in self._layers)
        is_white = complete == IGNORE
        decoded = self._module.net.segmenter.decoded(normalised(batch.images, self._card))
        loss = entropy = cross_entropy(decoded.logits, labels)
        parts = {"cross_entropy": entropy.detach()}
        energy = self._options.energy
        if energy.weight > 0:
            cost = dense_energy(
                decoded.logits,
                batch.images,
                labels != IGNORE,
                is_white=is_white,
                sigma_px=energy.sigma_px,
                sigma_rgb=energy.sigma_rgb,
                scale=energy.scale,
            )
            loss = loss + energy.weight * cost
            parts["dense_energy"] = cost.detach()
        if self._module.space is not None:
            terms = self._clustering(self._module.space, decoded, batch, clock)
            loss = loss + self._options.contrast.weight * terms.pop("loss")
            parts |= terms
        return {"loss": loss, **parts}

    def rate_of(self, name: str) -> float:
        """Return 10 for all but the backbone."""
        return self._settings.rate_of(name.removeprefix("net.segmenter.").removeprefix("space."))

    def after_update(self, clock: Clock) -> None:
        """Warn after the first update of a contrast that does not wait for the network."""
        start = self._options.contrast.start
        if clock.step == 0 and self._module.space is not None and start * clock.steps < _FEW and is_first():
            logger.warning(
                "contrast begins after %.0f of %d updates, when the network may know too little, and the training "
                "can collapse; train for more epochs, or pass --set options.contrast.start=0.5",
                start * clock.steps,
                clock.steps,
            )

    def predictor(self, module: nn.Module) -> NetPredictor:
        """Return the network alone as a predictor that is judged without its gate."""
        return UngatedPredictor(self._card, module.get_submodule("net"))

    def _clustering(self, space: PixelSpace, decoded: Decoded, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Return how badly pixels cluster, and let the centres follow them; see `pixel_clustering`."""
        settings = self._options.contrast
        vectors: Tensor = space.projection(decoded.features)
        if late_start(clock.step, steps=clock.steps, start=settings.start) == 0:
            nothing = vectors.new_zeros(())
            # The projection has a part in every step, as training on several devices asks for.
            return {"loss": vectors.sum() * 0, "pixel_contrast": nothing, "centre_contrast": nothing}
        complete, reliable = self._layers
        size = (vectors.shape[2], vectors.shape[3])
        labels, prediction = nearest(batch.targets[reliable], size), decoded.coarse.argmax(dim=1)
        compared = labels
        if settings.relabel_margin is not None:
            is_white = nearest(batch.targets[complete], size) == IGNORE
            compared = space.centres.relabel(
                vectors,
                labels,
                (labels == IGNORE) & ~is_white,
                batch.targets["present"] > _PROBABLE,
                margin=settings.relabel_margin,
            )
        terms = pixel_clustering(
            vectors,
            compared,
            prediction,
            space.centres,
            temperature=settings.temperature,
            base_temperature=settings.base_temperature,
            max_samples=settings.max_samples,
            max_views=settings.max_views,
        )
        if self._module.training:
            # Centres are buffers, and all processes take the first one's: it has to know the pixels of all.
            space.centres.update(of_all(vectors.detach()), of_all(labels), of_all(prediction))
        return terms


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentStage:
    """Trains the segmentation network."""

    options: CraanetOptions
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
            **options.model_dump(mode="json", include=_OPTIONS),
            "segmenter": options.segmenter_backbone,
            "init_segmenter": options.segmenter_init,
            "numbers": {self.name: self.settings.model_dump(mode="json")},
        }

    def build(self, facts: TrainingFacts, done: Mapping[str, Path], layers: tuple[str, ...]) -> SegmentLearner:
        """Return an untrained learner; see `PatchStage`."""
        options, classes = self.options, len(facts.labels)
        spec = GatedSpec(
            backbone=options.segmenter_backbone,
            output_stride=16 if options.decoder == "v3plus" else 8,
            decoder=options.decoder,
            classifier=options.classifier if options.gate else None,
            epsilon=options.epsilon,
        )
        net = begun(spec, classes, init=options.segmenter_init, done=done, stage=CLASSIFY)
        # After the network, whose first weights do not depend on whether there is a space.
        space = PixelSpace(classes, options.contrast) if options.contrast.weight > 0 else None
        card = model_card(facts, options, spec, description=DESCRIPTION)
        complete, reliable = layers
        return SegmentLearner(card, ComparingNet(net, space), options, (complete, reliable))
