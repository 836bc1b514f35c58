"""Bare glass: pixels that are white, which the network never learnt and which belong to no class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wsiseg.white import bright_spots

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from wsiseg.geometry import Window
    from wsiseg.grid import Tile
    from wsiseg.inference.walk import Walk
    from wsiseg.white import WhiteRule


class Glass:
    """What is white, tile by tile, for as long as the walk needs it.

    Each tile judges its own core, and a spot is as large as it is on the whole canvas: what is white does not depend on
    how the canvas was cut.

    Parameters
    ----------
    walk
        The geometry.
    rule
        What counts as white.
    read
        Gives RGB, uint8 (H, W, 3), of a window of the canvas.
    """

    def __init__(self, walk: Walk, rule: WhiteRule, read: Callable[[Window], NDArray[np.uint8]]) -> None:
        self._walk = walk
        self._rule = rule
        self._read = read
        self._cores: dict[tuple[int, int], NDArray[np.bool_]] = {}

    def look(self, tile: Tile, pixels: NDArray[np.uint8]) -> None:
        """Keep what is white in the core of a tile; for several threads at once.

        Parameters
        ----------
        tile
            The tile.
        pixels
            What it reads, uint8 (H, W, 3).
        """
        seen = tile.read.clipped(self._walk.canvas)
        white, is_sure = self._judged(tile.core, seen, pixels[seen.within(tile.read).slices])
        margin = max(1, self._walk.grid.halo)
        # Rare: a thread of bright pixels that is as long as the halo. It is followed step by step, as a rule may ask
        # for areas that are wider than memory. As far from the core as an area has pixels, none is too small.
        while not is_sure:
            margin = min(2 * margin, self._rule.min_area_px)
            seen = tile.core.grown(margin).clipped(self._walk.canvas)
            white, is_sure = self._judged(tile.core, seen, self._read(seen))
        if white.any():
            self._cores[tile.row, tile.column] = white

    def within(self, window: Window) -> NDArray[np.bool_]:
        """Return which pixels of `window` are white, (H, W), by the tiles that were looked at."""
        white = np.zeros((window.height, window.width), dtype=np.bool_)
        core = self._walk.core_px
        for row in range(window.y // core, -(-window.bottom // core)):
            for column in range(window.x // core, -(-window.right // core)):
                if (row, column) in self._cores:
                    cell = self._walk.grid.at(row, column).core
                    part = cell.intersection(window)
                    white[part.within(window).slices] = self._cores[row, column][part.within(cell).slices]
        return white

    def forget(self, row: int) -> None:
        """Give up a row of tiles."""
        for column in range(self._walk.grid.columns):
            self._cores.pop((row, column), None)

    def _judged(self, core: Window, seen: Window, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], bool]:
        """Return what is white in a core, and whether more pixels than are seen could not change it."""
        spots, areas = bright_spots(pixels, self._rule)
        is_large = areas >= self._rule.min_area_px
        is_large[0] = False
        inner = spots[core.within(seen).slices]
        canvas = self._walk.canvas
        cut = [
            edge
            for edge, is_open in (
                (spots[0], seen.y > 0),
                (spots[-1], seen.bottom < canvas.height),
                (spots[:, 0], seen.x > 0),
                (spots[:, -1], seen.right < canvas.width),
            )
            if is_open
        ]
        is_doubtful = np.zeros(len(areas), dtype=np.bool_)
        is_doubtful[np.concatenate([*cut, spots[0, :0]])] = True
        is_doubtful &= ~is_large
        is_doubtful[0] = False
        return is_large[inner], not (is_doubtful.any() and is_doubtful[inner].any())
