"""Whole patches are seen tile by tile, and no tile leaves a trace."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.fake_predictors import FakePredictor
from wsiseg.training.validation import dense_maps


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 64), (96, 65), (40, 513), (1000, 600)])
def test_a_network_of_single_pixels_gives_what_it_gives_for_the_whole(height: int, width: int) -> None:
    predictor = FakePredictor(tile_px=64, halo_px=8, radius=0)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)

    maps = dense_maps(predictor, image, torch.device("cpu"))

    whole = predictor.forward(torch.from_numpy(image).permute(2, 0, 1)[None])[0].numpy()
    assert maps.shape == (2, height, width)
    np.testing.assert_array_equal(maps, whole)


def test_what_a_network_sees_around_a_pixel_is_the_same_in_every_tile() -> None:
    predictor = FakePredictor(tile_px=64, halo_px=8, radius=3)
    image = np.random.default_rng(0).integers(0, 256, (700, 560, 3), dtype=np.uint8)

    maps = dense_maps(predictor, image, torch.device("cpu"))

    whole = predictor.forward(torch.from_numpy(image).permute(2, 0, 1)[None])[0].numpy()
    np.testing.assert_array_equal(maps[:, 3:-3, 3:-3], whole[:, 3:-3, 3:-3])


@pytest.mark.parametrize("shape", [(64, 64), (40, 50), (150, 100)])
def test_no_window_is_larger_than_a_tile(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = FakePredictor(tile_px=64, halo_px=8, radius=0)
    seen: list[tuple[int, ...]] = []
    forward = predictor.forward

    def watched(batch: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(batch.shape[2:]))
        return forward(batch)

    monkeypatch.setattr(predictor, "forward", watched)
    dense_maps(predictor, np.zeros((*shape, 3), np.uint8), torch.device("cpu"))

    assert set(seen) == {(64, 64)}
