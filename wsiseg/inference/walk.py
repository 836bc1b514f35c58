"""The order in which a canvas is worked off, and what has to be kept meanwhile.

Tiles are walked row by row, left to right. Three partitions of the canvas follow each
other at a fixed distance, so that each step only needs what has been there already:

*cells*, the cores of the tiles; *blocks*, where the blended output is final because all
tiles that reach into it are done: cells moved up and left by the reach of a tile into its
neighbours; *units*, whose objects can be found because the output around them is final:
blocks moved up and left by a margin. A unit with the margin around it is its *context*.
A *band* is a row of shards of the mask store, a whole number of rows of cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsiseg.geometry import Window

if TYPE_CHECKING:
    from wsiseg.geometry import Size
    from wsiseg.grid import Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where work begins, at the top or in the middle of a slide.

    Parameters
    ----------
    tile_row
        First row of tiles to compute.
    unit_row
        First row of units to look for objects in.
    exact_row
        First row of units whose objects are complete; those above only claim their pixels.
    """

    tile_row: int
    unit_row: int
    exact_row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """The geometry of one pass over a canvas.

    Parameters
    ----------
    grid
        Tiles; their cores are the cells.
    reach_px
        Canvas pixels that the used output of a tile extends beyond its core; at most half the core.
    margin_px
        Canvas pixels around a unit that its objects depend on; 0 where no objects are looked for.
    band_px
        Height of a band, a multiple of the core.
    """

    grid: Grid
    reach_px: int
    margin_px: int
    band_px: int

    @property
    def canvas(self) -> Size:
        """Return the size of the canvas in pixels."""
        return self.grid.canvas

    @property
    def core_px(self) -> int:
        """Return the side of a cell in pixels."""
        return self.grid.core.width

    @property
    def bands(self) -> int:
        """Return the number of bands."""
        return -(-self.canvas.height // self.band_px)

    def block(self, row: int, column: int) -> Window:
        """Return the window that is final once the tile at `row` and `column` is done."""
        return self._shifted(row, column, self.reach_px)

    def unit(self, row: int, column: int) -> Window:
        """Return the window whose objects can be found once the tile at `row` and `column` is done; may be empty."""
        return self._shifted(row, column, self.reach_px + self.margin_px)

    def context(self, row: int, column: int) -> Window:
        """Return what the objects of a unit are found in."""
        return self.unit(row, column).grown(self.margin_px).clipped(self.canvas)

    def settled(self, row: int, column: int) -> tuple[int, int]:
        """Return the row and column above and left of which no later step paints.

        Rows above the first are settled wholly; rows above the bottom of the unit's row are
        settled as far as the column, once the step at `row` and `column` is painted.
        """
        unit = self.unit(row, column)
        bottom = self.canvas.height if row == self.grid.rows - 1 else unit.bottom - self.margin_px
        right = self.canvas.width if column == self.grid.columns - 1 else unit.right - self.margin_px
        return bottom, right

    def closing_row(self, band: int) -> int:
        """Return the row of tiles after which `band` is complete."""
        bottom = min((band + 1) * self.band_px, self.canvas.height)
        last = self.grid.rows - 1
        return next((row for row in range(last) if self.settled(row, 0)[0] >= bottom), last)

    def start(self, closed_bands: int) -> Start:
        """Return where to begin once the first `closed_bands` bands are on disk.

        What is not on disk must come out as if the work had never been interrupted: that
        takes the units that reach below the closed bands, the units above them, which claim
        pixels first, and the tiles that all of those depend on.
        """
        if closed_bands == 0:
            return Start(tile_row=0, unit_row=0, exact_row=0)
        top = closed_bands * self.band_px
        if self.margin_px == 0:
            row = max(0, (top - self.reach_px) // self.core_px)
            return Start(tile_row=row, unit_row=row, exact_row=row)
        exact = next((row for row in range(self.grid.rows) if self.block(row, 0).bottom > top), self.grid.rows)
        first = max(0, exact - 1)
        needed = self.context(first, 0).y
        return Start(tile_row=max(0, (needed - self.reach_px) // self.core_px), unit_row=first, exact_row=exact)

    def _shifted(self, row: int, column: int, by: int) -> Window:
        def edges(index: int, count: int, length: int) -> tuple[int, int]:
            low = max(0, index * self.core_px - by)
            high = length if index == count - 1 else max(0, (index + 1) * self.core_px - by)
            return low, high

        left, right = edges(column, self.grid.columns, self.canvas.width)
        top, bottom = edges(row, self.grid.rows, self.canvas.height)
        return Window.from_edges(left, top, right, bottom)
