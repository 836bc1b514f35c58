"""A teacher is the running average of its student, and nothing else moves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from wsiseg.config import load
from wsiseg.labels import LabelMap
from wsiseg.methods.base import Clock, TrainingFacts
from wsiseg.methods.predictor import load_predictor, normalised
from wsiseg.methods.registry import get_method
from wsiseg.methods.teachers import Pair, TaughtLearner, by_kind
from wsiseg.training.teacher_check import TeacherCheck

if TYPE_CHECKING:
    from pathlib import Path

    from wsiseg.methods.base import Predictor
    from wsiseg.training.ranks import Ranks


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


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_only_images_with_labels_move_statistics(norm: type[nn.Module]) -> None:
    images = torch.randn(4, 3, 8, 8)
    found = []
    for others in (images[2:], images[2:] + 9):
        both = Pair(nn.Sequential(norm(3)))
        for net in (both.student, both.teacher):
            by_kind(net, lambda seen: (net(seen),), torch.cat([images[:2], others]), 2, mixed=False)  # noqa: B023 - called at once
        found.append(both.state_dict())

    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    assert not torch.equal(found[0]["student.0.running_mean"], torch.zeros(3))
    assert torch.equal(found[0]["teacher.0.running_mean"], torch.zeros(3))


SMALL: dict[str, dict[str, Any]] = {
    "hce": {"net": {"encoder": "resnet18", "width": 8, "features": 8, "decoders": 2}},
    "mean-teacher": {"arch": "unet-gn", "net": {"widths": [8, 16]}},
    "pgfanet": {"net": {"encoder": "resnet18", "width": 8, "features": 8}},
    "ugmcl": {"arch": "dual-unet", "net": {"widths": [4, 8], "dropouts": [0.1, 0.5]}},
}


class Asked:
    """Validation that keeps what each predictor says of an image."""

    metric = "said"

    def __init__(self, images: torch.Tensor) -> None:
        self.images, self.said = images, torch.empty(0)

    def measure(self, predictor: Predictor, ranks: Ranks) -> dict[str, float]:  # noqa: ARG002 - there is one
        with torch.inference_mode():
            self.said = predictor.forward(self.images)
        return {"said": 0.0}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_it_is_the_average_that_is_judged_and_kept_as_the_teacher(name: str, tmp_path: Path) -> None:
    method = get_method(name)
    facts = TrainingFacts(
        name="toy",
        kind="classes",
        labels=LabelMap.from_names(("background", "gland")),
        mpp=0.5,
        crop_px=32,
        training_data={},
    )
    torch.manual_seed(0)
    learner = method.stages(load(method.options, options=SMALL[name]))[0].build(facts)
    assert isinstance(learner, TaughtLearner)
    before = {key: value.clone() for key, value in learner.module.teacher.state_dict().items()}
    with torch.no_grad():
        for value in learner.module.student.parameters():
            value.add_(0.2 * torch.randn_like(value))
    learner.module.follow(0.75, buffers=True)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    asked = Asked(images)

    TeacherCheck(learner, asked).measure(Clock(step=1, steps=2), torch.device("cpu"))
    learner.teacher(learner.module).save(tmp_path / "teacher", metrics={})

    student = learner.module.student.eval()
    average = {
        key: 0.75 * before[key] + 0.25 * value if value.is_floating_point() else value
        for key, value in student.state_dict().items()
    }
    with torch.inference_mode():
        of_student = student(normalised(images, learner.card)).softmax(dim=1)
        student.load_state_dict(average)
        expected = student(normalised(images, learner.card)).softmax(dim=1)
        torch.testing.assert_close(asked.said, expected, rtol=1e-3, atol=1e-5)
        kept = load_predictor(tmp_path / "teacher").forward(images)
    torch.testing.assert_close(kept, expected, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(of_student, expected, atol=1e-3)
