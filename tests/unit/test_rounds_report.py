"""Whether a student is better than its teacher is said."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from wsiseg.tasks.rounds_report import Trained, compared
from wsiseg.tasks.train_job import TrainReport
from wsiseg.training.fit import FitReport


def stage(name: str, best: float) -> Trained:
    fit = FitReport(steps=9, steps_before=0, metric="aji", best=best, best_step=6, wait=0.0)
    report = TrainReport(fit=fit, checkpoint=Path("run", name, "best"), is_first=True, is_best=True)
    return Trained(name=name, report=report, told=None)


@pytest.mark.parametrize(
    ("student", "teacher", "said"),
    [
        (0.7, 0.61, "aji of student-1 0.7000, of teacher 0.6100"),
        (
            0.6,
            0.61,
            "warning: aji of student-1 0.6000, of teacher 0.6100: pseudo-labels made it worse than run/teacher/best",
        ),
        (math.nan, math.nan, "nobody knows whether student-1 is better than teacher, as nothing is held out"),
    ],
)
def test_a_student_is_compared_with_what_taught_it(student: float, teacher: float, said: str) -> None:
    assert compared(stage("student-1", student), stage("teacher", teacher)) == said
