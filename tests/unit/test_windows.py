"""What is said of a volume is the mean over windows, whatever its shape, and leaves no voxel out."""

from __future__ import annotations

from itertools import pairwise, product
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from wsiseg.methods.windows import window_means, window_starts

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

CPU = torch.device("cpu")
PATCH, STRIDE = (6, 6, 5), (4, 4, 3)


class FakePredictor:
    """Says of a window what a function of its voxels says."""

    spec = SimpleNamespace(channels=2)

    def __init__(self, say: Callable[[Tensor], Tensor]) -> None:
        self.say = say
        self.windows: list[Tensor] = []

    def forward(self, batch: Tensor) -> Tensor:
        self.windows.append(batch)
        said = self.say(batch[:, 0])
        return torch.stack([said, 1 - said], dim=1)


def means(predictor: FakePredictor, voxels: NDArray[np.float32]) -> NDArray[np.float32]:
    return window_means(predictor, voxels, patch=PATCH, stride=STRIDE, device=CPU)  # type: ignore[arg-type]


@pytest.mark.parametrize("side", [1, 80, 96, 97, 160, 161, 512])
@pytest.mark.parametrize("stride", [1, 64, 96])
def test_windows_cover_an_axis_and_move_by_a_stride_at_most(side: int, stride: int) -> None:
    starts = window_starts(side, 96, stride)

    assert starts[0] == 0
    assert starts[-1] == max(0, side - 96)
    assert all(0 < after - before <= stride for before, after in pairwise(starts))
    assert len(starts) == -(-max(0, side - 96) // stride) + 1


@pytest.mark.parametrize("shape", list(product([3, 6, 7, 12], [5, 13], [4, 9])))
def test_a_network_that_looks_at_single_voxels_says_the_same_of_the_whole(shape: tuple[int, int, int]) -> None:
    voxels = np.random.default_rng(0).uniform(size=shape).astype(np.float32)

    found = means(FakePredictor(lambda batch: batch), voxels)

    assert found.shape == (2, *shape)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], voxels, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)


def test_every_window_has_one_voice() -> None:
    """What depends on the window alone is averaged over the windows that hold a voxel."""
    voxels = np.zeros((9, 8, 7), dtype=np.float32)
    voices = iter(np.random.default_rng(0).uniform(size=100).astype(np.float32).tolist())
    said: list[float] = []

    def say(batch: Tensor) -> Tensor:
        said.append(next(voices))
        return torch.full_like(batch, said[-1])

    found = means(FakePredictor(say), voxels)

    total, count = np.zeros(voxels.shape), np.zeros(voxels.shape)
    starts = [window_starts(*sides) for sides in zip(voxels.shape, PATCH, STRIDE, strict=True)]
    for voice, (z, y, x) in zip(said, product(*starts), strict=True):
        total[z : z + 6, y : y + 6, x : x + 5] += voice
        count[z : z + 6, y : y + 6, x : x + 5] += 1
    assert count.min() >= 1
    np.testing.assert_allclose(found[0], total / count, atol=1e-6)


def test_a_volume_that_is_too_small_lies_in_the_middle_of_its_least_intensity() -> None:
    predictor = FakePredictor(lambda batch: batch)
    voxels = np.arange(100, dtype=np.float32).reshape(4, 5, 5) - 7

    means(predictor, voxels)

    (window,) = predictor.windows
    assert window.shape == (1, 1, *PATCH)
    np.testing.assert_array_equal(window[0, 0, 1:5, :5], voxels)
    assert (window == -7).sum() == 6 * 6 * 5 - 4 * 5 * 5 + 1


def test_progress_is_told_of_every_window() -> None:
    told: list[int] = []
    predictor = FakePredictor(lambda batch: batch)

    window_means(
        predictor,  # type: ignore[arg-type]
        np.zeros((12, 6, 5), dtype=np.float32),
        patch=PATCH,
        stride=STRIDE,
        device=CPU,
        advance=lambda: told.append(1),
    )

    assert len(told) == len(predictor.windows) == 3
