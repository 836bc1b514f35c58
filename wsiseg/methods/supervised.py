"""Learning from labels: one network, trained on classes of pixels or on objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from wsiseg.errors import MethodError
from wsiseg.methods.cards import NetOptions, begin, make_card, make_encode
from wsiseg.methods.label_loss import loss_of, outputs_of
from wsiseg.methods.predictor import NetPredictor, build_network, normalised
from wsiseg.methods.single import SingleStageMethod
from wsiseg.nets.maskrcnn import MASKRCNN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from wsiseg.checkpoint import ModelCard
    from wsiseg.methods.base import Batch, Clock, Encode, TrainingFacts


# Of a training of Mask R-CNN as published with `MaskRCNNSpec`: the learning rate never falls. There the encoder begins
# with weights of COCO and does not learn; where it must, more steps pay off. Not as published:
# - Images are augmented as usual; the published training lists augmentations, and does not pass them on.
# - The decay of weights, 1e-4, is the same for all that learns, biases and scales of normalisation included; there each
#   tensor's is divided by the number of its elements, and so next to nothing.
_MASKRCNN: Final = {
    "batch_size": 6,
    "fit": {"optimiser": "sgd", "lr": 0.005, "schedule": "step", "step_factor": 1.0, "warmup": 0.0, "clip_norm": 5.0},
}


class SupervisedOptions(NetOptions):
    """Options of the method, beside those of its network.

    Parameters
    ----------
    dice_weight
        Weight of the soft Dice loss beside the cross-entropy, for classes of pixels.
    """

    dice_weight: float = Field(default=1.0, ge=0)


class SupervisedLearner:
    """Learns classes of pixels with cross-entropy and Dice, or objects with the loss of their head.

    Parameters
    ----------
    card
        The model to be; decides on network, head and normalisation.
    kind
        What the labels are.
    dice_weight
        Weight of the Dice loss, for classes of pixels.
    """

    def __init__(self, card: ModelCard, *, kind: str, dice_weight: float) -> None:
        self.card = card
        self._encode = make_encode(card, kind)
        self._net = build_network(card)
        self._loss = loss_of(self._net, card, dice_weight=dice_weight)

    @property
    def module(self) -> nn.Module:
        """Return the network."""
        return self._net

    @property
    def encode(self) -> Encode:
        """Return what makes targets out of labels."""
        return self._encode

    def training_step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:  # noqa: ARG002 - the loss is constant
        """Return ``loss`` and its parts; see `loss_of`.

        Raises
        ------
        MethodError
            If the batch has no labels.
        """
        if not batch.targets:
            raise MethodError("the supervised method learns from labelled images only")
        return self._loss(outputs_of(self._net, normalised(batch.images, self.card)), batch.targets)

    def rate_of(self, name: str) -> float:  # noqa: ARG002 - all learn alike
        """Return 1."""
        return 1.0

    def after_update(self, clock: Clock) -> None:
        """Do nothing: there is no teacher."""

    def predictor(self, module: nn.Module) -> NetPredictor:
        """Return the predictor that the network, or an average of it, makes."""
        return NetPredictor(self.card, module)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedStage:
    """The method's only stage."""

    options: SupervisedOptions
    name: str = "supervised"

    def build(self, facts: TrainingFacts) -> SupervisedLearner:
        """Return an untrained learner; see `Stage`."""
        card = make_card(self.options, facts)
        learner = SupervisedLearner(card, kind=facts.kind, dice_weight=self.options.dice_weight)
        begin(learner.module, self.options, card, facts)
        return learner


def usual(options: NetOptions) -> Mapping[str, Any]:
    """Return the settings of a training that suit the network, where these are not the usual ones."""
    return _MASKRCNN if options.arch == MASKRCNN else {}


METHOD = SingleStageMethod(
    name="supervised",
    summary="one network learns from labelled patches: classes of pixels, or objects",
    options=SupervisedOptions,
    stage=SupervisedStage,
    usual=usual,
)
