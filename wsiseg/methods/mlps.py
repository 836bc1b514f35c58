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

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsiseg.methods.mlps_classify import ClassifyStage, PseudoLabelStage
from wsiseg.methods.mlps_options import MlpsOptions
from wsiseg.methods.mlps_segment import SegmentStage

if TYPE_CHECKING:
    from wsiseg.config import Config
    from wsiseg.methods.stages import LabelStage, PatchStage


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
