"""The variance within objects equals a loop over objects, and is 0 where there is nothing to vary."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wsiseg.losses.instance_variance import instance_variance


def in_loops(probs: Tensor, objects: Tensor) -> float:
    """Return the loss, one object at a time."""
    total = 0.0
    for image, ids in zip(probs, objects, strict=True):
        numbers = [number for number in sorted(set(ids.flatten().tolist())) if number]
        inside = [image[:, ids == number] for number in numbers]
        total += sum(float(one.var(dim=1).sum()) for one in inside if one.shape[1] > 1) / (len(numbers) + 1e-8)
    return total / len(probs)


def example(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    probs = torch.randn(3, 4, 9, 7, generator=generator).softmax(dim=1)
    objects = torch.randint(0, 6, (3, 9, 7), generator=generator)
    # One image without objects, one with an object of a single pixel and a gap in its ids.
    objects[1] = 0
    objects[2, 0, 0] = 40
    return probs, objects


def test_three_pixels_have_the_variance_of_a_hand() -> None:
    probs = torch.tensor([[[0.9, 0.8, 0.7, 0.4], [0.1, 0.2, 0.3, 0.6]]])

    assert instance_variance(probs, torch.tensor([[3, 3, 3, 0]])).item() == pytest.approx(0.02, abs=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_a_loop_over_objects(seed: int) -> None:
    probs, objects = example(seed)

    assert instance_variance(probs, objects).item() == pytest.approx(in_loops(probs, objects), rel=1e-5)


def test_nothing_varies_where_probabilities_are_constant() -> None:
    _, objects = example(0)
    probs = torch.tensor([0.7, 0.3]).view(1, 2, 1, 1).expand(3, 2, 9, 7)

    assert instance_variance(probs, objects).item() == pytest.approx(0, abs=1e-12)


def test_without_objects_there_is_a_loss_of_zero_with_a_gradient() -> None:
    probs = torch.rand(2, 3, 4, 4, requires_grad=True)

    loss = instance_variance(probs, torch.zeros(2, 4, 4, dtype=torch.int32))
    torch.autograd.backward(loss)

    assert loss.item() == 0
    assert probs.grad is not None
    assert not probs.grad.any()


def test_it_draws_objects_together() -> None:
    probs = torch.tensor([[[0.9, 0.7, 0.5]]], requires_grad=True)

    (gradient,) = torch.autograd.grad(instance_variance(probs, torch.tensor([[1, 1, 0]])), probs)

    assert gradient[0, 0, 0] > 0 > gradient[0, 0, 1]
    assert gradient[0, 0, 2] == 0
