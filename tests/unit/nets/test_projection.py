"""The projection head gives vectors of length 1 and leaves the network beside it alone."""

from __future__ import annotations

import copy

import torch
from torch import nn

from wsiseg.nets.projection import ProjectionHead


def test_each_pixel_has_a_vector_of_length_1() -> None:
    vectors = ProjectionHead(8, 5)(torch.randn(2, 8, 3, 4))

    assert vectors.shape == (2, 5, 3, 4)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2, 3, 4))


def test_pixels_do_not_touch_each_other_once_trained() -> None:
    head = ProjectionHead(8, 5).eval()
    features = torch.randn(1, 8, 3, 4)
    before = head(features)

    features[0, :, 1, 1] += 1
    changed = (head(features) != before).any(dim=1)[0]

    assert changed.nonzero().tolist() == [[1, 1]]


def test_gradients_reach_the_features_and_every_weight() -> None:
    head, features = ProjectionHead(8, 5), torch.randn(2, 8, 3, 4, requires_grad=True)

    head(features)[:, 0].sum().backward()

    assert features.grad is not None
    assert features.grad.any()
    assert all(value.grad is not None and value.grad.any() for value in head.parameters())


def test_vectors_are_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vectors = ProjectionHead(8, 5)(torch.randn(2, 8, 3, 4))

    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2, 3, 4))


def test_the_network_beside_it_gives_the_same_with_and_without_it_and_is_kept_without_it() -> None:
    torch.manual_seed(0)
    trunk, classifier = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
    net = nn.Sequential(trunk, classifier)
    alone = copy.deepcopy(net)
    stage = nn.ModuleDict({"net": net, "projection": ProjectionHead(8, 5)})
    images = torch.randn(2, 3, 6, 6)

    logits = net(images)
    vectors = stage["projection"](trunk(images))

    assert vectors.requires_grad
    torch.testing.assert_close(logits, alone(images), rtol=0, atol=0)
    assert list(stage["net"].state_dict()) == list(alone.state_dict())
