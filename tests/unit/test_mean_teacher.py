"""A mean teacher sees noise, is the running average of its student, and is agreed with on all images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wsiseg.config import load
from wsiseg.labels import LabelMap
from wsiseg.losses.semantic import combo
from wsiseg.methods.base import Batch, Clock, TrainingFacts
from wsiseg.methods.mean_teacher import METHOD, MeanTeacherLearner, MeanTeacherOptions
from wsiseg.methods.predictor import normalised

SIDE = 16
HALFWAY = Clock(step=5, steps=10)


def build(**options: object) -> MeanTeacherLearner:
    """Return a learner whose teacher differs from its student."""
    small: dict[str, Any] = {"arch": "unet-gn", "net": {"widths": [8, 16]}}
    (stage,) = METHOD.stages(load(MeanTeacherOptions, options={**small, **options}))
    facts = TrainingFacts(
        name="toy",
        kind="classes",
        labels=LabelMap.from_names(("background", "gland", "fat")),
        mpp=0.5,
        crop_px=SIDE,
        training_data={},
    )
    torch.manual_seed(0)
    learner = stage.build(facts)
    with torch.no_grad():
        for value in learner.module.teacher.parameters():
            value.add_(0.3 * torch.randn_like(value))
    return learner


def batch(labelled: int = 2, unlabelled: int = 2) -> Batch:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 255, (labelled + unlabelled, 3, SIDE, SIDE), dtype=np.uint8))
    classes = torch.from_numpy(rng.integers(0, 3, (labelled, SIDE, SIDE), dtype=np.uint8))
    return Batch(images=images, targets={"classes": classes})


def test_the_loss_is_that_of_its_formula() -> None:
    one, data = build(noise_std=0, consistency=0.5, dice_weight=0.7), batch()
    images = normalised(data.images, one.card)

    losses = one.training_step(data, HALFWAY)

    with torch.no_grad():
        student, teacher = (net(images).double() for net in (one.module.student, one.module.teacher))
    consistency = (student.softmax(dim=1) - teacher.softmax(dim=1)).square().mean().item()
    labelled = combo(student[:2].float(), data.targets["classes"].long(), dice_weight=0.7)["loss"].item()
    assert consistency > 0.01
    assert losses["consistency"].item() == pytest.approx(consistency, rel=1e-4)
    assert losses["weight"].item() == pytest.approx(0.5 * math.exp(-5 / 4))
    assert losses["loss"].item() == pytest.approx(labelled + 0.5 * math.exp(-5 / 4) * consistency, rel=1e-4)


@pytest.mark.parametrize(("step", "weight"), [(0, 0.000674), (25, 0.0060), (50, 0.0287), (75, 0.0732), (100, 0.1)])
def test_agreement_weighs_more_and_more(step: int, weight: float) -> None:
    losses = build().training_step(batch(), Clock(step=step, steps=100))

    assert losses["weight"].item() == pytest.approx(weight, rel=5e-3)


def test_agreement_moves_the_student_alone() -> None:
    def gradients(consistency: float) -> list[Tensor]:
        one = build(noise_std=0, consistency=consistency)
        torch.autograd.backward(one.training_step(batch(), HALFWAY)["loss"])
        assert all(value.grad is None for value in one.module.teacher.parameters())
        return [value.grad for value in one.module.student.parameters() if value.grad is not None]

    alone, weak, strong = (gradients(consistency) for consistency in (1e-9, 1.0, 2.0))

    assert len(alone) == len(list(build().module.student.parameters()))
    for none, once, twice in zip(alone, weak, strong, strict=True):
        torch.testing.assert_close(twice - none, 2 * (once - none), rtol=1e-3, atol=1e-5)
    assert any(not torch.allclose(none, once, atol=1e-4) for none, once in zip(alone, weak, strict=True))


def test_the_teacher_sees_noise_and_the_student_does_not() -> None:
    one, data = build(noise_std=0.5, noise_clip=0.8, mixed_batches=True), batch()
    seen: dict[str, list[Tensor]] = {"student": [], "teacher": []}
    for name, net in one.module.named_children():
        net.register_forward_pre_hook(lambda _, given, name=name: seen[name].append(given[0]))

    for _ in range(4):
        one.training_step(data, HALFWAY)

    images = normalised(data.images, one.card)
    assert all(torch.equal(given, images) for given in seen["student"])
    noise = torch.stack(seen["teacher"]) - images
    assert noise.abs().max().item() == pytest.approx(0.8, abs=1e-5)
    is_cut = noise.abs() > 0.8 - 1e-5
    # Of a normal distribution of this width, a ninth lies beyond.
    assert is_cut.float().mean().item() == pytest.approx(math.erfc(0.8 / 0.5 / math.sqrt(2)), abs=0.02)
    assert noise.mean().abs() < 0.02
    assert not torch.equal(noise[0], noise[1])


@pytest.mark.parametrize("is_mixed", [False, True])
def test_images_with_labels_and_without_are_normalised_apart_unless_they_are_mixed(*, is_mixed: bool) -> None:
    entropies, averages, seen = [], [], []
    for shade in (0, 200):
        one, data = build(arch="dual-unet", net={"widths": [4, 8], "dropouts": [0, 0]}, mixed_batches=is_mixed), batch()
        one.module.teacher.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
        data.images[2:] = shade
        entropies.append(one.training_step(data, HALFWAY)["cross_entropy"].item())
        averages.append(next(value for name, value in one.module.student.named_buffers() if "mean" in name))

    assert averages[0].any()
    assert torch.equal(*averages) == (not is_mixed)
    assert (entropies[0] != entropies[1]) == is_mixed
    assert seen == ([4, 4] if is_mixed else [2, 2, 2, 2])
    # What was held for the one kind goes on for the next.
    assert {layer.momentum for layer in one.module.student.modules() if isinstance(layer, nn.BatchNorm2d)} == {0.1}


def test_the_teacher_is_the_mean_of_the_first_students_and_a_running_average_after() -> None:
    one, kept = build(ema=0.9), []
    for step in (0, 1, 2, 3, 8, 9, 500):
        with torch.no_grad():
            for name, value in (("student", 0.0), ("teacher", 1.0)):
                for parameter in getattr(one.module, name).parameters():
                    parameter.fill_(value)
        one.after_update(Clock(step=step, steps=1000))
        weights = torch.cat([value.detach().flatten() for value in one.module.teacher.parameters()])
        assert weights.max() - weights.min() < 1e-5
        kept.append(weights[0].item())

    assert kept == pytest.approx([0, 0.5, 2 / 3, 0.75, 8 / 9, 0.9, 0.9])
