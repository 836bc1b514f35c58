"""PG-FANet learns a few discs by heart in a few steps, and images without labels do it no harm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from wsiseg.config import load
from wsiseg.heads.registry import make_head
from wsiseg.labels import LabelMap
from wsiseg.losses.shape_attention import segmentation
from wsiseg.methods.base import Batch, Clock, TrainingFacts
from wsiseg.methods.cards import make_card
from wsiseg.methods.pgfanet import PgfanetLearner
from wsiseg.methods.pgfanet_options import PgfanetOptions
from wsiseg.nets.dilated_resnet import DilatedResNet, DilatedStages
from wsiseg.nets.pgfanet import PGFANet, PGFANetSpec, build_pgfanet

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

pytestmark = pytest.mark.slow

# Features of the deepest layers are an eighth of this: discs must be larger than a position of them.
SIDE, RADIUS, WIDTH = 64, 9, 16


def discs(count: int, side: int, *, radius: float, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return noisy images (n, 3, H, W) of dark discs and their ids (n, H, W)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    labels = np.zeros((count, side, side), np.int32)
    for image in labels:
        for number in range(1, 7):
            row, column = rng.integers(0, side, 2)
            inside = np.hypot(y - row, x - column) < radius * rng.uniform(0.8, 1.2)
            if not image[inside].any():
                image[inside] = number
    colours = np.where(
        labels[:, None] > 0, np.array([110, 70, 140])[:, None, None], np.array([225, 190, 215])[:, None, None]
    )
    noisy = colours + rng.normal(0, 20, colours.shape)
    return noisy.clip(0, 255).astype(np.uint8), labels


def targets(labels: NDArray[np.int32]) -> dict[str, Tensor]:
    found = [make_head("ternary").targets(one, np.ones(one.shape, bool)) for one in labels]
    return {name: torch.from_numpy(np.stack([one[name] for one in found])) for name in found[0]}


def optimiser_of(module: nn.Module) -> torch.optim.Optimizer:
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, value in module.named_parameters():
        if value.requires_grad:
            groups["encoder" in name].append(value)
    return torch.optim.Adam([{"params": groups[True], "lr": 2.5e-4}, {"params": groups[False], "lr": 2.5e-3}])


def test_four_images_are_learnt_by_heart_within_sixty_steps() -> None:
    torch.manual_seed(0)
    net = build_pgfanet(PGFANetSpec(encoder="resnet18", width=32), 3)
    pixels, labels = discs(4, 128, radius=14, seed=0)
    images = (torch.from_numpy(pixels).float() / 255 - 0.6) / 0.2
    classes = targets(labels)["classes"].long()
    optimiser = optimiser_of(net)

    best = 0.0
    for _ in range(60):
        out, aux = net.both(images, perturb=False)
        best = max(best, (out.argmax(dim=1) == classes).float().mean().item())
        if best > 0.98:
            break
        loss = segmentation(out, classes)["loss"] + segmentation(aux, classes)["loss"]
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 4.0)
        optimiser.step()

    assert best > 0.98


def learnt(consistency: float) -> PgfanetLearner:
    """Return what 300 steps make of two images with labels and 32 without."""
    options = load(PgfanetOptions, options={"consistency": consistency}).with_preset(crop_px=SIDE, kind="instances")
    facts = TrainingFacts(
        name="toy",
        kind="instances",
        labels=LabelMap.from_names(("background", "disc")),
        mpp=0.25,
        crop_px=SIDE,
        training_data={},
    )
    torch.manual_seed(0)
    blocks = (1, 1, 1, 1)
    student = PGFANet(DilatedResNet(blocks, width=WIDTH), DilatedStages(blocks, width=WIDTH), 3, features=16)
    learner = PgfanetLearner(
        make_card(options, facts, objects="ternary"), kind=facts.kind, student=student, options=options
    )
    pixels, labels = discs(34, SIDE, radius=RADIUS, seed=1)
    images, known = torch.from_numpy(pixels), targets(labels[:2])
    optimiser = optimiser_of(learner.module)
    learner.module.train()
    generator = torch.Generator().manual_seed(0)
    for step in range(300):
        clock = Clock(step=step, steps=300)
        drawn = 2 + torch.randperm(32, generator=generator)[:4]
        losses = learner.training_step(Batch(images=torch.cat((images[:2], images[drawn])), targets=known), clock)
        assert all(torch.isfinite(value) for value in losses.values())
        optimiser.zero_grad()
        torch.autograd.backward(losses["loss"])
        torch.nn.utils.clip_grad_norm_(learner.module.parameters(), 4.0)
        optimiser.step()
        learner.after_update(clock)
    return learner


def dice(learner: PgfanetLearner) -> float:
    pixels, labels = discs(16, SIDE, radius=RADIUS, seed=2)
    with torch.inference_mode():
        found = learner.predictor(learner.module).forward(torch.from_numpy(pixels)).argmax(dim=1).numpy() > 0
    return float(2 * (found & (labels > 0)).sum() / (found.sum() + (labels > 0).sum()))


def test_images_without_labels_do_no_harm() -> None:
    with_consistency, without = dice(learnt(0.1)), dice(learnt(0.0))

    assert without > 0.5
    assert with_consistency >= without - 0.01
