"""Vectors and rays turn with the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wsiseg.heads.rays import unit_rays
from wsiseg.heads.symmetry import rays_turned_back, turned, turned_back, vectors_turned_back


def gradient(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    y, x = torch.gradient(image, dim=(-2, -1))
    return y, x


@pytest.mark.parametrize("symmetry", range(8))
def test_the_gradient_of_a_turned_image_turns_back_into_that_of_the_image(symmetry: int) -> None:
    image = torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(0))

    there = gradient(turned(image, symmetry))
    y, x = vectors_turned_back(*there, symmetry)

    torch.testing.assert_close(turned_back(turned(image, symmetry), symmetry), image)
    torch.testing.assert_close((y, x), gradient(image))


@pytest.mark.parametrize("symmetry", range(8))
def test_rays_turn_as_vectors_do(symmetry: int) -> None:
    dy, dx = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5
    step = torch.from_numpy(unit_rays(16))[:, :, None, None]

    along = rays_turned_back(step[:, 0] * dy + step[:, 1] * dx, symmetry)
    y, x = vectors_turned_back(dy, dx, symmetry)

    torch.testing.assert_close(along, step[:, 0] * y + step[:, 1] * x)


def test_symmetries_are_all_different_and_agree_with_numpy() -> None:
    image = torch.arange(9).reshape(3, 3)
    seen = {tuple(turned(image, symmetry).ravel().tolist()) for symmetry in range(8)}

    assert len(seen) == 8
    np.testing.assert_array_equal(turned(image, 5).numpy(), np.rot90(image.numpy()[:, ::-1]))
