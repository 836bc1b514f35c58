"""What can be chosen in multi-layer pseudo-supervision, and what all its models have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from wsiseg.checkpoint import ModelCard, Normalisation
from wsiseg.config import Config, load
from wsiseg.methods.mlps_presets import PRESETS, MlpsPreset, PresetName
from wsiseg.nets.classifiers import RESNET38D
from wsiseg.nets.gated import CamSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsiseg.methods.base import TrainingFacts

CLASSIFY: Final = "classify"
PSEUDO_LABEL: Final = "pseudo-label"
SEGMENT: Final = "segment"
# Both networks get colours as they are.
PLAIN: Final = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


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


def model_card(facts: TrainingFacts, options: MlpsOptions, *, net: dict[str, Any]) -> ModelCard:
    """Return what a model of the method will be.

    Parameters
    ----------
    facts
        What is known of the data.
    options
        Of the method.
    net
        The network; see `build_described`.
    """
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


def _merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with some replaced."""
    merged = dict(base)
    for key, value in changes.items():
        known = merged.get(key)
        merged[key] = _merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged
