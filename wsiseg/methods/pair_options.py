"""What can be chosen in every method that trains a classifier of patches and a segmentation network beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from wsiseg.checkpoint import ModelCard, Normalisation
from wsiseg.config import Config
from wsiseg.nets.classifiers import RESNET38D
from wsiseg.nets.deeplab import RESNET101

if TYPE_CHECKING:
    from wsiseg.methods.base import TrainingFacts

# Names of the stages.
CLASSIFY: Final = "classify"
PSEUDO_LABEL: Final = "pseudo-label"
SEGMENT: Final = "segment"
# What `PairOptions.init` may be beside the path of a file.
RANDOM: Final = "none"
DOWNLOADED: Final = "imagenet"


class PairOptions(Config):
    """The two networks, and the weights that they begin with.

    Parameters
    ----------
    backbone
        Of the classifier: ``resnet38d``, or an encoder of timm such as ``resnet18``.
    segmenter
        Backbone of the segmentation network; None takes ``resnet101`` beside ``resnet38d``, else
        that of the classifier.
    output_stride
        Of a classifier on an encoder of timm: pixels per position of its maps, 8 or 16.
    init
        Weights that the backbones begin with: ``none``, ``imagenet`` (downloaded where they can
        be had), or a file for that of the classifier.
    init_segmenter
        The same for the segmentation network; None takes `init` unless that is a file for another
        backbone.
    licence
        Kept with the model.
    """

    backbone: str = RESNET38D
    segmenter: str | None = None
    output_stride: Literal[8, 16] = 8
    init: str = RANDOM
    init_segmenter: str | None = None
    licence: str = ""

    @property
    def segmenter_backbone(self) -> str:
        """Return the backbone of the segmentation network."""
        return self.segmenter or (RESNET101 if self.backbone == RESNET38D else self.backbone)

    @property
    def segmenter_init(self) -> str:
        """Return the weights that the segmentation network begins with."""
        if self.init_segmenter is not None:
            return self.init_segmenter
        is_shared = self.init in (RANDOM, DOWNLOADED) or self.segmenter_backbone == self.backbone
        return self.init if is_shared else RANDOM


def model_card(facts: TrainingFacts, options: PairOptions, net: Config, *, description: str) -> ModelCard:
    """Return what a model of either network will be.

    Parameters
    ----------
    facts
        What is known of the data.
    options
        Of the method.
    net
        The network; see `build_described`.
    description
        Of the method, for people.
    """
    return ModelCard(
        name=facts.name,
        description=description,
        task="semantic",
        labels=facts.labels,
        mpp=facts.mpp,
        tile_px=facts.crop_px,
        # The networks see a whole tile at once; blending evens out what its edges lack.
        halo_px=facts.crop_px // 8,
        # Both networks get colours as they are.
        normalisation=Normalisation.none(),
        net=net.model_dump(mode="json"),
        head=None,
        white=facts.white,
        training_data=facts.training_data,
        licence=options.licence,
    )
