"""An update of a scale follows the losses of the paper, with the noise that each scale gets there."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.nuclei_makers import ellipses
from tests.synthesis_makers import example_of
from wsiseg.nets.csingan import Critics, Generator
from wsiseg.synthesis.gan_steps import Material, ScaleTraining, reconstruct, update
from wsiseg.synthesis.pyramid import Scale, as_images, as_masks, colours_of, draws, resized, resized_masks
from wsiseg.synthesis.settings import GanSettings

SIDES = (14, 18, 24)
AMPLITUDES = (1.0, 0.8, 0.6)
SETTINGS = GanSettings(critic_steps=1, penalty_every=2, component_weight=0.5, mask_order="cyclic", seed=3)


def scale_of(number: int) -> Scale:
    """Return a scale whose images are not almost grey, as those of new weights are."""
    generator = Generator(4)
    for part in generator.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, 0.0, 0.2)
    colours = colours_of(as_images(example_of(24).image[None]))
    return Scale(generator=generator, side_px=SIDES[number], amplitude=AMPLITUDES[number], colours=colours)


def begun(number: int) -> tuple[ScaleTraining, Material]:
    """Return a scale at its first step, above frozen ones, and what it is trained with."""
    torch.manual_seed(0)
    example, side = example_of(24), SIDES[0]
    material = Material(
        image=as_images(example.image[None]),
        mask=as_masks(example.labels[None]),
        masks=as_masks(np.stack([ellipses(4, 24, seed=seed, radii=(3.2, 4.5)) for seed in (2, 3)])),
        star=torch.randn(1, 1, side, side).expand(1, 3, side, side),
    )
    *below, scale = (scale_of(one) for one in range(number + 1))
    for one in below:
        one.generator.eval().requires_grad_(requires_grad=False)
    critics = Critics(4)
    training = ScaleTraining(
        number=number,
        scale=scale,
        below=below,
        critics=critics,
        generator_adam=torch.optim.Adam(scale.generator.parameters(), lr=1e-3),
        critics_adam=torch.optim.Adam(critics.parameters(), lr=1e-3),
    )
    return training, material


def networks(training: ScaleTraining) -> nn.Module:
    return nn.ModuleList((training.critics, training.scale.generator))


def upwards(below: list[Scale], mask: Tensor, lowest: Tensor, side_px: int) -> Tensor:
    """Return what scales make of noise at the lowest of them and nowhere else, at the size of the next."""
    if not below:
        return torch.zeros_like(lowest)
    first, *others = below
    image = first.generator(lowest * first.amplitude, torch.zeros_like(lowest), resized_masks(mask, first.side_px))
    for scale in others:
        coarse = resized(within_the_patch(image), scale.side_px)
        image = scale.generator(coarse, coarse, resized_masks(mask, scale.side_px))
    return resized(within_the_patch(image), side_px)


def within_the_patch(image: Tensor) -> Tensor:
    """Return an image with each channel within its range in the patch."""
    patch = as_images(example_of(24).image[None])[0].flatten(1)
    channels = zip(image.unbind(dim=1), patch, strict=True)
    return torch.stack([one.clamp(float(own.min()), float(own.max())) for one, own in channels], dim=1)


def grey(side_px: int, rng: torch.Generator) -> Tensor:
    return torch.randn((1, 1, side_px, side_px), generator=rng).expand(1, 3, side_px, side_px)


def new_image(training: ScaleTraining, mask: Tensor, rng: torch.Generator) -> Tensor:
    """Return an image of a mask: grey noise at the lowest scale, of three colours at the one in training above it."""
    scale, below = training.scale, list(training.below)
    lowest = grey(SIDES[0], rng)
    coarse = upwards(below, mask, lowest, scale.side_px)
    noise = torch.randn(coarse.shape, generator=rng) if below else lowest
    image: Tensor = scale.generator(coarse + scale.amplitude * noise, coarse, resized_masks(mask, scale.side_px))
    return image


def rebuilt(training: ScaleTraining, material: Material) -> Tensor:
    """Return the patch from the one noise that stands for it, which only the lowest scale gets."""
    scale, below = training.scale, list(training.below)
    coarse = upwards(below, material.mask, material.star, scale.side_px)
    noisy = coarse if below else material.star
    image: Tensor = scale.generator(noisy, coarse, resized_masks(material.mask, scale.side_px))
    return image


def seen(image: Tensor, mask: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return what each critic sees, and where its scores count."""
    middle, outside = mask[..., 5:-5, 5:-5], 1 - mask
    return [(image, torch.ones_like(middle)), (image * mask - outside, middle), (image * outside - mask, 1 - middle)]


def scores(critics: Critics, image: Tensor, mask: Tensor) -> Tensor:
    pairs = zip(critics.parts, seen(image, mask), strict=True)
    return torch.stack([(part(view) * weight).mean() for part, (view, weight) in pairs])


@pytest.mark.parametrize("number", [0, 2])
def test_updates_follow_the_losses_of_the_paper(number: int) -> None:
    training, material = begun(number)
    side = SIDES[number]
    image, mask = resized(material.image, side), resized_masks(material.mask, side)
    coarse = reconstruct(training.below, material, side)
    penalty = torch.zeros(())

    for step in range(3):
        before = deepcopy(training)
        log = update(training, material, (image, mask), coarse, SETTINGS)
        training.log.append(log)

        # Critics: real images high, new ones low, and a slope of 1 in between, which is looked at every second time.
        networks(before).zero_grad()
        new = material.masks[step % 2 : step % 2 + 1]
        new_mask = resized_masks(new, side)
        rng = draws(SETTINGS.seed, number, step, 0)
        fake = new_image(before, new, rng).detach()
        gaps = scores(before.critics, image, mask) - scores(before.critics, fake, new_mask)
        loss = -gaps.sum()
        if step % 2 == 0:
            penalty = torch.zeros(())
            views = zip(seen(image, mask), seen(fake, new_mask), strict=True)
            shares = torch.rand(3, generator=rng)
            for part, share, ((real, _), (made, _)) in zip(before.critics.parts, shares, views, strict=True):
                between = (share * real + (1 - share) * made).requires_grad_()
                (slope,) = torch.autograd.grad(part(between).sum(), between, create_graph=True)
                penalty = penalty + ((slope.norm(dim=1) - 1) ** 2).mean()
            loss = loss + 2 * 0.1 * penalty
        torch.autograd.backward(loss)
        # The generator: what the critics then say of another new image, and ten times the error of the reconstruction.
        fake = new_image(before, new, draws(SETTINGS.seed, number, step, 1))
        whole, nuclei, background = scores(deepcopy(training.critics), fake, new_mask)
        error = ((rebuilt(before, material) - image) ** 2).mean()
        torch.autograd.backward(-(whole + 0.5 * nuclei + 0.5 * background) + 10 * error)

        torch.testing.assert_close(log, torch.stack((error, *gaps, penalty)).detach(), rtol=1e-4, atol=1e-5)
        for trained, expected in (
            (training.critics, before.critics),
            (training.scale.generator, before.scale.generator),
        ):
            for name, weight in expected.named_parameters():
                torch.testing.assert_close(trained.get_parameter(name).grad, weight.grad, rtol=1e-3, atol=1e-5)
