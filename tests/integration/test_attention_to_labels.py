"""Classes of patches tell a tiny network where two textures are; wrong labels of pixels hardly mislead it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from wsiseg.losses.centres import ClassCentres
from wsiseg.losses.contrast import pixel_clustering
from wsiseg.losses.dense_energy import dense_energy
from wsiseg.losses.resampling import nearest
from wsiseg.losses.semantic import cross_entropy
from wsiseg.methods.accumulation import AttentionAccumulator
from wsiseg.methods.attention_labels import attention_labels
from wsiseg.nets.projection import ProjectionHead
from wsiseg.nets.residual_attention import ResidualAttention, attention_maps
from wsiseg.ramps import late_start, poly

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 32
SMALL = (16, 16)
EPOCHS = 40
STEPS = 120


def textures() -> tuple[Tensor, Tensor]:
    """Return eight patches (8, 3, H, W), 0 … 1, and their classes (8, H, W): 0 is striped, 1 is blotched."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    borders = (0, SIDE, 0, SIDE, 10, 14, 18, 22)
    labels = np.stack([(x if n % 2 else y) >= border for n, border in enumerate(borders)]).astype(np.int64)
    striped, blotched = (0.5 + 0.3 * (pattern % 2) for pattern in ((x + y) // 2, x // 4 + y // 4))
    images = np.where(labels, blotched, striped)[:, None] + rng.normal(0, 0.08, (8, 3, SIDE, SIDE))
    images[:, 0] += 0.05 * labels
    return torch.tensor(images, dtype=torch.float32).clamp(0, 1), torch.tensor(labels)


def trunk(*widths: int, strides: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs, stride in zip((3, *widths[:-1]), widths, strides, strict=True):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.GroupNorm(4, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def mean_iou(found: NDArray[np.integer], truth: NDArray[np.integer]) -> float:
    hits = [((found == c) & (truth == c)).sum() / ((found == c) | (truth == c)).sum() for c in (0, 1)]
    return float(np.mean(hits))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_attention_finds_the_textures(seed: int) -> None:
    images, truth = textures()
    present = torch.stack([(truth == label).flatten(1).any(dim=1) for label in (0, 1)], dim=1)
    torch.manual_seed(seed)
    features, head = trunk(16, 32, 32, strides=(2, 2, 1)), ResidualAttention(32, 2)
    optimiser = torch.optim.Adam([*features.parameters(), *head.parameters()], lr=1e-2)
    accumulator = AttentionAccumulator(8, 2, (8, 8))
    for epoch in range(1, EPOCHS + 1):
        found = head(features(images))
        optimiser.zero_grad()
        torch.autograd.backward(functional.binary_cross_entropy_with_logits(found.logits, present.float()))
        optimiser.step()
        accumulator.update(
            range(8),
            attention_maps(found.scores).numpy(),
            found.logits.detach().numpy(),
            present.numpy(),
            symmetries=[0] * 8,
            epoch=epoch,
            is_last=epoch == EPOCHS,
        )

    last = attention_maps(found.scores).numpy()
    shown = present.numpy()
    results = [attention_labels(accumulator.maps[n], shown[n], (SIDE, SIDE), last=last[n]) for n in range(8)]

    assert torch.equal(found.logits > 0, present)
    labels, is_reliable = np.stack([r.labels for r in results]), np.stack([r.is_reliable for r in results])
    assert mean_iou(labels, truth.numpy()) > 0.7
    assert (labels == truth.numpy())[is_reliable].mean() > 0.85


@pytest.mark.slow
def test_energy_and_contrast_make_up_for_wrong_labels() -> None:
    gains = [learn(seed, is_guarded=True) - learn(seed, is_guarded=False) for seed in range(3)]

    assert np.mean(gains) > 0.03


def learn(seed: int, *, is_guarded: bool) -> float:
    """Return how well a network does that learnt from labels of which 20 % are wrong."""
    images, truth = textures()
    # Wrong in blocks, as labels from coarse maps are; single wrong pixels hardly disturb a convolution.
    wrong = (torch.rand(8, 8, 8, generator=torch.Generator().manual_seed(seed)) < 0.2).repeat_interleave(4, dim=1)
    wrong = wrong.repeat_interleave(4, dim=2)
    labels = torch.where(wrong, 1 - truth, truth)
    torch.manual_seed(seed)
    features, classifier = trunk(16, 16, 16, strides=(1, 2, 1)), nn.Conv2d(16, 2, 1)
    projection, centres = ProjectionHead(16, 16), ClassCentres(2, 16)
    learnt = nn.ModuleList((features, classifier, projection)).parameters()
    optimiser = torch.optim.Adam(learnt, lr=1e-2)
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = 1e-2 * poly(step, steps=STEPS)
        deep = features(images)
        small = classifier(deep)
        logits = functional.interpolate(small, size=(SIDE, SIDE), mode="bilinear")
        loss = cross_entropy(logits, labels)
        if is_guarded:
            is_labelled = torch.ones_like(labels, dtype=torch.bool)
            loss = loss + dense_energy(logits, 255 * images, is_labelled, sigma_px=14, scale=0.5)
        # Contrast needs a network that has learnt something; this one has after some 60 steps, whatever the seed.
        if is_guarded and late_start(step, steps=STEPS, start=0.5) > 0:
            vectors, prediction, known = projection(deep), small.argmax(dim=1), nearest(labels, SMALL)
            parts = pixel_clustering(vectors, known, prediction, centres, max_samples=256, max_views=50)
            loss = loss + 0.1 * parts["loss"]
            centres.update(vectors.detach(), known, prediction)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    with torch.no_grad():
        logits = functional.interpolate(classifier(features(images)), size=(SIDE, SIDE), mode="bilinear")
    return mean_iou(logits.argmax(dim=1).numpy(), truth.numpy())
