"""What a network says of patches without labels becomes labels only where it is sure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from wsiseg.checkpoint import HeadSpec, ModelCard
from wsiseg.labels import LabelMap
from wsiseg.methods.predictor import NetPredictor
from wsiseg.methods.pseudo_objects import PseudoRules
from wsiseg.training.pseudo_labels import Health, PseudoLabeller, annotated_coverage, doubt
from wsiseg.training.sources import Source

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePatchStore

CARD = ModelCard(
    name="noise", task="instance", labels=LabelMap.from_names(("background", "nucleus")), tile_px=128, halo_px=16,
    net={}, head=HeadSpec(kind="flow"),
)  # fmt: skip


class Noise(torch.nn.Module):
    """A network that has learnt nothing."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        noise = gaussian_filter(np.random.default_rng(0).normal(size=(3, 128, 128)), (0, 4, 4))
        return torch.from_numpy(noise / noise.std()).float().expand(len(images), -1, -1, -1)


def test_objects_that_a_teacher_sees_in_noise_are_not_believed() -> None:
    labeller = PseudoLabeller(
        NetPredictor(CARD, Noise()), PseudoRules(), min_scores=(0.5, 0.5), device=torch.device("cpu")
    )

    found = labeller.label(np.zeros((128, 128, 3), np.uint8))

    assert found.rejected > 50
    assert len(found.scores) == 0
    assert (found.labels <= 0).all()


def told(*, kept: int = 9, coverage: float = 0.2, ignored: float = 0.1) -> Health:
    return Health(patches=4, kept=kept, rejected=1, mean_score=0.8, coverage=coverage, ignored=ignored)


@pytest.mark.parametrize(
    ("health", "annotated", "words"),
    [
        (told(kept=0), 0.2, "not one object was believed"),
        (told(ignored=0.975, coverage=0.01), 0.2, "nothing is learnt from 97.5% of the pixels"),
        (told(coverage=0.02), 0.2, "objects cover 2.2% of what has pseudo-labels, and 20.0% of what is annotated"),
        (told(coverage=0.5), 0.2, "objects cover 55.6% of what has pseudo-labels, and 20.0% of what is annotated"),
    ],
)
def test_pseudo_labels_that_are_unlike_what_is_annotated_are_told(health: Health, annotated: float, words: str) -> None:
    assert doubt(health, annotated).startswith(words)


@pytest.mark.parametrize("annotated", [0.12, 0.2, 0.4, None])
def test_pseudo_labels_that_look_like_what_is_annotated_are_trusted(annotated: float | None) -> None:
    assert doubt(told(), annotated) == ""


def test_coverage_is_that_of_what_is_known(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    labels = np.zeros((500, 8, 8), np.int32)
    labels[:, :4], labels[:, 7] = -1, 3
    store = make_patch_store(tmp_path / "s.zarr", np.zeros((500, 8, 8, 3), np.uint8), labels, kind="instances")

    assert annotated_coverage([Source(patches=store, layer="truth", indices=np.arange(500))]) == 0.25
