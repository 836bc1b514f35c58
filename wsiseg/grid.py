"""Cutting a canvas into tiles whose cores partition it, or into patches that cover it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np

from wsiseg.geometry import Size, Window

if TYPE_CHECKING:
    from numpy.typing import NDArray


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


def patch_windows(canvas: Size, *, patch_px: int, stride_px: int) -> NDArray[np.int64]:
    """Return the upper left corners (x, y) of the patches that cover a canvas, row by row, (N, 2).

    The last ones may reach beyond the canvas; each position comes from its index.
    """
    overlap = patch_px - stride_px
    columns, rows = (max(1, -(-(length - overlap) // stride_px)) for length in (canvas.width, canvas.height))
    row, column = np.divmod(np.arange(columns * rows, dtype=np.int64), columns)
    return np.stack([column, row], axis=1) * stride_px


def parse_overlap(value: object) -> object:
    """Return 0.25 for "0.25" and "25%", 64 for "64", and what is neither text nor number as it is.

    Raises
    ------
    ValueError
        If it is no number or leaves nothing of a patch; or if it is 1 or more and not written as a whole
        number: whoever writes 2.0 hardly means two pixels.
    """
    if isinstance(value, str):
        text = value.strip()
        if not text.endswith("%"):
            return parse_overlap(int(text) if text.isdecimal() else _number(text))
        share = _number(text[:-1]) / 100
        if share >= 1:
            raise ValueError(f"an overlap of {text} leaves nothing of a patch")
        return share
    if isinstance(value, float) and value >= 1:
        raise ValueError("an overlap is whole pixels, such as 64, or a share below 1, such as 0.25 or 25%")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"an overlap is a number of pixels or a share, not {text!r}") from None


def overlap_px(overlap: float, patch_px: int) -> int:
    """Return what neighbouring patches share in pixels, from pixels or a share of the patch.

    Raises
    ------
    ValueError
        If it is neither whole pixels nor a share below 1, or leaves nothing of a patch.
    """
    pixels = round(overlap * patch_px) if overlap < 1 else int(overlap)
    if overlap >= 1 and overlap != pixels:
        raise ValueError(f"overlap must be whole pixels or a share below 1, not {overlap:g}")
    if pixels >= patch_px:
        raise ValueError(f"an overlap of {pixels} px leaves nothing of a patch of {patch_px} px")
    return pixels
