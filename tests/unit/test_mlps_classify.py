"""What is written down of a classifier tells whether its dropout attention leaves it anything to learn from."""

from __future__ import annotations

import torch

from wsiseg.labels import LabelMap
from wsiseg.methods.base import Batch, Clock, TrainingFacts
from wsiseg.methods.mlps_classify import ClassifyLearner, ClassifyStage
from wsiseg.methods.mlps_options import MlpsOptions
from wsiseg.nets.gated import ActivationMaps

FACTS = TrainingFacts(
    name="toy", kind="classes", labels=LabelMap.from_names(("a", "b")), mpp=1.0, crop_px=64, training_data={}
)
# The first epoch of twenty, in which the attention is off, and the tenth.
EARLY, LATE = Clock(step=0, steps=20), Clock(step=9, steps=20)


def learner() -> ClassifyLearner:
    options = MlpsOptions(backbone="mobilenetv3_small_050")
    torch.manual_seed(0)
    return ClassifyStage(options=options, settings=options.resolved().classify).build(FACTS, {}, ())


def row(trained: ClassifyLearner, clock: Clock) -> dict[str, float]:
    """Return what a step writes down."""
    images = torch.randint(0, 256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    present = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    batch = Batch(images=images, targets={"present": present})
    trained.module.train()
    return {name: value.item() for name, value in trained.training_step(batch, clock).items()}


def test_nothing_is_switched_off_while_the_attention_does_not_act() -> None:
    early = row(learner(), EARLY)

    assert early["mu"] == 1
    assert early["switched_off"] == 0


def test_the_attention_of_a_living_classifier_leaves_something() -> None:
    late = row(learner(), LATE)

    assert late["mu"] < 1
    assert 0 <= late["switched_off"] < 1


def test_a_classifier_that_sees_no_class_anywhere_is_switched_off_everywhere() -> None:
    dead = learner()
    assert isinstance(dead.module, ActivationMaps)
    dead.module.classifier.fc8.weight.data.zero_()
    late = row(dead, LATE)

    assert late["switched_off"] == 1
    assert round(late["loss"], 3) == 0.693
