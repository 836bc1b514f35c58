"""Each class is judged, and one of which nothing is found is spoken of, once that has lasted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import torch

from wsiseg.labels import LabelMap
from wsiseg.methods.base import PredictorSpec
from wsiseg.training.ranks import Ranks
from wsiseg.training.validation import Validation

if TYPE_CHECKING:
    import pytest
    from torch import Tensor

SIDE = 8
SPEC = PredictorSpec(
    task="semantic", labels=LabelMap.from_names(("a", "b", "c")), mpp=1.0, tile_px=SIDE, halo_px=0, channels=3
)


class Stubborn:
    """Gives every pixel one class."""

    spec = SPEC

    def __init__(self, label: int) -> None:
        self.label = label

    def forward(self, batch: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(torch.full_like(batch[:, 0].long(), self.label), 3).movedim(-1, 1).float()


def validation() -> Validation:
    """Return a patch of classes a and b; there is no c."""
    labels = np.zeros((SIDE, SIDE), dtype=np.int32)
    labels[:2] = 1
    patch = SimpleNamespace(
        image=np.zeros((SIDE, SIDE, 3), dtype=np.uint8), labels=labels, valid=np.ones((SIDE, SIDE), dtype=bool)
    )
    source = SimpleNamespace(indices=np.array([0]), kind="classes", whole=lambda _: patch)
    return Validation([source], SPEC)  # type: ignore[list-item]


def said(found: list[int], caplog: pytest.LogCaptureFixture, ranks: Ranks | None = None) -> list[str]:
    """Return what is said in validations that find one class each; nothing stands for silence."""
    caplog.clear()
    judge, messages = validation(), []
    for label in found:
        judge.measure(Stubborn(label), ranks or Ranks())  # type: ignore[arg-type]
        messages.append(" ".join(record.getMessage() for record in caplog.records))
        caplog.clear()
    return messages


def test_the_iou_of_each_class_is_told_where_it_has_one() -> None:
    found = validation().measure(Stubborn(0), Ranks())  # type: ignore[arg-type]

    assert list(found) == ["miou", "fw_iou", "pixel_accuracy", "mean_dice", "iou_a", "iou_b", "iou_c"]
    assert (found["iou_a"], found["iou_b"], found["miou"]) == (0.75, 0.0, 0.375)
    assert np.isnan(found["iou_c"])


def test_a_class_that_is_there_and_never_found_is_named_from_the_third_time_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    messages = said([0, 0, 0, 0], caplog)

    assert messages[:2] == ["", ""]
    assert messages[2].startswith("not a pixel of b was found in the last 3 validations")
    assert messages[3].startswith("not a pixel of b was found in the last 4 validations")


def test_a_class_that_was_found_in_between_is_not_named(caplog: pytest.LogCaptureFixture) -> None:
    assert said([0, 0, 1, 0, 0, 1], caplog) == [""] * 6


def test_several_classes_are_named_together(caplog: pytest.LogCaptureFixture) -> None:
    assert said([2, 2, 2], caplog)[2].startswith("not a pixel of a or of b was found in the last 3")
