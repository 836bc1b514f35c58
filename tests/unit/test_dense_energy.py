"""Dense energy counts how much similar pixels disagree: exactly, within 0 … 1, and only where it should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from wsiseg.losses.dense_energy import dense_energy
from wsiseg.losses.resampling import nearest

SIDE = 16


def one_hot(labels: Tensor, classes: int = 3) -> Tensor:
    """Return logits (1, C, H, W) whose probabilities are exactly 0 and 1."""
    return 1000.0 * functional.one_hot(labels, classes).movedim(-1, 0)[None].float()


def grey(value: int = 150) -> Tensor:
    return torch.full((1, 3, SIDE, SIDE), value, dtype=torch.uint8)


def halves(edge: int = SIDE // 2) -> Tensor:
    """Return labels (H, W) with an edge before column `edge`."""
    return (torch.arange(SIDE) >= edge).long().expand(SIDE, SIDE)


def nothing(count: int = 1) -> Tensor:
    return torch.zeros(count, SIDE, SIDE, dtype=torch.bool)


def random_case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 8, 8, generator=generator)
    images = torch.randint(100, 160, (2, 3, 8, 8), generator=generator, dtype=torch.uint8)
    is_labelled = torch.rand(2, 8, 8, generator=generator) < 0.5
    is_white = torch.rand(2, 8, 8, generator=generator) < 0.2
    return logits, images, is_labelled, is_white


def pair_by_pair(logits: Tensor, images: Tensor, is_labelled: Tensor, is_white: Tensor, scale_px: float) -> float:
    """Return the energy as the formula says it, one pair after the other."""
    energies = []
    for prob, image, labelled, white in zip(
        logits.double().softmax(dim=1).numpy(), images.double().numpy(), is_labelled, is_white, strict=True
    ):
        pixels = [(y, x) for y in range(8) for x in range(8) if not white[y, x]]
        energy = total = 0.0
        for y, x in pixels:
            doubt = max(0.0, 1 - prob[:, y, x].max()) if labelled[y, x] else 1.0
            for v, u in pixels:
                if (v, u) == (y, x):
                    continue
                place = ((y - v) ** 2 + (x - u) ** 2) / (2 * scale_px**2)
                colour = ((image[:, y, x] - image[:, v, u]) ** 2).sum() / (2 * 15**2)
                weight = np.exp(-place - colour)
                energy += doubt * weight * (1 - prob[:, y, x] @ prob[:, v, u])
                total += weight
        energies.append(energy / total)
    return float(np.mean(energies))


@pytest.mark.parametrize("sigma_px", [2.0, 100.0])
def test_it_agrees_with_the_sum_over_pairs(sigma_px: float) -> None:
    logits, images, is_labelled, is_white = random_case()

    found = dense_energy(logits, images, is_labelled, is_white=is_white, sigma_px=sigma_px, scale=1)

    assert found.item() == pytest.approx(pair_by_pair(logits, images, is_labelled, is_white, sigma_px), rel=1e-5)


def test_its_gradient_agrees_with_finite_differences() -> None:
    logits, images, _, is_white = (part[:1, ..., :4, :4] for part in random_case())

    # With labels the doubt depends on the logits, and is meant to have no gradient.
    def energy(values: Tensor) -> Tensor:
        return dense_energy(values, images, torch.zeros_like(is_white), is_white=is_white, sigma_px=4, scale=1)

    assert torch.autograd.gradcheck(energy, (logits.double().requires_grad_(),))


def test_the_doubt_about_labels_has_no_gradient() -> None:
    logits, images, is_labelled, _ = random_case()
    logits = logits.double().requires_grad_()
    doubt = torch.where(is_labelled, 1 - logits.detach().softmax(dim=1).amax(dim=1), 1.0)

    torch.autograd.backward(dense_energy(logits, images, is_labelled, sigma_px=4, scale=1))

    # Plain autograd through all pairs, with the doubt held fixed.
    other = logits.detach().clone().requires_grad_()
    energies = []
    for prob, image, weight in zip(other.softmax(dim=1).flatten(2), images.double().flatten(2), doubt, strict=True):
        places = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0)).double() / 4
        affinity = torch.exp(-0.5 * (torch.cdist(places, places) ** 2 + torch.cdist(image.T / 15, image.T / 15) ** 2))
        affinity = affinity - torch.diag(affinity.diag())
        energies.append((weight.view(-1, 1) * affinity * (1 - prob.T @ prob)).sum() / affinity.sum())
    torch.autograd.backward(torch.stack(energies).mean())
    torch.testing.assert_close(logits.grad, other.grad)


def test_agreement_costs_nothing() -> None:
    constant = one_hot(torch.zeros(SIDE, SIDE, dtype=torch.long))

    assert dense_energy(constant, grey(), nothing(), scale=1).item() == 0


def test_a_checkerboard_costs_more_than_two_halves() -> None:
    board = torch.arange(SIDE)[:, None].add(torch.arange(SIDE)) % 2

    costs = [dense_energy(one_hot(labels), grey(), nothing(), sigma_px=4, scale=1) for labels in (halves(), board)]

    assert 0 < costs[0] < costs[1] < 1


def test_an_edge_is_cheapest_where_colours_change() -> None:
    image = (100 + 80 * halves())[None, None].expand(1, 3, SIDE, SIDE)

    costs = [dense_energy(one_hot(halves(edge)), image, nothing(), scale=1).item() for edge in range(1, SIDE)]

    assert int(np.argmin(costs)) + 1 == SIDE // 2


def test_a_sure_pixel_with_a_label_adds_nothing() -> None:
    logits, is_labelled = one_hot(halves()), nothing()
    is_labelled[:, :, 4] = True

    # So flat a Gaussian weighs all pairs alike, and every column adds the same.
    before, after = (dense_energy(logits, grey(), mask, sigma_px=1e6, scale=1) for mask in (nothing(), is_labelled))

    torch.testing.assert_close(after, before * (SIDE - 1) / SIDE)
    assert dense_energy(logits, grey(), ~nothing(), scale=1).item() == 0


@pytest.mark.parametrize("seed", range(5))
def test_it_lies_within_0_and_1(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 30 * torch.randn(2, 4, SIDE, SIDE, generator=generator)
    images = torch.rand(2, 3, SIDE, SIDE, generator=generator) * 255

    assert 0 <= dense_energy(logits, images, nothing(2)).item() <= 1


def test_white_pixels_have_no_gradient_and_no_influence() -> None:
    logits, images, is_labelled, is_white = random_case()
    logits.requires_grad_()
    energy = dense_energy(logits, images, is_labelled, is_white=is_white, scale=1)
    torch.autograd.backward(energy)

    assert logits.grad is not None
    assert (logits.grad[is_white[:, None].expand_as(logits)] == 0).all()
    other = torch.where(is_white[:, None], 7 * logits.detach() + 1, logits.detach())
    changed = torch.where(is_white[:, None], 0, images)
    torch.testing.assert_close(dense_energy(other, changed, is_labelled, is_white=is_white, scale=1), energy)


def test_the_scale_hardly_matters_for_a_smooth_image() -> None:
    ramp = torch.linspace(0, 1, 64)
    across, down = ramp.expand(64, 64), ramp[:, None].expand(64, 64)
    image = torch.stack([120 + 60 * across, 150 - 40 * down, 100 + 20 * across * down])
    logits = torch.stack([4 * (across - 0.4), 3 * (down - 0.6)])[None]
    unlabelled = torch.zeros(1, 64, 64, dtype=torch.bool)

    quarter, half = (dense_energy(logits, image[None], unlabelled, sigma_px=30, scale=s).item() for s in (0.25, 0.5))

    assert quarter == pytest.approx(half, rel=0.2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_is_float32_under_autocast_and_its_gradient_finite(dtype: torch.dtype) -> None:
    logits, images, is_labelled, is_white = random_case()
    exact = dense_energy(logits, images, is_labelled, is_white=is_white, scale=1)

    with torch.autocast("cpu", dtype=dtype):
        found = dense_energy(logits.requires_grad_(), images, is_labelled, is_white=is_white, scale=1)
    torch.autograd.backward(found)

    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_half_precision_logits_are_compared_in_float32() -> None:
    logits, images, is_labelled, _ = random_case()

    assert dense_energy(logits.half(), images, is_labelled, scale=1).dtype == torch.float32


@pytest.mark.parametrize("pixels", [0, 1])
def test_an_image_with_nothing_to_compare_counts_0(pixels: int) -> None:
    is_white = ~nothing()
    is_white.view(-1)[:pixels] = False
    logits = torch.randn(1, 3, SIDE, SIDE, requires_grad=True)

    energy = dense_energy(logits, grey(), nothing(), is_white=is_white, scale=1)
    torch.autograd.backward(energy)

    assert energy.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_labels_are_taken_from_under_the_centre_of_a_small_pixel() -> None:
    labels = torch.arange(64).view(1, 8, 8)

    assert nearest(labels, (2, 2)).tolist() == [[[18, 22], [50, 54]]]
    assert nearest(labels, (8, 8)) is labels
    assert nearest(labels > 20, (2, 2)).tolist() == [[[False, True], [True, True]]]
