"""Who trains a classifier that learns nothing is told so in time, once an epoch, and how to mend it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from tests.craanet_makers import CLASSES, batch, classify_learner, colourful
from wsiseg.labels import LabelMap
from wsiseg.methods.base import Clock
from wsiseg.methods.classifier_watch import ClassifierWatch
from wsiseg.methods.mlps_presets import PRESETS

if TYPE_CHECKING:
    import pytest
    from torch import Tensor

EPOCHS = 12
STEPS = 2
SETTINGS = PRESETS["paper"].classify.model_copy(update={"epochs": EPOCHS, "lr": 0.03})
# Forty patches; red in half of them, green in a quarter and blue in all.
PRESENT = torch.stack((torch.arange(40) % 2 == 0, torch.arange(40) % 4 == 1, torch.ones(40, dtype=torch.bool)), 1)
SURE = 10 * (2 * PRESENT.float() - 1)


def warnings(logits: Tensor, caplog: pytest.LogCaptureFixture, *, present: Tensor = PRESENT) -> dict[int, str]:
    """Return what is said of a classifier that always gives such logits, by the epoch."""
    watch = ClassifierWatch(LabelMap.from_names(CLASSES), SETTINGS)
    said = {}
    for step in range(EPOCHS * STEPS):
        caplog.clear()
        half = slice(20 * (step % STEPS), 20 * (step % STEPS + 1))
        shown = present[half].float()
        loss = functional.binary_cross_entropy_with_logits(logits[half], shown)
        watch.note(logits[half], shown, loss)
        watch.tell(Clock(step=step, steps=EPOCHS * STEPS))
        if caplog.records:
            (record,) = caplog.records
            assert record.levelno == logging.WARNING
            assert step % STEPS == STEPS - 1
            said[step // STEPS + 1] = record.getMessage()
    return said


def test_a_classifier_that_sees_everything_is_left_in_peace(caplog: pytest.LogCaptureFixture) -> None:
    assert warnings(SURE, caplog) == {}


def test_a_dead_classifier_is_told_from_the_third_epoch_on(caplog: pytest.LogCaptureFixture) -> None:
    said = warnings(torch.zeros(40, 3), caplog)

    assert list(said) == list(range(3, EPOCHS + 1))
    assert said[3].startswith("the classifier in epoch 3: its loss of 0.693 is that of a guess")
    assert "(--set options.numbers.classify.lr=0.01)" in said[3]
    assert "(--init)" in said[3]


def test_knowing_how_frequent_classes_are_is_knowing_nothing(caplog: pytest.LogCaptureFixture) -> None:
    frequency = PRESENT.float().mean(dim=0).clamp(max=0.999)
    said = warnings(frequency.logit().expand(40, 3), caplog)

    assert "learnt nothing from the images" in said[EPOCHS]


def test_knowing_a_little_more_is_something(caplog: pytest.LogCaptureFixture) -> None:
    assert warnings(0.3 * SURE, caplog) == {}


def test_the_same_answer_for_all_is_told(caplog: pytest.LogCaptureFixture) -> None:
    # Surer where it is right, so that the loss is low, but never sure enough.
    logits = torch.where(PRESENT, -0.1, -4.0)
    logits[:, 2] = 10
    said = warnings(logits, caplog)

    assert "it says the same of all 40 patches" in said[EPOCHS]


def test_a_class_that_is_never_seen_is_named(caplog: pytest.LogCaptureFixture) -> None:
    logits = SURE.clone()
    logits[:, 1] = torch.where(PRESENT[:, 1], -0.1, -4.0)
    said = warnings(logits, caplog)

    assert "of 40 patches it sees none that shows green (in 25% of them)" in said[EPOCHS]


def test_a_class_of_a_few_patches_may_be_missed(caplog: pytest.LogCaptureFixture) -> None:
    present = PRESENT.clone()
    present[9:, 1] = False
    logits = 10 * (2 * present.float() - 1)
    logits[:, 1] = torch.where(present[:, 1], -0.1, -4.0)

    assert warnings(logits, caplog, present=present) == {}


def test_what_is_nearly_always_there_can_only_be_guessed(caplog: pytest.LogCaptureFixture) -> None:
    everything = torch.ones(40, 3, dtype=torch.bool)

    assert warnings(torch.full((40, 3), 3.0), caplog, present=everything) == {}


def test_learners_watch_their_classifiers(caplog: pytest.LogCaptureFixture) -> None:
    learner = classify_learner(numbers={"classify": {"epochs": 3}}, residual_weight=0)
    for value in learner.module.parameters():
        value.data.zero_()
    patches = batch(colourful(), [0, 1, 2, 3], [[1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 1, 1]])
    caplog.clear()
    for step in range(3):
        learner.training_step(patches, Clock(step=step, steps=3))
        learner.after_update(Clock(step=step, steps=3))

    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["the classifier in epoch 3"]
