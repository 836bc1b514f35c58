"""Objects from a few annotated patches: a teacher labels what has no labels, and a student learns from all.

The teacher learns from annotated patches and from synthetic ones made of them. What it finds in patches
without labels is believed where it is sure (`believed`), and a new network, the student, learns from
annotated, synthetic and pseudo-labelled patches. In further rounds the student is the next teacher.

Published for Mask R-CNN (``arch=maskrcnn``), whose teacher learns from synthetic patches, and with one round.
Recommended where the published text and code leave it open: dense heads, annotated patches in both trainings,
the shares of each kind, the rise of the weight of pseudo-labels, and scores that must be higher in later rounds.
The loss is not a sum of one mean for each kind, but a mean over annotated and synthetic images together, to which
pseudo-labelled ones are added by their number: once their weight is 1, each image counts the same. With flows,
certainty falls to nothing at twice the usual limit of their error, not at the limit (`FlowHead.certainty`). Left out
are teachers averaged over steps, and believing only what is found in flipped patches, too.

References
----------
.. [1] Lou et al., "Which Pixel to Annotate: a Label-Efficient Nuclei Segmentation Framework", IEEE TMI 42(4), 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field, NonNegativeFloat, PositiveFloat

from wsiseg.errors import MethodError
from wsiseg.methods.cards import NetOptions, begin, make_card
from wsiseg.methods.label_loss import outputs_of
from wsiseg.methods.predictor import normalised
from wsiseg.methods.pseudo_objects import PseudoRules
from wsiseg.methods.supervised import SupervisedLearner, usual
from wsiseg.ramps import gaussian

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from wsiseg.checkpoint import ModelCard
    from wsiseg.config import Config
    from wsiseg.labels import LabelMap
    from wsiseg.methods.base import Batch, Clock, TrainingFacts

NAME: Final = "label-efficient"
# The target that tells, of each image, whether its labels are pseudo-labels; these images come last.
PSEUDO: Final = "pseudo"


class LabelEfficientOptions(NetOptions):
    """Options of the method, beside those of its networks; teacher and students are alike.

    Parameters
    ----------
    rounds
        Students, one after the other; the first learns from the teacher, each other from the one before it.
    teacher_real
        Part of the images of the teacher that are annotated, where there are synthetic ones, too. With few steps and
        GANs little trained, more may be better: 0.75 in ``pipelines/experiments/which_pixels.sh``.
    student_shares
        Of the students the parts of the images that are annotated, synthetic and pseudo-labelled. Where there are no
        synthetic ones, the others share what is left in the same proportion. In that script 0.45, 0.15 and 0.4.
    pseudo
        What of a teacher is believed.
    pool
        At most so many patches get pseudo-labels, drawn at random. Where None, as many as a student ever looks at, or
        with ``epochs`` all.
    ramp
        Part of a student's training in which the weight of pseudo-labels rises.
    """

    rounds: int = Field(default=1, ge=1)
    teacher_real: float = Field(default=0.25, gt=0, lt=1)
    student_shares: tuple[PositiveFloat, NonNegativeFloat, PositiveFloat] = (0.2, 0.4, 0.4)
    pseudo: PseudoRules = PseudoRules()
    pool: int | None = Field(default=None, ge=1)
    ramp: float = Field(default=0.2, gt=0, le=1)


# Options that have no say in what the teacher learns, and those that students know by the labels that come of them.
_OF_STUDENTS: Final = {"student_shares", "ramp"}
_OF_LABELS: Final = {"rounds", "pseudo", "pool"}


class StudentLearner(SupervisedLearner):
    """Learns objects from labels that were given, and with a weight that rises from pseudo-labels.

    Parameters
    ----------
    card
        The model to be.
    kind
        What the labels are.
    ramp
        Part of the training in which the weight rises.
    """

    def __init__(self, card: ModelCard, *, kind: str, ramp: float) -> None:
        super().__init__(card, kind=kind, dice_weight=0.0)
        self._ramp = ramp

    def training_step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Return ``loss`` and its parts, those of labels that were given.

        ``pseudo`` is the loss of images with pseudo-labels, which are those that the target of this name marks, and
        ``weight`` its weight. At the end of the ramp an image counts the same whatever its labels are.

        Raises
        ------
        MethodError
            If the batch has no labels.
        """
        if not batch.targets:
            raise MethodError("a student needs some labelled images in each batch")
        targets, labelled = dict(batch.targets), batch.labelled
        marks = targets.pop(PSEUDO, None)
        given = labelled if marks is None else labelled - int(marks.sum())
        weight = gaussian(clock.progress / self._ramp)
        maps = outputs_of(self.module, normalised(batch.images, self.card))
        losses = self._loss([one[:given] for one in maps], {name: value[:given] for name, value in targets.items()})
        losses["weight"] = losses["loss"].new_tensor(weight)
        if given == labelled:
            return losses
        rest = slice(given, labelled)
        pseudo = self._loss([one[rest] for one in maps], {name: value[rest] for name, value in targets.items()})["loss"]
        share = (labelled - given) / given
        return {**losses, "loss": losses["loss"] + weight * share * pseudo, "pseudo": pseudo.detach()}


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherStage:
    """Trains the teacher."""

    options: LabelEfficientOptions
    name: str = "teacher"

    @property
    def depends_on(self) -> dict[str, Any]:
        """Return the options that what it learns depends on, as JSON."""
        return self.options.model_dump(mode="json", exclude=_OF_STUDENTS | _OF_LABELS)

    def build(self, facts: TrainingFacts) -> SupervisedLearner:
        """Return an untrained learner; see `Stage`."""
        card = _card(self.options, facts)
        learner = SupervisedLearner(card, kind=facts.kind, dice_weight=0.0)
        begin(learner.module, self.options, card, facts)
        return learner


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentStage:
    """Trains a student.

    Parameters
    ----------
    options
        Of the method.
    number
        Of the round, from 1.
    """

    options: LabelEfficientOptions
    number: int

    @property
    def name(self) -> str:
        """Return a short name, used for the stage's folder."""
        return f"student-{self.number}"

    @property
    def depends_on(self) -> dict[str, Any]:
        """Return the options that what it learns depends on, as JSON; of labels, those who made them tell."""
        return self.options.model_dump(mode="json", exclude={"teacher_real", *_OF_LABELS})

    def min_scores(self, labels: LabelMap) -> tuple[float, ...]:
        """Return the lowest score of objects that it learns from, by their class; see `PseudoRules.min_scores`."""
        return self.options.pseudo.min_scores(labels, is_first=self.number == 1)

    def build(self, facts: TrainingFacts) -> StudentLearner:
        """Return an untrained learner; see `Stage`."""
        card = _card(self.options, facts)
        learner = StudentLearner(card, kind=facts.kind, ramp=self.options.ramp)
        begin(learner.module, self.options, card, facts)
        return learner


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelEfficient:
    """The method."""

    name: str = NAME
    summary: str = "objects from a few annotated patches, synthetic ones made of them, and pseudo-labels of the others"
    options: type[LabelEfficientOptions] = LabelEfficientOptions
    takes_unlabelled: bool = True

    def sees_unlabelled(self, options: Config) -> bool:  # noqa: ARG002 - pseudo-labels are what it is about
        """Return True."""
        return True

    def resolved(self, options: Config, facts: TrainingFacts) -> LabelEfficientOptions:  # noqa: ARG002 - nothing is open
        """Return the options."""
        return _own(options)

    def stages(self, options: Config) -> tuple[TeacherStage | StudentStage, ...]:
        """Return the teacher, and a student for each round."""
        own = _own(options)
        return (
            TeacherStage(options=own),
            *(StudentStage(options=own, number=number) for number in range(1, own.rounds + 1)),
        )

    def training(self, options: Config, *, of_volumes: bool = False) -> Mapping[str, Any]:  # noqa: ARG002 - of images
        """Return the settings that suit the network; see `usual`."""
        return usual(_own(options))


def _own(options: Config) -> LabelEfficientOptions:
    if not isinstance(options, LabelEfficientOptions):
        raise TypeError(f"options of another method: {type(options).__name__}")
    return options


def _card(options: LabelEfficientOptions, facts: TrainingFacts) -> ModelCard:
    card = make_card(options, facts)
    if card.head is None:
        raise MethodError(
            "pseudo-labels are objects, and a network of classes finds none",
            where=NAME,
            mend="Train on a layer of instances, with a head of objects such as --head flow",
        )
    # Better told now than when the teacher has learnt.
    options.pseudo.min_scores(facts.labels, is_first=True)
    return card


METHOD = LabelEfficient()
