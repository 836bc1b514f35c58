"""Contrast gathers the vectors of a class and parts those of others; unreliable pixels have no part in it."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import pytest
import torch
from torch import Tensor

from wsiseg.losses.centres import ClassCentres
from wsiseg.losses.contrast import pixel_clustering, pixel_contrast, sample_pixels

TAU: Final = 0.1
BASE: Final = 0.07


def unit(*shape: int, seed: int = 0, dim: int = 1) -> Tensor:
    vectors = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=dim)


def pair_by_pair(vectors: Tensor, labels: Tensor) -> float:
    """Return the loss as the formula says it, one pair after the other."""
    similarity = (vectors.double() @ vectors.double().T / TAU).numpy()
    anchors = []
    for i, label in enumerate(labels.tolist()):
        against = sum(math.exp(similarity[i, k]) for k, other in enumerate(labels.tolist()) if other != label)
        terms = [
            math.log(math.exp(similarity[i, j]) / (math.exp(similarity[i, j]) + against))
            for j, other in enumerate(labels.tolist())
            if other == label and j != i
        ]
        if terms:
            anchors.append(np.mean(terms))
    return -TAU / BASE * float(np.mean(anchors))


def test_it_agrees_with_the_sum_over_pairs() -> None:
    vectors, labels = unit(12, 5), torch.tensor([0, 0, 1, 2, 1, 0, 2, 2, 1, 0, 0, 3])

    assert pixel_contrast(vectors, labels).item() == pytest.approx(pair_by_pair(vectors, labels), rel=1e-5)


def test_its_gradient_agrees_with_finite_differences() -> None:
    labels = torch.tensor([0, 0, 1, 1, 1, 2])

    assert torch.autograd.gradcheck(lambda x: pixel_contrast(x, labels), (unit(6, 4).double().requires_grad_(),))


def test_equal_vectors_leave_every_class_equally_likely() -> None:
    vectors, labels = unit(1, 5).expand(10, 5), torch.arange(10) // 5

    assert pixel_contrast(vectors, labels).item() == pytest.approx(TAU / BASE * math.log(1 + 5), rel=1e-5)


def test_well_parted_classes_cost_almost_nothing_and_a_swap_costs() -> None:
    vectors, labels = torch.eye(3).repeat_interleave(6, dim=0), torch.arange(3).repeat_interleave(6)
    parted = pixel_contrast(vectors, labels)

    swapped = labels.clone()
    swapped[[0, 6]] = labels[[6, 0]]

    assert parted.item() < 2e-3
    assert pixel_contrast(vectors, swapped) > parted + 0.1


@pytest.mark.parametrize("labels", [[1, 1, 1], []])
def test_fewer_than_two_classes_cost_nothing(labels: list[int]) -> None:
    vectors = unit(len(labels), 4).requires_grad_()

    loss = pixel_contrast(vectors, torch.tensor(labels, dtype=torch.int64))
    torch.autograd.backward(loss)

    assert loss.item() == 0
    assert vectors.grad is not None
    assert not vectors.grad.any()


def test_classes_of_one_pixel_each_cost_nothing_and_give_numbers() -> None:
    vectors = unit(3, 4).requires_grad_()

    loss = pixel_contrast(vectors, torch.arange(3))
    torch.autograd.backward(loss)

    assert loss.item() == 0
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


def test_it_is_float32_under_autocast() -> None:
    vectors, labels = unit(12, 5), torch.arange(12) % 3

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pixel_contrast(vectors, labels)

    assert found.dtype == torch.float32
    torch.testing.assert_close(found, pixel_contrast(vectors, labels))


def counts_of(sampled: Tensor, labels: Tensor, prediction: Tensor) -> dict[tuple[int, int], tuple[int, int]]:
    """Return how many hard and easy pixels were sampled of each class in each image."""
    counts = {}
    for image in range(len(labels)):
        here = sampled[sampled // labels[0].numel() == image] % labels[0].numel()
        for label in sorted(set(labels[image].flatten()[here].tolist())):
            mine = here[labels[image].flatten()[here] == label]
            hits = int((prediction[image].flatten()[mine] == label).sum())
            counts[image, label] = (len(mine) - hits, hits)
    return counts


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [(0, (0, 10)), (3, (3, 7)), (5, (5, 5)), (20, (5, 5)), (27, (7, 3)), (30, (10, 0))],
)
def test_half_of_the_pixels_are_hard_unless_one_kind_is_short(wrong: int, expected: tuple[int, int]) -> None:
    labels = torch.full((1, 5, 8), 255)
    labels.view(-1)[:30] = 0
    prediction = torch.zeros(1, 5, 8, dtype=torch.int64)
    prediction.view(-1)[:wrong] = 1

    sampled = sample_pixels(labels, prediction, max_views=10)

    assert counts_of(sampled, labels, prediction) == {(0, 0): expected}
    assert len(set(sampled.tolist())) == len(sampled)


def test_an_odd_number_has_one_easy_pixel_more() -> None:
    labels = torch.zeros(1, 5, 8, dtype=torch.int64)
    prediction = torch.arange(40).view(1, 5, 8) % 2

    assert counts_of(sample_pixels(labels, prediction, max_views=7), labels, prediction) == {(0, 0): (3, 4)}


def test_classes_that_are_rare_in_an_image_are_left_out_of_it() -> None:
    labels = torch.full((2, 4, 4), 255)
    labels[0].view(-1)[:5] = 0
    labels[0].view(-1)[5:9] = 1
    labels[1].view(-1)[:6] = 1

    sampled = sample_pixels(labels, labels, max_views=4)

    assert counts_of(sampled, labels, labels) == {(0, 0): (0, 4), (1, 1): (0, 4)}


def test_all_samples_together_are_limited() -> None:
    labels = torch.arange(4)[None, :, None].expand(3, 4, 50).contiguous()

    sampled = sample_pixels(labels, labels, max_samples=100, max_views=40)

    assert {sum(pair) for pair in counts_of(sampled, labels, labels).values()} == {100 // 12}
    assert len(sampled) == 96


def test_the_sample_follows_from_the_random_state() -> None:
    labels, prediction = torch.zeros(1, 9, 9, dtype=torch.int64), torch.arange(81).view(1, 9, 9) % 2
    samples = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        samples.append(sample_pixels(labels, prediction, max_views=20))

    torch.testing.assert_close(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])


def batch() -> tuple[Tensor, Tensor, Tensor, ClassCentres]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (2, 8, 8), generator=generator)
    labels[torch.rand(2, 8, 8, generator=generator) < 0.4] = 255
    prediction = torch.randint(0, 3, (2, 8, 8), generator=generator)
    vectors = unit(2, 5, 8, 8)
    centres = ClassCentres(3, 5)
    centres.update(vectors, labels, prediction)
    return vectors, labels, prediction, centres


def test_pixels_without_a_reliable_label_have_no_part_in_the_clustering() -> None:
    vectors, labels, prediction, centres = batch()
    losses = []
    for values in (vectors, torch.where((labels == 255)[:, None], unit(2, 5, 8, 8, seed=9), vectors)):
        torch.manual_seed(0)
        given = values.clone().requires_grad_()
        parts = pixel_clustering(given, labels, prediction, centres, max_views=5)
        torch.autograd.backward(parts["loss"])
        losses.append(parts)
        assert given.grad is not None
        assert given.grad.any()
        assert not given.grad.movedim(1, -1)[labels == 255].any()

    assert losses[0].keys() == {"loss", "pixel_contrast", "centre_contrast"}
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)
    torch.testing.assert_close(losses[0]["loss"], losses[0]["pixel_contrast"] + losses[0]["centre_contrast"])


def test_no_class_frequent_enough_is_a_loss_of_zero() -> None:
    vectors, labels, prediction, centres = batch()

    parts = pixel_clustering(vectors.requires_grad_(), labels, prediction, centres, max_views=100)
    torch.autograd.backward(parts["loss"])

    assert parts["loss"].item() == 0
