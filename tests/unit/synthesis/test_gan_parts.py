"""Networks, losses and scales of the GAN: shapes, and that critics of components reach the generator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from wsiseg.losses.component_critics import component, gradient_penalty, mean_scores, views
from wsiseg.nets.csingan import CriticOutput, Critics, Generator, Norm
from wsiseg.synthesis.gan_steps import adversarial
from wsiseg.synthesis.pyramid import (
    Scale,
    as_images,
    as_masks,
    as_pixels,
    colours_of,
    draws,
    lifted,
    noise_like,
    resized,
    resized_masks,
    sides,
)
from wsiseg.synthesis.settings import PRESETS, GanSettings

SIDE = 24


def disc(side: int = SIDE) -> Tensor:
    """Return a mask (1, 1, side, side) with a round nucleus."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return ((y - side / 2) ** 2 + (x - side / 2) ** 2 < (side / 4) ** 2).float()[None, None]


def test_sides_are_those_that_were_published() -> None:
    assert sides(128, 256, 5) == (128, 153, 182, 216, 256)
    assert sides(64, 256, 5) == (64, 91, 128, 182, 256)
    assert sides(64, 128, 5)[0] == 64
    assert sides(64, 128, 5)[-1] == 128


@pytest.mark.parametrize("norm", ["none", "instance", "batch"])
@pytest.mark.parametrize("output", ["linear", "relu6"])
def test_images_keep_their_size_and_maps_of_scores_lose_ten_pixels(norm: Norm, output: CriticOutput) -> None:
    generator, critics = Generator(8, norm=norm), Critics(8, norm=norm, output=output)
    image = torch.rand(1, 3, SIDE, 31) * 2 - 1
    mask = torch.ones(1, 1, SIDE, 31)

    with torch.no_grad():
        made = generator(image, image, mask)
        several = critics.compare((views(made, mask), views(image, mask)))

    assert made.shape == image.shape
    assert [scores.shape for scores in several] == [(1, 3, SIDE - 10, 21)] * 2
    if output == "relu6":
        assert all(0 <= float(scores.min()) <= float(scores.max()) <= 6 for scores in several)


def test_generators_have_the_published_numbers_of_weights() -> None:
    widths = (32, 64)
    counts = [sum(weight.numel() for weight in Generator(width).parameters()) for width in widths]

    # Published ones have four rows of biases, too, which their norms take off again.
    assert [round((count + 4 * width) / 1000, 1) for count, width in zip(counts, widths, strict=True)] == [30.1, 115.4]


def test_a_generator_without_weights_adds_nothing() -> None:
    generator = Generator(8)
    for part in generator.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.zeros_(part.weight)
    coarse, noise = torch.rand(1, 3, SIDE, SIDE), torch.randn(1, 3, SIDE, SIDE)

    at_the_lowest = generator(noise, torch.zeros_like(coarse), disc())
    above = generator(coarse + noise, coarse, disc())

    assert not at_the_lowest.any()
    torch.testing.assert_close(above, coarse)


def test_components_are_black_outside() -> None:
    image, mask = torch.rand(1, 3, SIDE, SIDE), disc()

    inside, outside = component(image, mask), component(image, 1 - mask)

    keep = mask.bool().expand_as(image)
    assert torch.equal(inside[keep], image[keep])
    assert (inside[~keep] == -1).all()
    assert torch.equal(inside + outside + 1, image)


def test_critics_share_nothing() -> None:
    critics = Critics(4)
    stack = torch.randn(1, 9, SIDE, SIDE, requires_grad=True)

    torch.autograd.backward(critics(stack)[:, 1].sum())

    assert stack.grad is not None
    assert stack.grad[:, 3:6].any()
    assert not stack.grad[:, :3].any()
    assert not stack.grad[:, 6:].any()


def test_only_without_a_norm_the_critic_of_the_whole_image_sees_its_tint() -> None:
    image, mask = torch.rand(1, 3, SIDE, SIDE), disc()
    tinted = 0.8 * image + torch.tensor([0.1, -0.2, 0.1])[:, None, None]

    def change(norm: Norm) -> float:
        critics = Critics(8, norm=norm)
        with torch.no_grad():
            of_image, of_tinted = (of[:, 0] for of in critics.compare((views(image, mask), views(tinted, mask))))
        return float((of_tinted - of_image).square().mean().sqrt() / of_image.std())

    torch.manual_seed(0)
    # A colour that is mixed in the same everywhere is one number for each channel, and a norm takes that off.
    assert change("instance") < 0.1
    assert change("none") > 0.5


