"""One scale of a GAN in training, and one update of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from wsiseg.losses.component_critics import gradient_penalty, mean_scores, views
from wsiseg.nets.csingan import VIEWS
from wsiseg.synthesis.pyramid import draws, lifted, noise_like, resized_masks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from wsiseg.nets.csingan import Critics
    from wsiseg.synthesis.pyramid import Scale
    from wsiseg.synthesis.settings import GanSettings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """What a scale is trained with, at full size.

    Parameters
    ----------
    image, mask
        The patch, (1, 3, S, S) and (1, 1, S, S).
    masks
        New masks (M, 1, S, S).
    star
        (1, 3, s, s), noise of the reconstruction at the lowest scale: drawn once, so that one noise means the patch
        and others something else.
    """

    image: Tensor
    mask: Tensor
    masks: Tensor
    star: Tensor


@dataclass(slots=True, kw_only=True, eq=False)
class ScaleTraining:
    """A scale while it is trained.

    Parameters
    ----------
    number, scale
        Which it is, from 0, and its generator.
    below
        The trained scales, frozen.
    critics
        Its critics.
    generator_adam, critics_adam
        Their optimisers.
    log
        For each update of the generator: reconstruction error, the gap of each critic, gradient penalty, (5,).
    """

    number: int
    scale: Scale
    below: Sequence[Scale]
    critics: Critics
    generator_adam: torch.optim.Adam
    critics_adam: torch.optim.Adam
    log: list[Tensor] = field(default_factory=list)

    @property
    def step(self) -> int:
        """Return the number of updates of the generator."""
        return len(self.log)

    def coarse(self, material: Material, masks: Tensor, rng: torch.Generator) -> Tensor:
        """Return what the scales below make of masks; only the lowest of them gets noise."""
        noises: list[Tensor | None] = [None] * len(self.below)
        if noises:
            noises[0] = noise_like(material.star, rng, is_grey=True)
        with torch.no_grad():
            return lifted(self.below, masks, self.scale.side_px, noises)

    def fake(self, material: Material, masks: Tensor, rng: torch.Generator) -> Tensor:
        """Return a new image for each of masks (B, 1, S, S), not clamped."""
        coarse = self.coarse(material, masks, rng)
        noise = noise_like(coarse, rng, is_grey=self.number == 0)
        small = resized_masks(masks, self.scale.side_px)
        image: Tensor = self.scale.generator(coarse + self.scale.amplitude * noise, coarse, small)
        return image

    def reconstruction(self, material: Material, coarse: Tensor) -> Tensor:
        """Return the patch as the generator makes it from its reconstruction at the scale below."""
        noisy = coarse + self.scale.amplitude * material.star if self.number == 0 else coarse
        image: Tensor = self.scale.generator(noisy, coarse, resized_masks(material.mask, self.scale.side_px))
        return image


@torch.no_grad()
def reconstruct(scales: Sequence[Scale], material: Material, side_px: int) -> Tensor:
    """Return the patch as trained scales make it, (1, 3, side_px, side_px); zeros without any."""
    return lifted(scales, material.mask, side_px, [material.star, *[None] * (len(scales) - 1)][: len(scales)])


def update(
    training: ScaleTraining, material: Material, target: tuple[Tensor, Tensor], coarse: Tensor, settings: GanSettings
) -> Tensor:
    """Update critics and generator once, and return what the log says of it, (5,).

    Parameters
    ----------
    training
        The scale.
    material
        The patch and the new masks.
    target
        The patch and its mask at this scale.
    coarse
        The reconstruction of the scale below at the size of this one.
    settings
        How.
    """
    step, critics = training.step, training.critics
    image, image_mask = target
    real = views(image, image_mask)
    place = step % len(material.masks)
    if settings.mask_order == "random":
        rng = draws(settings.seed, training.number, step)
        place = int(torch.randint(len(material.masks), (1,), generator=rng))
    masks = material.masks[place : place + 1]
    small = resized_masks(masks, training.scale.side_px)
    gaps, penalty = image.new_zeros(len(VIEWS)), training.log[-1][-1] if training.log else image.new_zeros(())
    for turn in range(settings.critic_steps):
        rng = draws(settings.seed, training.number, step, turn)
        with torch.no_grad():
            fake = views(training.fake(material, masks, rng), small)
        of_real, of_fake = critics.compare((real, fake))
        gaps = mean_scores(of_real, image_mask, reduction=settings.component_reduction)
        gaps = gaps - mean_scores(of_fake, small, reduction=settings.component_reduction)
        loss = -gaps.sum()
        if (step * settings.critic_steps + turn) % settings.penalty_every == 0:
            mixture = torch.rand(len(VIEWS), generator=rng).to(image.device)
            penalty = gradient_penalty(critics, real, fake, mixture).sum()
            loss = loss + settings.penalty_weight * settings.penalty_every * penalty
        training.critics_adam.zero_grad()
        torch.autograd.backward(loss)
        training.critics_adam.step()
    critics.requires_grad_(requires_grad=False)
    rng = draws(settings.seed, training.number, step, settings.critic_steps)
    fooled = adversarial(critics, training.fake(material, masks, rng), small, settings)
    error = functional.mse_loss(training.reconstruction(material, coarse), image)
    training.generator_adam.zero_grad()
    torch.autograd.backward(fooled + settings.reconstruction_weight * error)
    training.generator_adam.step()
    critics.requires_grad_(requires_grad=True)
    return torch.stack((error, *gaps.unbind(), penalty)).detach()


def adversarial(critics: Critics, fake: Tensor, masks: Tensor, settings: GanSettings) -> Tensor:
    """Return by how much critics see through generated images (B, 3, s, s) of masks (B, 1, s, s)."""
    scores = mean_scores(critics(views(fake, masks)), masks, reduction=settings.component_reduction)
    weights = scores.new_tensor((1.0, settings.component_weight, settings.component_weight))
    return -(weights * scores).sum()
