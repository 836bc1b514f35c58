"""CRAANet and PFSCNet, reconstructed: tissue maps from patches of which is only known what they show.

A classifier with class residual attention learns what patches show (CRAANet). Its attention, laid
over one another epoch by epoch, says where, and which labels can be relied on. A segmentation
network learns from the reliable ones (PFSCNet), while a dense energy and the clustering of pixels in
a space of features guard it against those that are wrong.

This is a reconstruction and not the authors' implementation: no code is public, and what is built
here follows the abstract of [1]_. For each element that it names stands the published method that its
words point to. Chosen here, and not known from the article, are

- the backbones: ResNet-38d for the classifier; for the segmentation network ResNet-101 at output
  stride 16 with the decoder of DeepLabV3+ (without one, at 8, is nearer to the wording of the abstract);
  colours as they are, not normalised; first weights;
- class residual attention [2]_: 1 head of temperature 1, residual weight 0.3; temperatures go with the number of heads,
  as published, and are no option of their own;
- accumulation [3]_, whose rule is the published one: rectified scores by their maximum, positions keep
  the highest value (or mean, or average of decay 0.9), maps count from epoch 2 where the class is among
  the K highest logits (or has a probability of 0.1), hiding what was seen is off; validation patches are
  accumulated by the same rules, by the classes in their masks and from a look at the end of each epoch, for
  the labels alone that an audit judges;
- reliable labels [4]_: of each class the 60 % with the highest attention (40 % are published) above
  0.1 (published), no rule for conflicts, no conditional random field;
- the weight of the dense energy [4]_, 1 in a normalised form, converted from the published 1e-7 by
  measurement on synthetic patches; ranges of 100 px and 15 grey levels are published, a scale of 1/4 is not; it acts
  from the first update, as published, and cannot be made to wait;
- the sum of two contrasts [5]_ [6]_ at weight 0.1; temperatures 0.1 and 0.07, 128 channels, 1024 samples,
  100 views and the start after an eighth of the training are published there; centres with a momentum of
  0.99, one for each class, and no relabelling are not;
- all numbers of both trainings: 20 epochs at 0.01 (head 0.1), no momentum; 30 at 0.001 (new layers 0.01),
  momentum 0.9; batches of 20 patches, weight decay 5e-4, a rate that falls with the power 0.9, flips and blur;
- prediction without a gate; with one, classes of a probability up to 0.1 are shut out.

References
----------
.. [1] Han et al., "Weakly supervised semantic segmentation of histological tissue via attention
   accumulation and pixel-level contrast learning", Physics in Medicine & Biology 68, 2023.
.. [2] Zhu and Wu, "Residual Attention: A Simple but Effective Method for Multi-Label Recognition",
   ICCV 2021.
.. [3] Jiang et al., "Integral Object Mining via Online Attention Accumulation", ICCV 2019.
.. [4] Zhang et al., "Reliability Does Matter: An End-to-End Weakly Supervised Semantic Segmentation
   Approach", AAAI 2020.
.. [5] Wang et al., "Exploring Cross-Image Pixel Contrast for Semantic Segmentation", ICCV 2021.
.. [6] Du et al., "Weakly Supervised Semantic Segmentation by Pixel-to-Prototype Contrast", CVPR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsiseg.methods.craanet_classify import ClassifyStage
from wsiseg.methods.craanet_label import PseudoLabelStage
from wsiseg.methods.craanet_options import CraanetOptions
from wsiseg.methods.craanet_segment import SegmentStage

if TYPE_CHECKING:
    from wsiseg.config import Config
    from wsiseg.methods.stages import LabelStage, PatchStage


@dataclass(frozen=True, slots=True, kw_only=True)
class Craanet:
    """The method."""

    name: str = "craanet"
    summary: str = "tissue maps from patches of which is only known what they show; a reconstruction"
    options: type[CraanetOptions] = CraanetOptions

    def stages(self, options: Config) -> tuple[PatchStage | LabelStage, ...]:
        """Return the three stages."""
        if not isinstance(options, CraanetOptions):
            raise TypeError(f"options of another method: {type(options).__name__}")
        return (
            ClassifyStage(options=options, settings=options.numbers.classify),
            PseudoLabelStage(options=options),
            SegmentStage(
                options=options,
                settings=options.numbers.segment,
                flips="both" if options.vertical_flips else "horizontal",
            ),
        )


METHOD = Craanet()