def test_only_without_a_norm_a_place_looks_the_same_whatever_is_elsewhere() -> None:
    torch.manual_seed(0)
    noise, sparse = torch.randn(1, 3, SIDE, 60), torch.zeros(1, 1, SIDE, 60)
    dense = sparse.clone()
    dense[..., 40:] = 1

    def change(norm: Norm) -> float:
        generator = Generator(8, norm=norm)
        with torch.no_grad():
            first, second = (generator(noise, torch.zeros_like(noise), mask) for mask in (sparse, dense))
        return float((second - first)[..., :30].abs().max() / first.std())

    assert change("none") == 0
    assert change("instance") > 0.1


@pytest.mark.parametrize("norm", ["instance", "none"])
def test_critics_pass_on_signals_of_usual_size(norm: Norm) -> None:
    torch.manual_seed(0)
    stack = torch.randn(1, 9, 64, 64)

    scores = Critics(16, norm=norm)(stack)

    assert 0.01 < float(scores.detach().std()) < 10


@pytest.mark.parametrize("norm", ["none", "instance", "batch"])
@pytest.mark.parametrize("reduction", ["all", "masked"])
def test_critics_of_components_reach_the_generator(reduction: str, norm: Norm) -> None:
    # Without the critic of the whole image and without reconstruction.
    generator, critics = Generator(8, norm=norm), Critics(8, norm=norm)
    mask = disc()
    noise = torch.randn(1, 3, SIDE, SIDE)

    fake = generator(noise, torch.zeros_like(noise), mask)
    scores = mean_scores(critics(views(fake, mask)), mask, reduction=reduction)  # type: ignore[arg-type] # parametrised
    torch.autograd.backward(-scores[1:].sum())

    weights = {name: part.weight for name, part in generator.named_modules() if isinstance(part, nn.Conv2d)}
    assert len(weights) == 5
    for name, weight in weights.items():
        assert weight.grad is not None
        assert float(weight.grad.abs().sum()) > 0, name


def test_the_critic_of_nuclei_says_nothing_of_what_lies_outside() -> None:
    critics, mask = Critics(8), disc()
    fake = torch.randn(1, 3, SIDE, SIDE, requires_grad=True)

    torch.autograd.backward(mean_scores(critics(views(fake, mask)), mask)[1])

    assert fake.grad is not None
    inside = mask.bool().expand_as(fake)
    assert not fake.grad[~inside].any()
    assert fake.grad[inside].any()


def test_the_weight_of_components_can_be_taken_away() -> None:
    critics, mask, fake = Critics(8), disc(), torch.rand(1, 3, SIDE, SIDE)

    without = adversarial(critics, fake, mask, GanSettings(component_weight=0))

    whole = mean_scores(critics(views(fake, mask)), mask)[0]
    torch.testing.assert_close(without, -whole)


def test_scores_meet_the_middle_of_the_mask() -> None:
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., 5, :] = 1
    scores = torch.zeros(1, 3, 2, 2)
    scores[..., 0, :] = 1

    mean = mean_scores(scores, mask)
    masked = mean_scores(scores, mask, reduction="masked")

    assert mean.tolist() == [0.5, 0.5, 0]
    assert masked.tolist() == [0.5, 1, 0]


def test_a_slope_of_one_is_not_punished() -> None:
    def slanted(stack: Tensor) -> Tensor:
        return stack.reshape(len(stack), 3, 3, *stack.shape[2:]).sum(dim=2) / 3**0.5

    real, fake = torch.rand(2, 9, SIDE, SIDE), torch.rand(2, 9, SIDE, SIDE)
    share = torch.tensor([0.1, 0.5, 0.9])

    penalties = gradient_penalty(slanted, real, fake, share)
    flat = gradient_penalty(lambda stack: 0 * slanted(stack), real, fake, share)

    torch.testing.assert_close(penalties, torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(flat, torch.ones(3), atol=1e-4, rtol=0)


def test_the_penalty_falls_when_it_is_all_there_is_and_stays_finite() -> None:
    torch.manual_seed(0)
    critics = Critics(8)
    adam = torch.optim.Adam(critics.parameters(), lr=5e-4)
    real, fake = torch.rand(1, 9, SIDE, SIDE), torch.rand(1, 9, SIDE, SIDE)
    told = []

    for _ in range(50):
        penalty = gradient_penalty(critics, real, fake, torch.rand(3)).sum()
        adam.zero_grad()
        torch.autograd.backward(penalty)
        adam.step()
        told.append(penalty.item())

    assert torch.isfinite(torch.tensor(told)).all()
    assert sum(told[-10:]) < 0.9 * sum(told[:10])


def test_penalties_of_critics_that_bound_their_scores_are_finite() -> None:
    critics = Critics(8, output="relu6")
    for part in critics.modules():
        if isinstance(part, nn.Conv2d) and part.bias is not None:
            nn.init.constant_(part.bias, -10)
    stack = torch.rand(1, 9, SIDE, SIDE)

    torch.autograd.backward(gradient_penalty(critics, stack, stack, torch.rand(3)).sum())

    assert all(weight.grad is None or torch.isfinite(weight.grad).all() for weight in critics.parameters())


def test_pixels_come_back() -> None:
    pixels = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8).numpy()

    assert (as_pixels(as_images(pixels)) == pixels).all()


