"""What a network says of patches without labels becomes labels only where it is sure."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from wsiseg.checkpoint import HeadSpec, ModelCard
from wsiseg.labels import LabelMap
from wsiseg.methods.predictor import NetPredictor
from wsiseg.methods.pseudo_objects import PseudoRules
from wsiseg.training.pseudo_labels import PseudoLabeller

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
