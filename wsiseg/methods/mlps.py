"""Multi-layer pseudo-supervision: tissue maps from patches of which is only known what they show.

A classifier learns what patches show. Its gradients at three layers say where, which makes three
masks of each patch. A segmentation network learns from all three at once, and in prediction only
the classes that the classifier sees in a tile are let through.

Where paper and released code differ, the preset ``paper`` follows the one and ``official-code`` the
other. Mended in both: gated classes cannot win by negative scores, white pixels have no phantom
class beside them, absent classes never win ties, attention is divided by the number of classes
instead of 4, and masks are made in one pass over three layers.

References
----------
.. [1] Han et al., "Multi-Layer Pseudo-Supervision for Histopathology Tissue Semantic Segmentation
   using Patch-level Classification Labels", Medical Image Analysis 80, 2022.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field
from torch.nn import functional

from wsiseg import checkpoint
from wsiseg.cam import grad_cam, pseudo_masks
from wsiseg.checkpoint import ModelCard, Normalisation
from wsiseg.config import Config, load
from wsiseg.errors import MethodError
from wsiseg.initial_weights import initialise, read_weights
from wsiseg.losses.pseudo import multi_layer
from wsiseg.methods.mlps_presets import PRESETS, MlpsPreset, PresetName
from wsiseg.methods.predictor import NetPredictor, load_network, normalised
from wsiseg.nets.classifiers import RESNET38D
from wsiseg.nets.gated import ActivationMaps, CamSpec, GatedDeepLab, GatedSpec, build_cam, build_gated

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor, nn

    from wsiseg.methods.base import Batch, Clock, LabelStage, PatchStage, TrainingFacts
    from wsiseg.methods.mlps_presets import AttentionSettings
    from wsiseg.methods.sgd import Flips, SgdSettings

logger = logging.getLogger(__name__)

CLASSIFY: Final = "classify"
PSEUDO_LABEL: Final = "pseudo-label"
SEGMENT: Final = "segment"
# Both networks get colours as they are.
PLAIN: Final = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
_PROBABLE: Final = 0.5


class MlpsOptions(Config):
    """Options of the method.

    Parameters
    ----------
    preset
        Numbers of the ``paper``, or of the ``official-code``.
    numbers
        Numbers of the preset that are replaced, such as ``{"classify": {"epochs": 5}}``.
    backbone
        Of the classifier: ``resnet38d`` as published, or an encoder of timm such as ``resnet18``.
    segmenter
        Backbone of the segmentation network; None takes ``resnet101`` as published beside
        ``resnet38d``, else that of the classifier.
    output_stride
        Of a classifier on an encoder of timm: pixels per position of its maps, 8 or 16.
    init
        Weights that the backbones begin with: ``none``, ``imagenet`` (downloaded where they can
        be had), or a file for the classifier.
    init_segmenter
        The same for the segmentation network; None takes `init` unless that is a file.
    attention
        Progressive dropout attention.
    gate
        In prediction only the classes that the classifier sees in a tile are let through.
    licence
        Kept with the model.
    """

    preset: PresetName = "paper"
    numbers: dict[str, Any] = Field(default_factory=dict)
    backbone: str = RESNET38D
    segmenter: str | None = None
    output_stride: Literal[8, 16] = 8
    init: str = "none"
    init_segmenter: str | None = None
    attention: bool = True
    gate: bool = True
    licence: str = ""

    def resolved(self) -> MlpsPreset:
        """Return the numbers that hold."""
        return load(MlpsPreset, options=_merged(PRESETS[self.preset].model_dump(mode="json"), self.numbers))

    @property
    def cam(self) -> CamSpec:
        """Return the classifier."""
        return CamSpec(backbone=self.backbone, output_stride=self.output_stride)


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

    @property
    def module(self) -> nn.Module:
        """Return the network."""
        return self._net

    def training_step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Return ``loss``, the part of patches whose classes are ``exact`` and, while it acts, the attention's ``mu``.

        Raises
        ------
        MethodError
            If it is not known what the patches show.
        """
        present = _present(batch)
        epoch = clock.step * self._settings.epochs // clock.steps + 1
        mu = None if self._attention is None else self._attention.mu(epoch)
        logits = self._net.classifier(normalised(batch.images, self._card), mu=mu).float()
        loss = functional.multilabel_soft_margin_loss(logits, present)
        exact = ((logits > 0) == (present > _PROBABLE)).all(dim=1).float().mean()
        return {"loss": loss, "exact": exact.detach(), "mu": loss.new_tensor(1.0 if mu is None else mu)}

    def rate_of(self, name: str) -> float:
        """Return 10 for the last layer, as published."""
        return self._settings.rate_of(name.removeprefix("classifier."))

    def after_update(self, clock: Clock) -> None:
        """Do nothing."""

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

    def build(self, facts: TrainingFacts, done: Mapping[str, Path], layers: tuple[str, ...]) -> ClassifyLearner:  # noqa: ARG002 - the first stage
        """Return an untrained learner; see `PatchStage`."""
        options = self.options
        card = _card(facts, options, net=options.cam.model_dump(mode="json"))
        net = build_cam(options.cam, len(facts.labels), weights="imagenet" if options.init == "imagenet" else None)
        if options.init not in ("none", "imagenet"):
            report = initialise(net.classifier, read_weights(Path(options.init)), where=Path(options.init))
            logger.info("%d arrays of %s were taken, %d are new", len(report.loaded), options.init, len(report.missing))
        if options.init == "none":
            logger.warning("the classifier begins with random weights: nothing of it is frozen, and it learns slowly")
        else:
            net.classifier.freeze()
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

    def label(self, images: Tensor, present: Tensor, white: Tensor | None) -> dict[str, Tensor]:
        """Return a mask of each tap; see `Labeller`."""
        maps = grad_cam(self._classifier.tapped, images.float() / 255)
        size = (images.shape[2], images.shape[3])
        return {
            name: pseudo_masks(planes, present, size, white) for name, planes in zip(self.layers, maps, strict=True)
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PseudoLabelStage:
    """Labels the training patches with the classifier."""

    name: str = PSEUDO_LABEL

    def labeller(self, done: Mapping[str, Path], device: torch.device) -> PseudoMasks:
        """Return what makes the masks."""
        net = load_network(done[CLASSIFY])
        if not isinstance(net, ActivationMaps):
            raise MethodError("this model is no classifier of the method", where=done[CLASSIFY])
        return PseudoMasks(net.to(device))


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
        if given not in ("none", "imagenet"):
            initialise(net.segmenter, read_weights(Path(given)), where=Path(given))
        if net.classifier is not None:
            weights = checkpoint.read(done[CLASSIFY]).weights
            net.classifier.load_state_dict({name.removeprefix("classifier."): value for name, value in weights.items()})
            net.classifier.requires_grad_(requires_grad=False)
        card = _card(facts, options, net=spec.model_dump(mode="json"))
        return SegmentLearner(card, net, numbers, layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlps:
    """The method."""

    name: str = "mlps"
    summary: str = "tissue maps from patches of which is only known what they show"
    options: type[MlpsOptions] = MlpsOptions

    def stages(self, options: Config) -> tuple[PatchStage | LabelStage, ...]:
        """Return the three stages."""
        if not isinstance(options, MlpsOptions):
            raise TypeError(f"options of another method: {type(options).__name__}")
        numbers = options.resolved()
        return (
            ClassifyStage(options=options, settings=numbers.classify),
            PseudoLabelStage(),
            SegmentStage(options=options, settings=numbers.segment),
        )


METHOD = Mlps()


def _card(facts: TrainingFacts, options: MlpsOptions, *, net: dict[str, Any]) -> ModelCard:
    return ModelCard(
        name=facts.name,
        description="Tissue classes, learnt by multi-layer pseudo-supervision from what patches show",
        task="semantic",
        labels=facts.labels,
        mpp=facts.mpp,
        tile_px=facts.crop_px,
        # The networks see a whole tile at once; blending evens out what its edges lack.
        halo_px=facts.crop_px // 8,
        normalisation=PLAIN,
        net=net,
        head=None,
        training_data=facts.training_data,
        licence=options.licence,
    )


def _present(batch: Batch) -> Tensor:
    if "present" not in batch.targets:
        raise MethodError("the method learns from patches of which is known what they show")
    return batch.targets["present"]


def _merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with some replaced."""
    merged = dict(base)
    for key, value in changes.items():
        known = merged.get(key)
        merged[key] = _merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged
