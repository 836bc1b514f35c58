"""A teacher is judged beside its student, and one that is worse than learning alone is spoken of."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch

from wsiseg.methods.base import Clock
from wsiseg.training.teacher_check import TeacherCheck

if TYPE_CHECKING:
    from collections.abc import Sequence

CPU = torch.device("cpu")


def check(scores: Sequence[float], baseline: float | None) -> TeacherCheck:
    """Return a check of a teacher that has these scores one after the other."""
    left = iter(scores)
    validation = SimpleNamespace(metric="aji", measure=lambda *_: {"aji": next(left), "dice": 0.5, "iou_a": 0.1})
    learner = SimpleNamespace(module=torch.nn.Identity(), teacher=lambda module: module)
    return TeacherCheck(cast("Any", learner), cast("Any", validation), baseline=baseline)


def test_metrics_of_the_teacher_have_names_of_their_own() -> None:
    assert check([0.25], None).measure(Clock(step=0, steps=10), CPU) == {"teacher_aji": 0.25, "teacher_dice": 0.5}


@pytest.mark.parametrize(
    ("scores", "baseline", "warnings"),
    [
        ([0.4] * 8, None, 0),
        ([0.4] * 8, 0.3, 0),
        ([0.4] * 8, 0.5, 1),
        # Two in a row are chance, and the first quarter does not count.
        ([0.1, 0.1, 0.4, 0.4, 0.6, 0.4, 0.4, 0.6], 0.5, 0),
        ([0.1, 0.1, 0.4, 0.4, 0.4, 0.6, 0.4, 0.6], 0.5, 1),
    ],
)
def test_a_teacher_below_learning_alone_is_spoken_of_once(
    scores: list[float], baseline: float | None, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    judge = check(scores, baseline)

    with caplog.at_level(logging.WARNING):
        for step in range(len(scores)):
            judge.measure(Clock(step=step, steps=len(scores)), CPU)

    assert len(caplog.records) == warnings
    assert all("the teacher's aji of 0.400 is below the 0.500" in record.getMessage() for record in caplog.records)
