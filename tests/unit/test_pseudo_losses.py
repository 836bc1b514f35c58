"""Losses on pseudo-masks weigh layers as told, and white pixels carry neither loss nor gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from wsiseg.losses.pseudo import LAYER_WEIGHTS, Divisor, WhiteMean, multi_layer

LAYERS = ("b4_5", "b5_2", "bn7")


def example(white: int = 255) -> tuple[Tensor, dict[str, Tensor]]:
    """Return logits (2, 4, 5, 6) and masks of three layers that are white in the same 12 of 60 pixels."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 5, 6, generator=generator)
    masks = {name: torch.randint(0, 4, (2, 5, 6), generator=generator) for name in LAYERS}
    for mask in masks.values():
        mask[0, :2] = white
    return logits, masks


def test_identical_masks_give_the_loss_of_one() -> None:
    logits, masks = example()
    one = masks["bn7"]

    losses = multi_layer(logits, dict.fromkeys(LAYERS, one))

    assert losses["loss"].item() == pytest.approx(functional.cross_entropy(logits, one, ignore_index=255).item())


def test_the_loss_is_the_weighted_sum_of_its_layers() -> None:
    logits, masks = example()

    for weights in (LAYER_WEIGHTS, (0.6, 0.2, 0.2), (0, 0, 1)):
        losses = multi_layer(logits, masks, weights=weights)
        expected = sum(weight * losses[f"cross_entropy_{name}"] for weight, name in zip(weights, LAYERS, strict=True))
        torch.testing.assert_close(losses["loss"], expected)
    assert LAYER_WEIGHTS == (0.2, 0.2, 0.6)


@pytest.mark.parametrize(
    ("white_mean", "divisor", "pixels"),
    [("valid", "none", 48), ("all", "none", 60), ("valid", "batch", 48 * 2), ("all", "batch", 60 * 2)],
)
def test_the_sum_over_pixels_is_divided_as_told(white_mean: WhiteMean, divisor: Divisor, pixels: int) -> None:
    logits, masks = example()
    total = functional.cross_entropy(logits, masks["bn7"], ignore_index=255, reduction="sum").item()

    losses = multi_layer(logits, masks, white_mean=white_mean, divisor=divisor)

    assert losses["cross_entropy_bn7"].item() == pytest.approx(total / pixels)


def test_white_may_be_the_class_after_the_last() -> None:
    logits, masks = example()
    _, others = example(white=4)

    torch.testing.assert_close(multi_layer(logits, masks), multi_layer(logits, others), rtol=0, atol=0)


@pytest.mark.parametrize("white_mean", ["all", "valid"])
def test_white_pixels_have_no_gradient(white_mean: WhiteMean) -> None:
    logits, masks = example()
    logits.requires_grad_()

    torch.autograd.backward(multi_layer(logits, masks, white_mean=white_mean)["loss"])

    assert logits.grad is not None
    assert not logits.grad[0, :, :2].any()
    assert (logits.grad[1] != 0).all()


@pytest.mark.parametrize("white_mean", ["all", "valid"])
@pytest.mark.parametrize("white", [4, 255])
def test_an_image_that_is_all_white_costs_nothing(white_mean: WhiteMean, white: int) -> None:
    logits = torch.randn(1, 4, 5, 6, requires_grad=True)

    losses = multi_layer(logits, {"bn7": torch.full((1, 5, 6), white)}, weights=(1,), white_mean=white_mean)
    torch.autograd.backward(losses["loss"])

    assert losses["loss"].item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_weights_and_masks_come_in_equal_numbers() -> None:
    logits, masks = example()

    with pytest.raises(ValueError, match="zip"):
        multi_layer(logits, masks, weights=(0.5, 0.5))
