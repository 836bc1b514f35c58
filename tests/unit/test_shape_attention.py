"""The losses of PG-FANet have their published values, identities and limits."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from wsiseg.losses.semantic import soft_dice
from wsiseg.losses.shape_attention import (
    Dice,
    Variant,
    _entropy_of_difference,
    consistency,
    pooled_dice,
    segmentation,
    shape_attention,
)

VARIANTS: tuple[Variant, ...] = get_args(Variant)


def pixels(*values: tuple[float, float, float]) -> Tensor:
    """Return probabilities (1, 3, 1, W)."""
    return torch.tensor(values, dtype=torch.float64).T[None, :, None]


def example() -> tuple[Tensor, Tensor, Tensor]:
    """Return what student, aux and teacher say of two pixels."""
    return (
        pixels((0.6, 0.3, 0.1), (0.1, 0.8, 0.1)),
        pixels((0.5, 0.3, 0.2), (0.2, 0.7, 0.1)),
        pixels((0.7, 0.2, 0.1), (0.4, 0.3, 0.3)),
    )


def drawn(seed: int) -> Tensor:
    """Return random probabilities (2, 4, 5, 3)."""
    return torch.randn(2, 4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).softmax(dim=1)


def test_two_pixels_have_the_published_values() -> None:
    student, aux, teacher = example()

    losses = consistency(student, aux, teacher)

    entropy = _entropy_of_difference(student, teacher)
    assert entropy.flatten().tolist() == pytest.approx([0.664386, 1.485475], abs=1e-6)
    assert shape_attention(student, teacher).flatten().tolist() == pytest.approx([0, 1], abs=1e-5)
    assert losses["inter"].item() == pytest.approx(0.053191, abs=1e-5)
    assert losses["intra"].item() == pytest.approx(0.006667, abs=1e-5)
    assert losses["loss"].item() == pytest.approx(0.059858, abs=1e-5)
    assert consistency(student, aux, teacher, variant="shape_entropy")["loss"].item() == pytest.approx(
        0.698497, abs=1e-5
    )


def test_attention_is_the_entropy_of_the_difference_stretched() -> None:
    student = pixels((0.6, 0.3, 0.1), (0.1, 0.8, 0.1), (0.7, 0.2, 0.1))
    teacher = pixels((0.7, 0.2, 0.1), (0.4, 0.3, 0.3), (0.7, 0.2, 0.1))

    found = shape_attention(student, teacher)

    assert found.shape == (1, 1, 1, 3)
    assert found.flatten().tolist() == pytest.approx([0.664386 / 1.485475, 1, 0], abs=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_the_mean_of_its_formula(variant: Variant) -> None:
    s, a, t = drawn(0), drawn(1), drawn(2)
    u = -t * t.log()
    moved, summed = (1 - u) * t + u * s, (1 - u.sum(1, keepdim=True)) * t + u.sum(1, keepdim=True) * s
    attention, intra = 1 + shape_attention(s, t), (s - a).square().mean()
    entropy = -((s - a).abs() * ((s - a).abs() + 1e-6).log2()).sum(1).mean()
    divergence = (s * (s / a).log()).mean()
    expected = {
        "shape_mask": (attention * (s - moved).square()).mean() + intra,
        "shape_entropy": (s - moved).square().mean() + intra + entropy,
        "inter_intra": (s - moved).square().mean() + intra,
        "inter": (s - summed).square().mean(),
        "intra": (s - t).square().mean() + intra,
        "shape": (attention * (s - t).square()).mean(),
        "stage1": (attention * (s - moved).square()).mean(),
        "mt": (s - t).square().mean(),
    }
    expected |= {f"{name}_kl": expected[name] - intra + divergence for name in expected if f"{name}_kl" in VARIANTS}

    losses = consistency(s, a, t, variant=variant)

    assert losses["loss"].item() == pytest.approx(expected[variant].item(), rel=1e-6)
    assert losses["loss"].item() == pytest.approx(sum(part.item() for name, part in losses.items() if name != "loss"))


def test_uncertainty_shrinks_the_disagreement_itself() -> None:
    s, t = drawn(0), drawn(2)
    u = -t * t.log()

    whole = consistency(s, s, t, variant="inter_intra")["inter"]

    assert whole.item() == pytest.approx(((1 - u).square() * (s - t).square()).mean().item(), abs=1e-6)


def test_a_detached_target_weakens_the_gradient_once() -> None:
    t = drawn(2)
    u = -t * t.log()
    gradients = []
    for detach_target in (False, True):
        s = drawn(0).requires_grad_()
        loss = consistency(s, drawn(1), t, variant="inter_intra", detach_target=detach_target)
        gradients.append(torch.autograd.grad(loss["loss"] - (s - drawn(1)).square().mean(), s)[0])

    torch.testing.assert_close(gradients[0], gradients[1] * (1 - u), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_where_all_agree_there_is_no_loss(variant: Variant) -> None:
    same = drawn(0)

    assert consistency(same, same, same, variant=variant)["loss"].item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_certain_and_even_outputs_give_finite_losses_and_gradients(variant: Variant, dtype: torch.dtype) -> None:
    one, other = torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0])
    # Nothing to stretch in the first image, as all its pixels disagree alike.
    student = torch.stack((one.expand(4, 3), torch.stack((one, one, other, other)))).mT.to(dtype).requires_grad_()
    aux = student.detach().flip(2).requires_grad_()
    teacher = torch.stack((other.expand(4, 3), torch.stack((one, other, one, other)))).mT.to(dtype)

    loss = consistency(student, aux, teacher, variant=variant)["loss"]
    gradients = torch.autograd.grad(loss, (student, aux), allow_unused=True)

    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert all(torch.isfinite(one).all() for one in gradients if one is not None)


def test_both_outputs_of_the_student_get_a_gradient_and_the_teacher_none() -> None:
    student, aux, teacher = (one.requires_grad_() for one in example())

    loss = consistency(student, aux, teacher.detach())["loss"]
    torch.autograd.backward(loss)

    assert student.grad is not None
    assert student.grad.any()
    assert aux.grad is not None
    assert aux.grad.any()
    assert teacher.grad is None


def labelled() -> tuple[Tensor, Tensor]:
    """Return logits (2, 3, 5, 4) and labels."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 5, 4, generator=generator), torch.randint(0, 3, (2, 5, 4), generator=generator)