def test_masks_of_all_scales_come_from_full_size() -> None:
    mask = as_masks((torch.rand(1, 37, 37) > 0.5).int().numpy())

    small = resized_masks(mask, 19)

    assert ((small == 0) | (small == 1)).all()
    assert torch.equal(resized_masks(mask, 37), mask)
    assert not torch.equal(resized_masks(resized_masks(mask, 23), 19), small)


def test_resized_images_stay_in_range() -> None:
    image = (torch.rand(1, 3, 16, 16) > 0.5).float() * 2 - 1

    assert float(resized(image, 31).abs().max()) <= 1


def test_the_way_up_visits_every_scale_and_adds_noise_where_it_is_given() -> None:
    anything = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    scales = [Scale(generator=Generator(4).eval(), side_px=side, amplitude=1.0, colours=anything) for side in (16, 20)]
    mask = disc(24)
    noise = [noise_like(torch.empty(1, 3, side, side), draws(0, side), is_grey=False) for side in (16, 20)]

    with torch.no_grad():
        silent = lifted(scales, mask, 24, [None, None])
        noisy = lifted(scales, mask, 24, [None, noise[1]])

    assert silent.shape == (1, 3, 24, 24)
    assert not torch.equal(silent, noisy)
    assert not lifted([], mask, 24, []).any()


def test_each_channel_of_images_stays_within_its_range_in_the_patch() -> None:
    torch.manual_seed(0)
    patch = torch.rand(1, 3, 24, 24) * 0.2 - torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1)
    sides = (16, 24)
    scales = [
        Scale(generator=Generator(4).eval(), side_px=side, amplitude=9.0, colours=colours_of(resized(patch, side)))
        for side in sides
    ]
    noise = [noise_like(torch.empty(1, 3, side, side), draws(0, side), is_grey=False) for side in sides]
    for weight in (weight for scale in scales for weight in scale.generator.parameters()):
        weight.data.normal_(0, 0.5)

    with torch.no_grad():
        lower, image = lifted(scales[:1], disc(24), 16, noise[:1]), lifted(scales, disc(24), 24, noise)

    for made, side in ((lower, 16), (image, 24)):
        own = resized(patch, side)
        least, most = own.amin(dim=(2, 3)), own.amax(dim=(2, 3))
        is_below, is_above = made.amin(dim=(2, 3)) < least, made.amax(dim=(2, 3)) > most
        assert not is_below.any()
        assert not is_above.any()
        # They would leave it.
        assert (made.amin(dim=(2, 3)) == least).any()
        assert (made.amax(dim=(2, 3)) == most).any()


def test_noise_of_the_lowest_scale_is_grey_and_draws_depend_on_their_key() -> None:
    like = torch.empty(1, 3, 8, 8)

    grey = noise_like(like, draws(0, 1), is_grey=True)

    assert torch.equal(grey[:, 0], grey[:, 2])
    assert torch.equal(grey, noise_like(like, draws(0, 1), is_grey=True))
    assert not torch.equal(grey, noise_like(like, draws(1, 0), is_grey=True))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_give_way_to_what_is_asked_for(preset: str) -> None:
    settings = GanSettings.model_validate({"preset": preset, "steps": 7})

    others = GanSettings.model_validate({"preset": preset}).model_dump()
    assert others["steps"] != 7
    assert settings.model_dump() == {**others, "steps": 7}
    assert GanSettings.model_validate(settings.model_dump()) == settings
