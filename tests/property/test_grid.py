"""Cores partition the canvas; reads are cores with their halo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.geometry import Size
from wsiseg.grid import Grid

sizes = st.builds(Size, st.integers(1, 60), st.integers(1, 60))
cores = st.builds(Size, st.integers(1, 25), st.integers(1, 25))


@given(sizes, cores, st.integers(0, 5))
def test_every_pixel_has_one_owner(canvas: Size, core: Size, halo: int) -> None:
    owners = np.zeros((canvas.height, canvas.width), dtype=int)
    for tile in Grid(canvas, core, halo):
        owners[tile.core.slices] += 1
        assert tile.read.size == Size(core.width + 2 * halo, core.height + 2 * halo)

    assert (owners == 1).all()


@given(sizes, cores)
def test_a_tile_follows_from_its_index(canvas: Size, core: Size) -> None:
    grid = Grid(canvas, core, 0)

    assert [tile.index for tile in grid] == list(range(len(grid)))
    assert grid[-1] == grid[len(grid) - 1]
    with pytest.raises(IndexError):
        grid[len(grid)]
