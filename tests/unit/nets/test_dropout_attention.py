"""Progressive dropout attention switches off the most activated positions, and nothing else."""

from __future__ import annotations

from itertools import pairwise

import torch

from wsiseg.nets.dropout_attention import attention
from wsiseg.nets.resnet38d import ResNet38d


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """Return features (2, 5, 6, 7) and weights (3, 5, 1, 1), float64."""
    torch.manual_seed(0)
    return torch.rand(2, 5, 6, 7, dtype=torch.float64), torch.randn(3, 5, 1, 1, dtype=torch.float64)


def activation(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return torch.einsum("bdhw,cd->bchw", features, weights[:, :, 0, 0]).clamp(min=0)


def test_a_mu_of_one_is_the_mean_of_the_activation_maps() -> None:
    features, weights = example()

    torch.testing.assert_close(attention(features, weights, 1)[:, 0], activation(features, weights).mean(dim=1))


def test_exactly_the_positions_above_the_part_of_the_peak_are_switched_off() -> None:
    features, weights = example()
    maps = activation(features, weights)
    for image in maps:
        for plane in image:
            plane[plane > 0.65 * plane.max()] = 0

    torch.testing.assert_close(attention(features, weights, 0.65)[:, 0], maps.mean(dim=1))


def test_where_all_positions_are_the_peak_nothing_is_left() -> None:
    _, weights = example()

    assert not attention(torch.ones(2, 5, 6, 7, dtype=torch.float64), weights.abs(), 0.99).any()


def test_a_lower_mu_raises_the_attention_nowhere() -> None:
    features, weights = example()
    falling = [attention(features, weights, mu) for mu in (1.0, 0.9, 0.8, 0.65, 0.3, 0.0)]

    assert all((lower <= higher).all() for higher, lower in pairwise(falling))


def test_gradients_reach_features_and_classifier_through_the_attention() -> None:
    features, weights = example()

    assert torch.autograd.gradcheck(
        lambda m, w: attention(m, w, 0.8), (features.requires_grad_(), weights.requires_grad_())
    )


def test_evaluation_does_not_depend_on_mu_and_training_does() -> None:
    torch.manual_seed(0)
    net, images = ResNet38d(3, width=1), torch.rand(2, 3, 32, 32)
    for dropout in net.modules():
        if isinstance(dropout, torch.nn.Dropout2d):
            dropout.p = 0

    assert not torch.equal(net.train()(images, mu=0.7), net(images))
    assert torch.equal(net.eval()(images, mu=0.7), net(images))


def test_gradients_of_a_training_step_are_those_of_a_pass_by_hand() -> None:
    torch.manual_seed(0)
    net = ResNet38d(3, width=1).double().train()
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    for dropout in net.modules():
        if isinstance(dropout, torch.nn.Dropout2d):
            dropout.p = 0
    learnt = [net.fc8.weight, net.conv1a.weight]

    logits, _ = net.attended(images, mu=0.8)
    found = torch.autograd.grad(logits.square().sum(), learnt)

    deepest = net.taps(images)[-1]
    maps = activation(deepest, net.fc8.weight)
    kept = maps * (maps <= 0.8 * maps.detach().amax(dim=(2, 3), keepdim=True))
    pooled = (kept.mean(dim=1, keepdim=True) * deepest).mean(dim=(2, 3))
    by_hand = pooled @ net.fc8.weight[:, :, 0, 0].T
    expected = torch.autograd.grad(by_hand.square().sum(), learnt)
    assert maps.any()
    torch.testing.assert_close(logits, by_hand)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