def test_pooled_dice_is_that_of_the_mean_probability_of_the_truth() -> None:
    logits, labels = labelled()
    prob = logits.softmax(dim=1)
    truth = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1)
    mean = prob.gather(1, labels[:, None]).mean().item()
    count = labels.numel()

    found = pooled_dice(logits, labels).item()

    assert found == pytest.approx(1 - (2 * count * mean + 1) / (2 * count + 1), rel=1e-6)
    assert found == pytest.approx(
        1 - (2 * (prob * truth).sum().item() + 1) / (prob.sum().item() + truth.sum().item() + 1), rel=1e-5
    )


@pytest.mark.parametrize("dice", ["pooled", "per_class"])
def test_labelled_pixels_alone_count(dice: Dice) -> None:
    logits, labels = labelled()
    some = labels.clone()
    some[0] = 255
    logits.requires_grad_()

    whole = segmentation(logits[1:], labels[1:], dice=dice)
    losses = segmentation(logits, some, dice=dice)
    nothing = segmentation(logits, torch.full_like(labels, 255), dice=dice)["loss"]
    (gradient,) = torch.autograd.grad(losses["loss"], logits)

    assert losses["loss"].item() == pytest.approx(whole["loss"].item(), rel=1e-6)
    assert losses["loss"].item() == pytest.approx((losses["cross_entropy"] + losses["dice"]).item())
    assert not gradient[0].any()
    assert nothing.item() == 0


def test_per_class_dice_weighs_classes_alike() -> None:
    logits, labels = labelled()

    assert segmentation(logits, labels, dice="per_class")["dice"] == soft_dice(logits, labels)
