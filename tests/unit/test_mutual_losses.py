"""Classes and level sets agree where they should, in any number of dimensions, and never by dividing by nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from wsiseg.level_sets import Norm, level_set
from wsiseg.losses import mutual
from wsiseg.losses.semantic import cross_entropy
from wsiseg.ramps import gaussian


def pixels(*rows: tuple[float, ...]) -> torch.Tensor:
    """Return one image of one row of pixels, from the channels of each pixel."""
    return torch.tensor(rows).T[None, :, None]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("norm", ["crop", "truncated"])
@pytest.mark.parametrize("zero_ring", [True, False])
def test_masks_come_back_from_their_level_sets(norm: Norm, *, zero_ring: bool) -> None:
    for seed in range(20):
        mask = np.random.default_rng(seed).random((9, 12, 7)) < 0.4

        found = mutual.inverse(torch.from_numpy(level_set(mask, norm=norm, zero_ring=zero_ring)))

        np.testing.assert_array_equal(found >= 0.5, mask)


def test_squared_dice_has_the_published_value() -> None:
    prob, truth = pixels((0.9,), (0.2,), (0.7,), (0.1,)), pixels((1.0,), (0.0,), (1.0,), (0.0,))

    assert mutual.squared_dice(prob, truth, torch.ones_like(truth)).item() == pytest.approx(0.044776, abs=1e-5)


def test_squared_dice_is_the_mean_over_classes_and_may_skip_those_that_are_absent() -> None:
    truth = torch.zeros(2, 2, 3, 4)
    truth[0, 0, 1] = 1
    prob, known = drawn(2, 2, 3, 4).sigmoid(), torch.ones(2, 1, 3, 4)
    each = [mutual.squared_dice(prob[:, n : n + 1], truth[:, n : n + 1], known).item() for n in range(2)]

    assert mutual.squared_dice(prob, truth, known).item() == pytest.approx(sum(each) / 2)
    assert each[1] == pytest.approx(1, abs=1e-3)
    assert mutual.squared_dice(prob, truth, known, skips_absent=True).item() == pytest.approx(each[0])
    assert mutual.squared_dice(prob, torch.zeros_like(truth), known, skips_absent=True).item() == 0


def test_what_is_not_known_counts_for_nothing() -> None:
    known = torch.ones(2, 1, 4, 4)
    known[:, :, :2] = 0
    truth = (drawn(2, 2, 4, 4, seed=1) > 0).float()
    for loss in (mutual.squared_dice, mutual.distance):
        prob = drawn(2, 2, 4, 4).sigmoid().requires_grad_()
        value = loss(prob, truth, known)

        (gradient,) = torch.autograd.grad(value, prob)

        assert value.item() == pytest.approx(loss(prob[:, :, 2:], truth[:, :, 2:], known[:, :, 2:]).item())
        assert not gradient[:, :, :2].any()
        assert gradient[:, :, 2:].all()
        assert loss(prob, truth, known * 0).item() == 0


def test_intra_task_consistency_has_the_published_values() -> None:
    student, teacher = pixels((0.8, 0.2), (0.4, 0.6)), pixels((0.6, 0.4), (0.5, 0.5))
    mask = pixels((1.0,), (0.0,))

    assert mutual.intra_task(student, teacher, mask).item() == pytest.approx(0.04, abs=1e-6)
    assert mutual.intra_task(student, teacher, mask, channels="sum").item() == pytest.approx(0.08, abs=1e-6)
    # The released code takes half of the mean.
    assert 0.5 * mutual.intra_task(student, teacher, mask).item() == pytest.approx(0.02, abs=1e-6)


def test_a_mask_without_pixels_gives_no_loss() -> None:
    student, nothing = drawn(1, 2, 3, 3).requires_grad_(), torch.zeros(1, 1, 3, 3)

    losses = mutual.intra_task(student, drawn(1, 2, 3, 3, seed=1), nothing)
    losses = losses + mutual.cross_task(student.sigmoid(), student.tanh(), mask=nothing)
    (gradient,) = torch.autograd.grad(losses, student)

    assert losses.item() == 0
    assert not gradient.any()


def test_the_mask_of_a_level_set_is_what_lies_below_zero() -> None:
    inside = mutual.inverse(torch.tensor([-0.01, 0.0, 0.01]))

    assert inside[0].item() == pytest.approx(1, abs=1e-6)
    assert inside[1].item() == 0.5
    assert inside[2].item() == pytest.approx(3.1e-7, rel=0.02)


@pytest.mark.parametrize("classes", [2, 4])
def test_entropy_lies_between_nothing_and_the_logarithm_of_the_classes(classes: int) -> None:
    even, sure = torch.full((1, classes, 2, 3), 1 / classes), torch.zeros(1, classes, 2, 3)
    sure[:, 1] = 1

    assert mutual.entropy(even).shape == (1, 1, 2, 3)
    assert mutual.entropy(even).mean().item() == pytest.approx(math.log(classes), abs=1e-5)
    assert mutual.entropy(sure).abs().max().item() == pytest.approx(0, abs=1e-5)


def test_more_and_more_pixels_count_as_certain() -> None:
    limits = [mutual.certainty_limit(2, 0.75 + 0.25 * gaussian(progress)) for progress in (0, 0.5, 1)]

    assert limits == pytest.approx([0.52103, 0.5695, 0.69315], abs=1e-4)
    assert mutual.certainty_limit(4, 1) == pytest.approx(math.log(4))
    # At the beginning a pixel needs a probability of 0.785.
    sure, unsure = pixels((0.785, 0.215)), pixels((0.784, 0.216))
    assert (mutual.entropy(sure) < limits[0]).all()
    assert not (mutual.entropy(unsure) < limits[0]).any()
    doubts = mutual.entropy(drawn(1, 2, 40, 40).softmax(dim=1))
    shares = [(doubts < limit).float().mean().item() for limit in limits]
    assert 0 < shares[0] < shares[1] < shares[2] < 1.001


def test_two_heads_agree_where_one_cannot() -> None:
    labels, truth = torch.tensor([[[1, 0]]]), torch.tensor([[[[-0.3, 0.3]]]])
    mask = (truth < 0).float()
    known = torch.ones_like(mask)
    raw = torch.zeros(1, 1, 1, 2, requires_grad=True)

    def separate(logits: torch.Tensor, sdf: torch.Tensor) -> torch.Tensor:
        prob = logits.softmax(dim=1)[:, 1:]
        supervised = cross_entropy(logits, labels) + mutual.squared_dice(prob, mask, known)
        return supervised + mutual.distance(sdf.tanh(), truth, known) + mutual.cross_task(prob, sdf.tanh())

    logits = torch.zeros(1, 2, 1, 2, requires_grad=True)
    optimiser = torch.optim.Adam([logits, raw], lr=0.02)
    for _ in range(400):
        optimiser.zero_grad()
        torch.autograd.backward(separate(logits, raw))
        optimiser.step()

    with torch.no_grad():
        prob = logits.softmax(dim=1)[:, 1:]
        assert mutual.cross_task(prob, raw.tanh()).item() < 0.01
        torch.testing.assert_close(raw.tanh(), truth, atol=0.05, rtol=0)
    # One head for both: the best that any logits can do which give the right class a probability above 0.9.
    first, second = torch.meshgrid(torch.linspace(-6, 6, 241), torch.linspace(-6, 6, 241), indexing="ij")
    shared = torch.stack((first.flatten(), second.flatten()))[None, :, None]
    prob = shared.softmax(dim=1)
    cost = (prob - mutual.inverse(shared.tanh())).square().mean(dim=1).flatten()
    for label in (0, 1):
        assert cost[prob[0, label, 0] > 0.9].min().item() > 0.4


def terms(logits: torch.Tensor, sdf: torch.Tensor, truth: torch.Tensor, target: torch.Tensor) -> list[torch.Tensor]:
    prob, known = mutual.exact(logits).softmax(dim=1), torch.ones_like(truth[:, :1])
    doubt = mutual.entropy(prob)
    mask = (doubt < 0.6).float()
    return [
        cross_entropy(logits, truth.argmax(dim=1)),
        mutual.squared_dice(prob[:, 1:], truth[:, 1:], known),
        mutual.squared_dice(mutual.inverse(sdf), truth[:, 1:], known),
        mutual.distance(sdf, target, known),
        mutual.distance(sdf, target, known, norm="l1"),
        mutual.intra_task(prob, truth, mask),
        mutual.intra_task(sdf, target, mask, channels="sum"),
        mutual.cross_task(prob[:, 1:], sdf),
        mutual.cross_task(prob[:, 1:], sdf, mask=mask, steepness=200),
        doubt.mean(),
    ]


def example() -> tuple[torch.Tensor, ...]:
    truth = torch.nn.functional.one_hot(drawn(2, 3, 6, 5, seed=1).argmax(dim=1), 3).movedim(-1, 1).float()
    return drawn(2, 3, 6, 5), 0.01 * drawn(2, 2, 6, 5, seed=2).tanh(), truth, drawn(2, 2, 6, 5, seed=3).tanh()


def test_an_image_is_a_volume_of_one_layer() -> None:
    flat = terms(*example())

    torch.testing.assert_close(terms(*(one.unsqueeze(2) for one in example())), flat)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_changes_no_type_and_makes_nothing_infinite(dtype: torch.dtype) -> None:
    logits, sdf, truth, target = example()
    logits, sdf = (8 * logits).to(dtype).requires_grad_(), (100 * sdf).to(dtype).requires_grad_()

    with torch.autocast("cpu", dtype=dtype):
        found = terms(logits, sdf, truth, target)
    gradients = torch.autograd.grad(torch.stack(found).sum(), (logits, sdf))

    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in found)
    assert all(torch.isfinite(value).all() for value in gradients)
    torch.testing.assert_close(found, terms(logits.detach().float(), sdf.detach().float(), truth, target))
