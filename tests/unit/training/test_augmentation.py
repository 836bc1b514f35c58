"""Looks change as drawn, each image by itself, and not at all when switched off."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wsiseg.training.augmentation import Augmentation, change_look, draw_look, draw_scale


def looks(settings: Augmentation, count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    drawn = [draw_look(settings, rng) for _ in range(count)]
    return {name: torch.from_numpy(np.stack([look[name] for look in drawn])) for name in drawn[0]}


@pytest.fixture
def images() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 24, 32)).astype(np.uint8))


def test_nothing_changes_when_all_is_off(images: torch.Tensor) -> None:
    settings = Augmentation.none()

    changed = change_look(images, looks(settings, 4), seed=0)

    assert not settings.changes_look
    assert draw_scale(settings, np.random.default_rng(0)) == 1
    assert (changed.int() - images.int()).abs().max() <= 1


@pytest.mark.parametrize("name", sorted(set(Augmentation.model_fields) - {"symmetries", "scale"}))
def test_each_setting_changes_something(images: torch.Tensor, name: str) -> None:
    settings = Augmentation.none().model_copy(update={name: 2.0 if name == "blur_px" else 0.5})

    changed = change_look(images, looks(settings, 4), seed=0)

    assert settings.changes_look
    assert changed.dtype == torch.uint8
    assert (changed.int() - images.int()).abs().max() > 1


def test_an_image_does_not_depend_on_its_neighbours(images: torch.Tensor) -> None:
    settings = Augmentation(noise=0)
    look = looks(settings, 4)

    together = change_look(images, look, seed=0)
    alone = change_look(images[2:3], {name: value[2:3] for name, value in look.items()}, seed=0)

    assert (together[2:3].int() - alone.int()).abs().max() <= 1


def test_glass_stays_light_and_stain_keeps_its_kind() -> None:
    pink = torch.tensor([235, 150, 200], dtype=torch.uint8).view(1, 3, 1, 1).expand(64, 3, 8, 8)
    glass = torch.full((64, 3, 8, 8), 245, dtype=torch.uint8)
    look = looks(Augmentation(noise=0), 64)

    assert change_look(glass, look, seed=0).float().mean() > 215
    means = change_look(pink, look, seed=0).float().mean(dim=(2, 3))
    assert (means[:, 1] < means[:, 0]).all()
    assert means.std(dim=0).min() > 5


def test_blur_is_gaussian() -> None:
    point = torch.zeros(1, 3, 33, 33, dtype=torch.uint8)
    point[:, :, 16, 16] = 255
    look = looks(Augmentation.none(), 1)
    look["numbers"][0, 3] = 1.0

    blurred = change_look(point, look, seed=0)[0, 0].float()

    assert blurred[16, 16] / 255 == pytest.approx(1 / (2 * np.pi), abs=0.01)
    assert blurred[16, 17] == blurred[15, 16] == blurred[16, 15]
