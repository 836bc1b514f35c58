"""What student and teacher, and the two tasks, agree about is what the options of mutual consistency say."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wsiseg.config import load
from wsiseg.labels import LabelMap
from wsiseg.methods.base import Batch, Clock, TrainingFacts
from wsiseg.methods.predictor import normalised
from wsiseg.methods.ugmcl import METHOD, UgmclLearner
from wsiseg.methods.ugmcl_options import UgmclOptions
from wsiseg.nets.dual_task import DualTaskNet

if TYPE_CHECKING:
    from collections.abc import Iterator

SIDE = 16
HALFWAY = Clock(step=5, steps=10)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class OfEachPixel(DualTaskNet):
    """Says of each pixel what its own colours say, and keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 2, 1), nn.Conv2d(3, 1, 1))
        self.shown: list[Tensor] = []

    def features(self, x: Tensor) -> Tensor:
        self.shown.append(x)
        return x


def build(**options: object) -> UgmclLearner:
    """Return a learner whose student and teacher differ and say of each pixel what they think of it."""
    facts = TrainingFacts(
        name="toy",
        kind="classes",
        labels=LabelMap.from_names(("background", "gland")),
        mpp=0.5,
        crop_px=SIDE,
        training_data={},
    )
    small = {"net": {"widths": [4, 8], "dropouts": [0.1, 0.5]}, "mc_passes": 2, **options}
    learner = METHOD.stages(load(UgmclOptions, options=small))[0].build(facts)
    torch.manual_seed(0)
    learner.module.student, learner.module.teacher = OfEachPixel(), OfEachPixel()
    return learner


def batch(learner: UgmclLearner) -> Batch:
    """Return one image with labels and two without."""
    rng = np.random.default_rng(0)
    items = learner.encode(rng.integers(0, 2, (SIDE, SIDE), dtype=np.int32), np.ones((SIDE, SIDE), bool))
    images = torch.from_numpy(rng.integers(0, 256, (3, 3, SIDE, SIDE), dtype=np.uint8))
    return Batch(images=images, targets={name: torch.from_numpy(values[None]) for name, values in items.items()})


def of(net: nn.Module) -> OfEachPixel:
    assert isinstance(net, OfEachPixel)
    return net


def test_each_look_of_the_teacher_is_at_noise_of_its_own_and_the_student_sees_none() -> None:
    one = build(noise_std=0.1, noise_clip=0.2, mc_passes=4, mc_at_once=2, mixed_batches=True)
    data = batch(one)

    one.training_step(data, HALFWAY)

    images = normalised(data.images, one.card)
    (seen,) = of(one.module.student).shown
    assert torch.equal(seen, images)
    # One look for what it teaches, and four for its doubt.
    looks = torch.cat(of(one.module.teacher).shown).reshape(5, *images.shape)
    noise = looks - images
    for look in noise:
        assert look.std().item() == pytest.approx(0.088, abs=0.01)
        assert look.abs().max().item() == pytest.approx(0.2, abs=1e-4)
    assert all(not torch.equal(noise[first], noise[second]) for first in range(5) for second in range(first))


def test_images_with_labels_and_without_are_looked_at_apart() -> None:
    one = build(mc_passes=2, mc_at_once=2)

    one.training_step(batch(one), HALFWAY)

    assert [len(shown) for shown in of(one.module.student).shown] == [1, 2]
    # Two passes at once tell of its doubt.
    assert [len(shown) for shown in of(one.module.teacher).shown] == [1, 2, 2, 4]


