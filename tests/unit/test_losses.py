"""Semantic losses agree with plain NumPy, and ignored pixels count for nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wsiseg.losses.semantic import combo, cross_entropy, soft_dice


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits (2, 3, 5, 4) and labels with some ignored pixels."""
    rng = np.random.default_rng(0)
    logits = torch.tensor(rng.normal(size=(2, 3, 5, 4)), dtype=torch.float32)
    labels = torch.tensor(rng.integers(0, 3, size=(2, 5, 4)))
    labels[0, :2] = 255
    return logits, labels


def test_they_agree_with_numpy() -> None:
    logits, labels = example()
    prob = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True)
    truth, flat = labels.numpy().ravel(), np.moveaxis(prob, 1, -1).reshape(-1, 3)
    flat, truth = flat[truth != 255], truth[truth != 255]
    hot = np.eye(3)[truth]

    assert cross_entropy(logits, labels).item() == pytest.approx(-np.log(flat[hot == 1]).mean(), rel=1e-5)
    dice = (2 * (flat * hot).sum(0) + 1) / (flat.sum(0) + hot.sum(0) + 1)
    assert soft_dice(logits, labels).item() == pytest.approx(1 - dice.mean(), rel=1e-5)


def test_ignored_pixels_have_no_gradient() -> None:
    logits, labels = example()
    logits.requires_grad_()

    torch.autograd.backward(combo(logits, labels, dice_weight=1)["loss"])

    assert logits.grad is not None
    assert (logits.grad[0, :, :2] == 0).all()
    assert (logits.grad[1] != 0).all()


def test_nothing_to_learn_is_a_loss_of_zero() -> None:
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)

    loss = combo(logits, torch.full((1, 3, 3), 255), dice_weight=1)["loss"]
    torch.autograd.backward(loss)

    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_perfect_logits_cost_nothing() -> None:
    labels = torch.randint(0, 3, (1, 8, 8))
    logits = 50.0 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1)

    assert combo(logits, labels, dice_weight=1)["loss"].item() == pytest.approx(0, abs=1e-5)


def test_a_volume_of_one_slice_costs_what_its_image_does() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1))

    image, volume = combo(logits, labels, dice_weight=1.0), combo(logits[:, :, None], labels[:, None], dice_weight=1.0)

    for name, value in image.items():
        torch.testing.assert_close(volume[name], value)
