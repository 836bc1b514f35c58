"""Predictors of volumes are judged by the overlap of each structure in each whole volume."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.volume_makers import make_case
from wsiseg.errors import MethodError
from wsiseg.training.ranks import Ranks
from wsiseg.training.volume_batches import VolumeSource
from wsiseg.training.volume_validation import VolumeValidation
from wsiseg.volumes import VolumeInput

if TYPE_CHECKING:
    from torch import Tensor

LABELS = [make_case(0)[1], make_case(1)[1]]


class Reader:
    """Reads the classes off the voxels, which tell them; blind to some."""

    def __init__(self, *, blind: int | None = None, volume: VolumeInput | None = None) -> None:
        self.spec = SimpleNamespace(channels=3, volume=volume or VolumeInput(patch=(8, 8, 8)))
        self._blind = blind

    def forward(self, batch: Tensor) -> Tensor:
        seen = batch[:, 0].long()
        seen = torch.where(seen == self._blind, 0, seen) if self._blind is not None else seen
        return torch.nn.functional.one_hot(seen, 3).movedim(-1, 1).float()


def validation(truths: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]) -> VolumeValidation:
    store = SimpleNamespace(
        read_voxels=lambda index: np.where(truths[index] == 255, 1, truths[index]).astype(np.float32),
        read_labels=lambda index: truths[index],
    )
    return VolumeValidation([VolumeSource(store=store, indices=np.arange(len(truths)))])  # type: ignore[arg-type]


def measured(judge: VolumeValidation, predictor: Reader) -> dict[str, float]:
    return judge.measure(predictor, Ranks())  # type: ignore[arg-type]


def test_who_sees_all_scores_one() -> None:
    judge = validation(LABELS)

    assert (judge.metric, len(judge)) == ("dice", 2)
    assert measured(judge, Reader()) == pytest.approx({"dice": 1, "jaccard": 1})


def test_a_structure_that_is_missed_costs_its_share() -> None:
    assert measured(validation(LABELS), Reader(blind=2)) == pytest.approx({"dice": 0.5, "jaccard": 0.5})


def test_a_structure_that_is_nowhere_counts_as_found() -> None:
    without = np.where(LABELS[0] == 2, 0, LABELS[0]).astype(np.uint8)

    assert measured(validation([without]), Reader())["dice"] == 1


def test_ignored_voxels_do_not_count() -> None:
    partly = LABELS[0].copy()
    partly[:3] = 255

    assert measured(validation([partly]), Reader())["dice"] == 1


def test_networks_of_images_cannot_be_judged_so() -> None:
    reader = Reader()
    reader.spec.volume = None

    with pytest.raises(MethodError, match="network of images"):
        measured(validation(LABELS), reader)
