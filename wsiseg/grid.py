"""Cutting a canvas into tiles whose cores partition it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from wsiseg.geometry import Size, Window


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of a grid.

    Parameters
    ----------
    index
        Place in the grid, row by row.
    row, column
        Place in the grid.
    core
        Canvas window that this tile owns; clipped at the canvas edge.
    read
        Canvas window that the tile looks at: the full core plus the halo. Its size is the
        same for all tiles of a grid, so it may reach beyond the canvas.
    """

    index: int
    row: int
    column: int
    core: Window
    read: Window


@dataclass(frozen=True, slots=True)
class Grid(Sequence[Tile]):
    """Tiles whose cores partition a canvas.

    Each position follows from its index; nothing is accumulated.

    Parameters
    ----------
    canvas
        Size of the canvas in pixels.
    core
        Size of a core in canvas pixels.
    halo
        Canvas pixels that a tile looks at beyond its core, on each side.
    """

    canvas: Size
    core: Size
    halo: int

    @property
    def columns(self) -> int:
        """Return the number of tiles in a row."""
        return -(-self.canvas.width // self.core.width)

    @property
    def rows(self) -> int:
        """Return the number of rows of tiles."""
        return -(-self.canvas.height // self.core.height)

    def __len__(self) -> int:
        return self.rows * self.columns

    @overload
    def __getitem__(self, index: int) -> Tile: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tile]: ...
    def __getitem__(self, index: int | slice) -> Tile | Sequence[Tile]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        row, column = divmod(index % len(self), self.columns)
        return self.at(row, column)

    def at(self, row: int, column: int) -> Tile:
        """Return the tile in `row` and `column`."""
        full = Window(column * self.core.width, row * self.core.height, self.core.width, self.core.height)
        return Tile(row * self.columns + column, row, column, full.clipped(self.canvas), full.grown(self.halo))