@pytest.mark.parametrize("ramp", [1.0, 0.5])
@pytest.mark.parametrize(
    ("certainty", "progress", "share"),
    [
        ((0.75, 1.0), 0.0, 0.75168),
        ((0.75, 1.0), 0.5, 0.82163),
        ((0.75, 1.0), 1.0, 1.0),
        ((0.2, 0.6), 0.0, 0.2027),
        ((0.2, 0.6), 0.5, 0.3146),
        ((0.2, 0.6), 1.0, 0.6),
    ],
)
def test_more_and_more_is_certain(
    certainty: tuple[float, float], progress: float, share: float, ramp: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = build(certainty=certainty, ramp=ramp, mixed_batches=True)
    doubts = torch.linspace(0, math.log(2), 3 * SIDE * SIDE).reshape(3, 1, SIDE, SIDE)
    monkeypatch.setattr(one, "doubt", lambda _: doubts)

    losses = one.training_step(batch(one), Clock(step=round(1000 * progress * ramp), steps=1000))

    assert losses["coverage"].item() == pytest.approx(share, abs=3e-3)


@pytest.mark.parametrize("beta", [0.0, 0.25, 0.75, 1.0])
@pytest.mark.parametrize("channels", ["mean", "sum"])
def test_level_sets_have_the_share_that_probabilities_leave_them(beta: float, channels: str) -> None:
    # With more than all there can be, each pixel is certain.
    one = build(itc={"beta": beta, "channels": channels}, noise_std=0, certainty=(1, 1))
    data = batch(one)
    images = normalised(data.images, one.card)
    with torch.no_grad():
        (sdf, logits), (taught_sdf, taught) = (
            net.both(images) for net in (of(one.module.student), of(one.module.teacher))
        )
        doubt = torch.special.entr(taught.softmax(dim=1)).sum(dim=1, keepdim=True)
        is_sure = doubt < math.log(2)
        within = (logits.softmax(dim=1) - taught.softmax(dim=1)).square()
        depths = (sdf - taught_sdf).square()
    both = 2 if channels == "sum" else 1

    losses = one.training_step(data, HALFWAY)

    assert is_sure.float().mean() > 0.99
    assert abs(within.mean() - depths.mean()) > 0.01
    expected = beta * both * within.mean() + (1 - beta) * depths.mean()
    assert losses["intra_task"].item() == pytest.approx(expected.item(), rel=1e-2)


def test_both_kinds_of_agreement_count_as_they_are_weighed() -> None:
    one = build(consistency=0.5, itc={"weight": 2.0}, ctc={"weight": 3.0, "steepness": 5.0})

    losses = {name: value.item() for name, value in one.training_step(batch(one), HALFWAY).items()}

    labelled = 0.5 * (losses["cross_entropy"] + losses["dice"]) + 0.3 * losses["distance"]
    agreed = 2 * losses["intra_task"] + 3 * losses["cross_task"]
    assert losses["loss"] == pytest.approx(labelled + 0.5 * math.exp(-5 / 4) * agreed, rel=1e-5)


@pytest.mark.parametrize("task", ["intra", "cross"])
def test_agreement_teaches_both_heads_of_the_student_and_nothing_to_the_teacher(task: str) -> None:
    weights = {"itc": {"weight": float(task == "intra")}, "ctc": {"weight": float(task == "cross"), "steepness": 5.0}}
    one = build(supervised_weight=0, sdf={"weight": 0}, consistency=1.0, **weights)

    torch.autograd.backward(one.training_step(batch(one), HALFWAY)["loss"])

    student = of(one.module.student)
    for head in (student.seg, student.sdf):
        assert head is not None
        assert all(value.grad is not None and value.grad.abs().max() > 1e-5 for value in head.parameters())
    assert all(value.grad is None for value in one.module.teacher.parameters())


@pytest.mark.parametrize(
    ("coverages", "steps", "told"),
    [
        # By the mean of all batches since the last look, not by the one that comes last.
        ([0.0] * 99 + [1.0], 1000, ["1.0 % of the pixels only up to update 100,"]),
        ([0.2] * 99 + [0.0], 1000, []),
        ([0.0] * 99, 1000, []),
        # Once as long as it lasts, and again when it comes back.
        ([0.0] * 300, 1000, ["update 100,"]),
        ([0.0] * 100 + [1.0] * 100 + [0.0] * 200, 1000, ["update 100,", "update 300,"]),
        # Short trainings are looked at in the end.
        ([0.0] * 20, 20, ["0.0 % of the pixels only up to update 20,"]),
        ([1.0] * 20, 20, []),
    ],
)
def test_a_word_is_said_where_the_teacher_is_sure_of_next_to_nothing(
    coverages: list[float],
    steps: int,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = build(certainty=(1, 1), mixed_batches=True)
    data = batch(one)
    left = iter(coverages)

    def doubt(images: Tensor) -> Tensor:
        pixels = images[:, :1].numel()
        is_sure = torch.arange(pixels) < round(next(left) * pixels)
        return torch.where(is_sure, 0.0, 1.0).view_as(images[:, :1])

    monkeypatch.setattr(one, "doubt", doubt)
    with caplog.at_level(logging.WARNING):
        for step in range(len(coverages)):
            one.training_step(data, Clock(step=step, steps=steps))
            one.after_update(Clock(step=step, steps=steps))

    assert len(caplog.records) == len(told)
    assert all(part in record.getMessage() for part, record in zip(told, caplog.records, strict=True))
