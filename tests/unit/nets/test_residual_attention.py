"""Residual attention is average pooling plus the attention of each class, and its parts add up to the logits."""

from __future__ import annotations

import math

import pytest
import torch

from wsiseg.nets.residual_attention import TEMPERATURES, ResidualAttention, attention_maps


def head(
    classes: int = 3, *, temperatures: tuple[float, ...] = (1.0,), residual_weight: float = 0.3
) -> ResidualAttention:
    torch.manual_seed(0)
    return ResidualAttention(6, classes, temperatures=temperatures, residual_weight=residual_weight)


def features(height: int = 4, width: int = 5) -> torch.Tensor:
    return torch.randn(2, 6, height, width, generator=torch.Generator().manual_seed(1))


def scores_of(module: ResidualAttention, x: torch.Tensor) -> torch.Tensor:
    rows = module.weight[0] / module.weight[0].norm(dim=1, keepdim=True)
    return torch.einsum("cd,bdhw->bchw", rows, x)


def test_without_attention_it_is_average_pooling() -> None:
    module = head(residual_weight=0)

    torch.testing.assert_close(module(features()).logits, scores_of(module, features()).mean(dim=(2, 3)))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_it_agrees_with_the_formula(temperature: float) -> None:
    module = head(temperatures=(temperature,))
    scores = scores_of(module, features()).flatten(2)
    weight = torch.exp(temperature * scores)
    weight = weight / weight.sum(dim=2, keepdim=True)

    found = module(features())

    torch.testing.assert_close(found.logits, scores.mean(dim=2) + 0.3 * (weight * scores).sum(dim=2))
    torch.testing.assert_close(found.attention[:, 0].flatten(2), weight)


def test_an_infinite_temperature_takes_the_maximum() -> None:
    module = head(temperatures=(math.inf,))
    scores = scores_of(module, features())

    torch.testing.assert_close(
        module(features()).logits, scores.mean(dim=(2, 3)) + 0.3 * scores.amax(dim=(2, 3)), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("heads", TEMPERATURES)
def test_the_parts_of_all_positions_add_up_to_the_logits(heads: int) -> None:
    found = head(temperatures=TEMPERATURES[heads])(features())

    torch.testing.assert_close(found.parts.sum(dim=(1, 3, 4)), found.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.attention.sum(dim=(3, 4)), torch.ones(2, heads, 3))


def test_several_heads_are_the_sum_of_single_ones() -> None:
    many = head(temperatures=TEMPERATURES[4])
    total = torch.zeros(2, 3)
    for number, temperature in enumerate(TEMPERATURES[4]):
        single = head(temperatures=(temperature,))
        with torch.no_grad():
            single.weight.copy_(many.weight[number : number + 1])
        total = total + single(features()).logits

    torch.testing.assert_close(many(features()).logits, total)


def test_the_length_of_the_weights_does_not_matter() -> None:
    module = head()
    before = module(features()).logits

    with torch.no_grad():
        module.weight.mul_(10)

    torch.testing.assert_close(module(features()).logits, before)


def test_weights_of_length_0_give_numbers() -> None:
    module = head()
    torch.nn.init.zeros_(module.weight)

    assert (module(features()).logits == 0).all()


def test_the_order_of_positions_does_not_matter() -> None:
    module = head(temperatures=TEMPERATURES[2])
    shuffled = features().flatten(2)[..., torch.randperm(20, generator=torch.Generator().manual_seed(2))]

    torch.testing.assert_close(module(shuffled.view(2, 6, 4, 5)).logits, module(features()).logits)


@pytest.mark.parametrize("temperatures", [(1.0,), (2.0, math.inf)])
def test_gradients_agree_with_finite_differences(temperatures: tuple[float, ...]) -> None:
    module = head(temperatures=temperatures).double()
    x = features(3, 3).double().requires_grad_()

    def logits(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        found = torch.func.functional_call(module, {"weight": weight}, (values,))
        return torch.as_tensor(found.logits)

    assert torch.autograd.gradcheck(logits, (x, module.weight))


def test_a_spot_that_looks_like_a_class_draws_the_attention_of_that_class_and_only_there() -> None:
    module = head()
    torch.nn.init.eye_(module.weight[0].data)
    x = 0.1 * features()
    before = module(x).attention[0, 0]

    x[0, 1, 2, 3] += 5
    after = module(x).attention[0, 0]

    risen = torch.zeros(4, 5, dtype=torch.bool)
    risen[2, 3] = True
    torch.testing.assert_close(after[1] > before[1], risen)
    torch.testing.assert_close(after[0], before[0])
    torch.testing.assert_close(after[2], before[2])


@pytest.mark.parametrize("size", [(28, 28), (12, 16), (1, 1)])
def test_maps_have_the_size_of_the_features(size: tuple[int, int]) -> None:
    found = head(temperatures=TEMPERATURES[2])(features(*size))

    assert found.scores.shape == found.attention.shape == found.parts.shape == (2, 2, 3, *size)
    assert attention_maps(found.scores).shape == (2, 3, *size)


def test_kept_maps_reach_from_0_to_1_and_carry_no_gradient() -> None:
    scores = head(temperatures=TEMPERATURES[2])(features()).scores
    maps = attention_maps(scores)

    assert not maps.requires_grad
    assert (maps >= 0).all()
    torch.testing.assert_close(maps.amax(dim=(2, 3)), torch.ones(2, 3))
    mean = scores.relu().mean(dim=1)
    torch.testing.assert_close(maps, mean / mean.amax(dim=(2, 3), keepdim=True))


def test_a_class_that_is_seen_nowhere_has_an_empty_map() -> None:
    assert (attention_maps(-torch.ones(1, 1, 2, 3, 3)) == 0).all()


def test_attention_is_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head()(features())

    assert found.scores.dtype == found.attention.dtype == found.logits.dtype == torch.float32
    torch.testing.assert_close(found.attention.sum(dim=(3, 4)), torch.ones(2, 1, 3))
