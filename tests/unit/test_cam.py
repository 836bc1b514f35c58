"""Maps agree with what is known of them in closed form, and masks depend on their order only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from wsiseg.cam import grad_cam, heat_maps, pseudo_confidence, pseudo_masks
from wsiseg.errors import DataError
from wsiseg.nets.classifiers import build_classifier
from wsiseg.nets.resnet38d import ResNet38d

if TYPE_CHECKING:
    from wsiseg.nets.taps import TapClassifier


def classifier(backbone: str = "resnet38d") -> TapClassifier:
    """Return a small classifier of 4 classes in evaluation mode."""
    torch.manual_seed(0)
    net = ResNet38d(4, width=2) if backbone == "resnet38d" else build_classifier(backbone, 4)
    return net.eval()


def random_maps(seed: int, count: int = 2) -> Tensor:
    """Return maps (count, 4, 5, 6) of both signs."""
    return torch.tensor(np.random.default_rng(seed).normal(size=(count, 4, 5, 6)), dtype=torch.float32)


@pytest.mark.parametrize("backbone", ["resnet38d", "resnet18"])
def test_the_map_of_the_deepest_layer_is_the_classifier_at_each_position_over_their_number(backbone: str) -> None:
    net, images = classifier(backbone), torch.rand(2, 3, 32, 48)

    maps = grad_cam(net.tapped, images)[-1]

    with torch.no_grad():
        expected = net.fc8(net.taps(images)[-1]) / (4 * 6)
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_maps_of_shallow_layers_agree_with_one_backward_pass_for_each_class_and_layer() -> None:
    net, images = classifier(), torch.rand(1, 3, 32, 32)

    maps = grad_cam(net.tapped, images)

    for layer in range(3):
        for k in range(4):
            taps, logits = net.tapped(images)
            (gradient,) = torch.autograd.grad(logits[0, k], taps[layer])
            expected = torch.einsum("d,dhw->hw", gradient[0].mean(dim=(1, 2)), taps[layer][0])
            torch.testing.assert_close(maps[layer][0, k], expected)


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    net, images = classifier(), torch.rand(3, 3, 32, 32)

    together = grad_cam(net.tapped, images)

    for n in range(3):
        for batched, single in zip(together, grad_cam(net.tapped, images[n : n + 1]), strict=True):
            torch.testing.assert_close(batched[n : n + 1], single, rtol=1e-4, atol=1e-6)


def test_parameters_may_be_frozen_and_gradients_switched_off() -> None:
    net, images = classifier(), torch.rand(1, 3, 32, 32)
    expected = grad_cam(net.tapped, images)

    with torch.no_grad():
        frozen = grad_cam(net.requires_grad_(False).tapped, images)

    assert not any(maps.requires_grad for maps in frozen)
    assert not images.requires_grad
    for one, other in zip(expected, frozen, strict=True):
        torch.testing.assert_close(one, other)


def test_one_pass_forward_and_one_backward_for_each_class_whatever_the_layers_and_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = classifier()
    passes = {"forward": 0, "backward": 0}
    tapped, grad = net.tapped, torch.autograd.grad

    def counted_forward(images: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        passes["forward"] += 1
        return tapped(images)

    def counted_grad(total: Tensor, taps: list[Tensor], *, retain_graph: bool) -> tuple[Tensor, ...]:
        passes["backward"] += 1
        return grad(total, taps, retain_graph=retain_graph)

    monkeypatch.setattr(torch.autograd, "grad", counted_grad)
    grad_cam(counted_forward, torch.rand(3, 3, 32, 32))

    assert passes == {"forward": 1, "backward": 4}


def test_no_gradient_is_left_in_the_network() -> None:
    net = classifier()

    grad_cam(net.tapped, torch.rand(1, 3, 32, 32))

    assert all(value.grad is None for value in net.parameters())


def test_maps_are_not_rectified() -> None:
    taps = (nn.Parameter(torch.tensor([[[[1.0, -2.0]]]])),)

    (maps,) = grad_cam(lambda _: (taps, taps[0].mean(dim=(2, 3))), torch.zeros(1, 3, 1, 2))

    torch.testing.assert_close(maps, torch.tensor([[[[0.5, -1.0]]]]))


@settings(max_examples=30)
@given(st.integers(0, 99), st.lists(st.booleans(), min_size=8, max_size=8))
def test_only_present_classes_and_white_are_in_a_mask(seed: int, flags: list[bool]) -> None:
    present = torch.tensor(flags).view(2, 4)
    present[:, 3] |= ~present.any(dim=1)
    white = torch.zeros(2, 20, 24, dtype=torch.bool)
    white[:, :3] = True

    masks = pseudo_masks(random_maps(seed), present, (20, 24), white)

    for n in range(2):
        allowed = {*present[n].nonzero().flatten().tolist(), 255}
        assert set(masks[n].flatten().tolist()) <= allowed
        assert (masks[n] == 255).equal(white[n])


@settings(max_examples=30)
@given(st.integers(0, 99), st.integers(-8, 8), st.sampled_from([0.25, 2.0, 64.0]))
def test_a_constant_or_a_scale_changes_no_mask(seed: int, constant: int, scale: float) -> None:
    # Sixteenths at the size of the masks, so that sums and products are exact.
    maps = (random_maps(seed) * 16).round() / 16
    present = torch.tensor([[True, True, False, True], [False, True, True, False]])

    masks = pseudo_masks(maps * scale + constant, present, (5, 6))

    assert masks.equal(pseudo_masks(maps, present, (5, 6)))


def test_one_present_class_takes_all_that_is_not_white() -> None:
    present = torch.tensor([[False, False, True, False]])
    white = torch.rand(1, 10, 12, generator=torch.Generator().manual_seed(0)) > 0.5

    masks = pseudo_masks(-random_maps(0, 1).abs() - 1, present, (10, 12), white)

    assert masks.equal(torch.where(white, 255, 2).to(torch.uint8))


def test_an_absent_class_does_not_win_even_over_equal_maps() -> None:
    masks = pseudo_masks(torch.zeros(1, 4, 5, 6), torch.tensor([[False, False, False, True]]), (5, 6))

    assert (masks == 3).all()


def test_without_white_there_is_none() -> None:
    assert (pseudo_masks(random_maps(0), torch.ones(2, 4, dtype=torch.bool), (20, 24)) < 4).all()


def test_a_white_square_is_white_in_the_masks_of_all_layers() -> None:
    net, present = classifier(), torch.tensor([[True, False, True, True]])
    white = torch.zeros(1, 96, 64, dtype=torch.bool)
    white[0, 10:70, 2:62] = True

    for maps in grad_cam(net.tapped, torch.rand(1, 3, 96, 64)):
        masks = pseudo_masks(maps, present, (96, 64), white)

        assert (masks == 255).equal(white)


def test_maps_are_interpolated_before_they_are_compared() -> None:
    maps = torch.zeros(1, 2, 1, 2)
    maps[0, 0, 0], maps[0, 1, 0] = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0])

    # At half-pixel centres the second class is ahead from three quarters of the way on.
    masks = pseudo_masks(maps, torch.tensor([[True, True]]), (1, 16))

    assert masks[0, 0].tolist() == [0] * 10 + [1] * 6


def test_images_without_a_class_are_refused() -> None:
    with pytest.raises(DataError, match="image 1 of the batch shows no class"):
        pseudo_masks(random_maps(0), torch.tensor([[True] * 4, [False] * 4]), (5, 6))
    with pytest.raises(DataError, match="image 1 of the batch shows no class"):
        pseudo_confidence(random_maps(0), torch.tensor([[True] * 4, [False] * 4]), (5, 6))


def test_confidence_is_half_of_the_lead_and_half_more() -> None:
    maps = torch.tensor([[[[4.0, 3.0, 2.0, 1.0]], [[0.0, 1.0, 2.0, 3.0]], [[9.0, 9.0, 9.0, -9.0]]]])

    found = pseudo_confidence(maps, torch.tensor([[True, True, False]]), (1, 4))

    assert found[0, 0].tolist() == [100, 75, 50, 75]


@settings(max_examples=30)
@given(st.integers(0, 99), st.sampled_from([-8.0, 0.0, 8.0]), st.sampled_from([0.25, 2.0, 64.0]))
def test_a_constant_or_a_scale_changes_no_confidence(seed: int, constant: float, scale: float) -> None:
    maps = (random_maps(seed) * 16).round() / 16
    present = torch.tensor([[True, True, False, True], [False, True, True, False]])

    found = pseudo_confidence(maps * scale + constant, present, (5, 6))

    assert found.equal(pseudo_confidence(maps, present, (5, 6)))
    assert found.min() >= 50
    assert found.max() <= 100


def test_one_class_alone_is_sure_and_white_is_nothing() -> None:
    white = torch.zeros(1, 10, 12, dtype=torch.bool)
    white[:, :4] = True
    for classes in (1, 4):
        present = torch.zeros(1, classes, dtype=torch.bool)
        present[:, -1] = True

        found = pseudo_confidence(random_maps(0, 1)[:, :classes], present, (10, 12), white)

        assert found.equal(torch.where(white, 255, 100).to(torch.uint8))


def test_equal_maps_are_as_unsure_as_can_be() -> None:
    assert (pseudo_confidence(torch.zeros(1, 4, 5, 6), torch.ones(1, 4, dtype=torch.bool), (5, 6)) == 50).all()


def test_pictures_run_from_the_lowest_to_the_highest_value_of_all_classes() -> None:
    maps, present = random_maps(0), torch.tensor([[True, True, False, True], [True] * 4])

    pictures = heat_maps(maps, present, (5, 6))

    lowest, highest = maps.amin(dim=(1, 2, 3)), maps.amax(dim=(1, 2, 3))
    expected = (maps - lowest[:, None, None, None]) / (highest - lowest)[:, None, None, None]
    expected[0, 2] = 0
    torch.testing.assert_close(pictures, expected)


def test_pictures_of_equal_maps_are_dark() -> None:
    assert not heat_maps(torch.full((1, 2, 3, 3), 7.0), torch.tensor([[True, True]]), (6, 6)).any()
