"""Blending is a weighted mean of all tiles that see a pixel, whichever tiles there are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.geometry import Size, Window
from wsiseg.grid import Grid
from wsiseg.inference.blending import Blend, Blender, blend_weights
from wsiseg.inference.walk import Walk


@pytest.mark.parametrize("blend", ["gaussian", "hann"])
def test_weights_of_neighbours_add_up_to_one(blend: Blend) -> None:
    weights = blend_weights(blend, core_px=40, reach_px=12, tile_px=72)

    total = weights[:24] + weights[40:]
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert (weights[24:40] == 1).all()
    assert weights[0] < 0.1
    assert weights[23] > 0.9


@settings(max_examples=60)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(4, 12), st.integers(0, 2), st.integers(0, 1000))
def test_blocks_hold_the_weighted_mean_of_all_tiles(width: int, height: int, core: int, reach: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    is_sparse = seed % 2 == 0
    grid = Grid(Size(width, height), Size(core, core), halo=reach + 1)
    walk = Walk(grid=grid, reach_px=reach, margin_px=0, band_px=core)
    tile_px = core + 2 * reach + 2
    side = core + 2 * reach
    outputs = {
        tile.index: None if is_sparse and rng.random() < 0.5 else rng.random((2, side, side), dtype=np.float32)
        for tile in grid
    }
    line = blend_weights("gaussian", core_px=core, reach_px=reach, tile_px=tile_px)
    frame = Window(-reach, -reach, grid.columns * core + 2 * reach, grid.rows * core + 2 * reach)
    sums = np.zeros((2, frame.height, frame.width))
    total = np.zeros((frame.height, frame.width))
    blender = Blender(walk, channels=2, blend="gaussian", tile_px=tile_px)
    result = np.zeros((2, height, width))
    covered = np.zeros((height, width), dtype=int)

    for tile in grid:
        output = outputs[tile.index]
        if output is not None:
            used = Window(tile.column * core - reach, tile.row * core - reach, side, side).within(frame)
            sums[(slice(None), *used.slices)] += output * np.outer(line, line)
            total[used.slices] += np.outer(line, line)
        block = blender.push(tile.row, tile.column, output)
        place = walk.block(tile.row, tile.column)
        covered[place.slices] += 1
        if block is not None:
            result[(slice(None), *place.slices)] = block

    canvas = Window(0, 0, width, height).within(frame).slices
    expected = sums / np.where(total > 0, total, 1)
    np.testing.assert_allclose(result, expected[(slice(None), *canvas)], atol=1e-5)
    assert (covered == 1).all()
