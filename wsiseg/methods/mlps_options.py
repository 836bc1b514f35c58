"""What can be chosen in multi-layer pseudo-supervision."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from wsiseg.config import load, merged
from wsiseg.methods.mlps_presets import PRESETS, MlpsPreset, PresetName
from wsiseg.methods.pair_options import PairOptions
from wsiseg.nets.gated import CamSpec

DESCRIPTION: Final = "Tissue classes, learnt by multi-layer pseudo-supervision from what patches show"


class MlpsOptions(PairOptions):
    """Options of the method, beside those of `PairOptions`; its backbones are the published ones by default.

    Parameters
    ----------
    preset
        Numbers of the ``paper``, or of the ``official-code``.
    numbers
        Numbers of the preset that are replaced, such as ``{"classify": {"epochs": 5}}``.
    attention
        Progressive dropout attention.
    gate
        In prediction only the classes that the classifier sees in a tile are let through.
    """

    preset: PresetName = "paper"
    numbers: dict[str, Any] = Field(default_factory=dict)
    attention: bool = True
    gate: bool = True

    def resolved(self) -> MlpsPreset:
        """Return the numbers that hold."""
        return load(MlpsPreset, options=merged(PRESETS[self.preset].model_dump(mode="json"), self.numbers))

    @property
    def cam(self) -> CamSpec:
        """Return the classifier."""
        return CamSpec(backbone=self.backbone, output_stride=self.output_stride)
