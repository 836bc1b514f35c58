"""Tests of optimisers and learning rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from wsiseg.labels import LabelMap
from wsiseg.methods.base import Batch, Clock, TrainingFacts
from wsiseg.tasks.train_job import TrainConfig, plan_of
from wsiseg.training.optimiser import make_optimiser, set_rates
from wsiseg.training.settings import FitSettings

if TYPE_CHECKING:
    from torch import Tensor

    from wsiseg.methods.base import Encode
    from wsiseg.methods.predictor import NetPredictor


class Fast:
    """A learner whose head learns ten times as fast as its trunk."""

    def __init__(self) -> None:
        layers = {"trunk": nn.Conv2d(3, 4, 1), "norm": nn.BatchNorm2d(4), "head": nn.Conv2d(4, 2, 1)}
        layers["trunk"].requires_grad_(requires_grad=False)
        self.module = nn.ModuleDict({**layers, "stem": nn.Conv2d(3, 4, 1)})

    @property
    def encode(self) -> Encode:
        raise NotImplementedError

    def training_step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        raise NotImplementedError

    def rate_of(self, name: str) -> float:
        return 10.0 if name.startswith("head") else 1.0

    def after_update(self, clock: Clock) -> None:
        raise NotImplementedError

    def predictor(self, module: nn.Module) -> NetPredictor:
        raise NotImplementedError


SGD = FitSettings(optimiser="sgd", schedule="poly", warmup=0, lr=0.01, momentum=0.5, weight_decay=5e-4)


def test_only_what_learns_is_in_a_group_and_once() -> None:
    learner = Fast()
    for settings in (FitSettings(), SGD):
        optimiser = make_optimiser(learner, settings)
        held = [id(value) for group in optimiser.param_groups for value in group["params"]]
        learnt = [id(value) for value in learner.module.parameters() if value.requires_grad]
        assert sorted(held) == sorted(learnt)


def test_sgd_decays_everything_and_adamw_no_scales() -> None:
    sgd = make_optimiser(Fast(), SGD)
    assert {group["weight_decay"] for group in sgd.param_groups} == {5e-4}
    assert {group["momentum"] for group in sgd.param_groups} == {0.5}
    adam = make_optimiser(Fast(), FitSettings(optimiser="adam", weight_decay=5e-4))
    assert type(adam) is torch.optim.Adam
    assert {group["weight_decay"] for group in adam.param_groups} == {5e-4}
    adamw = make_optimiser(Fast(), FitSettings(weight_decay=0.1))
    for group in adamw.param_groups:
        assert {value.ndim > 1 for value in group["params"]} == {group["weight_decay"] > 0}


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (50, 0.5**0.9), (99, 0.01**0.9)])
def test_poly_rates_keep_their_ratio(step: int, factor: float) -> None:
    optimiser = make_optimiser(Fast(), SGD)
    set_rates(optimiser, SGD, Clock(step=step, steps=100))
    slow, fast = sorted({group["lr"] for group in optimiser.param_groups})
    assert slow == pytest.approx(0.01 * factor)
    assert fast == pytest.approx(10 * slow)
    assert slow > 0


def test_rates_may_fall_in_steps() -> None:
    settings = FitSettings(steps=6000, schedule="step", warmup=0, lr=0.01)
    optimiser = torch.optim.SGD([{"params": [torch.zeros(1)], "factor": 2.0}], lr=1.0)

    rates = []
    for step in (0, 2499, 2500, 5999):
        set_rates(optimiser, settings, Clock(step=step, steps=6000))
        rates.append(optimiser.param_groups[0]["lr"])

    assert rates == pytest.approx([0.02, 0.02, 0.002, 0.0002])


@pytest.mark.parametrize(("schedule", "counts"), [("step", True), ("poly", False), ("cosine", False)])
def test_a_training_depends_on_the_numbers_of_its_own_schedule(schedule: str, *, counts: bool) -> None:
    facts = TrainingFacts(
        name="toy", kind="classes", labels=LabelMap.from_names(("a", "b")), mpp=None, crop_px=8, training_data={}
    )

    plan = plan_of(TrainConfig.model_validate({"fit": {"schedule": schedule}}), facts, None)

    assert plan["fit.schedule"] == schedule
    assert ("fit.step_every" in plan) == ("fit.step_factor" in plan) == counts


def test_poly_may_begin_with_a_rise_from_nothing() -> None:
    settings = FitSettings(steps=100, schedule="poly", warmup=0.1, lr=1.0)
    optimiser = make_optimiser(Fast(), settings)
    rates = []
    for step in (0, 5, 10):
        set_rates(optimiser, settings, Clock(step=step, steps=100))
        rates.append(min(group["lr"] for group in optimiser.param_groups))
    assert rates == pytest.approx([0, 0.5, 0.9**0.9])


def test_cosine_rises_first() -> None:
    settings = FitSettings(steps=100, warmup=0.1, lr=1.0)
    optimiser = make_optimiser(Fast(), settings)
    rates = []
    for step in (0, 9, 99):
        set_rates(optimiser, settings, Clock(step=step, steps=100))
        rates.append(min(group["lr"] for group in optimiser.param_groups))
    assert rates[0] < rates[2] * 20
    assert rates[1] == 1.0
    assert rates[2] < rates[1]
