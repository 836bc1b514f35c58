"""A teacher is the running average of its student, and nothing else moves it."""

from __future__ import annotations

import torch
from torch import nn

from wsiseg.methods.teachers import Pair


def pair() -> Pair:
    torch.manual_seed(0)
    return Pair(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))


def changed(value: Pair) -> None:
    for part in (*value.student.parameters(), *value.student.buffers()):
        part.data = part.data + 1


def test_a_teacher_begins_as_the_student_and_does_not_learn() -> None:
    both = pair()

    assert all(torch.equal(*same) for same in zip(both.student.parameters(), both.teacher.parameters(), strict=True))
    assert not any(value.requires_grad for value in both.teacher.parameters())
    assert all(value.requires_grad for value in both.student.parameters())


def test_a_teacher_moves_a_part_of_the_way() -> None:
    both = pair()
    before = {name: value.clone() for name, value in both.teacher.state_dict().items()}
    changed(both)

    both.follow(0.75, buffers=True)

    for name, value in both.teacher.state_dict().items():
        step = 1.0 if name.endswith("num_batches_tracked") else 0.25
        torch.testing.assert_close(value, before[name] + torch.tensor(step, dtype=value.dtype))


def test_statistics_may_stay_the_teachers_own() -> None:
    both = pair()
    before = {name: value.clone() for name, value in both.teacher.named_buffers()}
    changed(both)

    both.follow(0.0, buffers=False)

    assert all(torch.equal(value, before[name]) for name, value in both.teacher.named_buffers())
    assert all(torch.equal(*same) for same in zip(both.student.parameters(), both.teacher.parameters(), strict=True))
