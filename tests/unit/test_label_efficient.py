"""What a student makes of labels that were given and of pseudo-labels, and what of each teacher is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.nuclei_makers import ellipses
from wsiseg.config import load
from wsiseg.labels import LabelMap
from wsiseg.methods.base import Batch, Clock, TrainingFacts
from wsiseg.methods.label_efficient import METHOD, PSEUDO, LabelEfficientOptions, StudentStage
from wsiseg.ramps import gaussian
from wsiseg.training.batches import stacked

if TYPE_CHECKING:
    from wsiseg.methods.label_efficient import TeacherStage

SIDE = 32
FACTS = TrainingFacts(
    name="few", kind="instances", labels=LabelMap.from_names(("background", "nucleus")), mpp=0.5, crop_px=SIDE,
    training_data={},
)  # fmt: skip


def stages(**options: object) -> tuple[TeacherStage | StudentStage, ...]:
    given = {"net": {"widths": [8, 16]}, **options}
    return METHOD.stages(load(LabelEfficientOptions, options=given))


@pytest.mark.parametrize("step", [0, 1, 2, 10, 20])
def test_pseudo_labels_count_by_their_images_and_the_ramp(step: int) -> None:
    torch.manual_seed(0)
    learner = stages(ramp=0.2)[1].build(FACTS)
    valid = np.ones((SIDE, SIDE), np.bool_)
    targets = stacked([learner.encode(ellipses(4, SIDE, seed=seed, radii=(3, 4)), valid) for seed in range(5)])
    images = torch.randint(0, 256, (5, 3, SIDE, SIDE), dtype=torch.uint8)
    clock, marks = Clock(step=step, steps=20), torch.arange(5) >= 2

    def loss(part: slice) -> float:
        given = {name: value[part] for name, value in targets.items()}
        return learner.training_step(Batch(images=images[part], targets=given), clock)["loss"].item()

    both = learner.training_step(Batch(images=images, targets={**targets, PSEUDO: marks}), clock)

    given, pseudo, weight = loss(slice(2)), loss(slice(2, 5)), gaussian(step / 4)
    assert both["weight"].item() == pytest.approx(weight)
    assert both["pseudo"].item() == pytest.approx(pseudo, rel=1e-5)
    # Three images of one kind to two of the other.
    assert both["loss"].item() == pytest.approx(given + weight * 1.5 * pseudo, rel=1e-5)
    assert weight == 1 or step < 4


def test_later_teachers_are_believed_from_a_score_of_their_own() -> None:
    scores = {"min_score": 0.4, "later_min_score": 0.8}

    students = [one for one in stages(rounds=3, pseudo=scores) if isinstance(one, StudentStage)]

    assert [one.min_scores(FACTS.labels) for one in students] == [(0.4, 0.4), (0.8, 0.8), (0.8, 0.8)]


def test_the_class_of_objects_may_have_a_score_of_its_own() -> None:
    scores = load(LabelEfficientOptions, overrides=["pseudo.class_min_score.nucleus=0.6"])

    students = [one for one in METHOD.stages(scores) if isinstance(one, StudentStage)]

    assert [one.min_scores(FACTS.labels)[1] for one in students] == [0.6]
