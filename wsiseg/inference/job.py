"""One slide's work: what is to be done, where it goes and what of it is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from wsiseg.geometry import Window
from wsiseg.inference.holes import union
from wsiseg.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.geometry import Canvas
    from wsiseg.inference.walk import Walk
    from wsiseg.journal import Journal
    from wsiseg.slides.base import Slide
    from wsiseg.stores.mask_store import MaskStore
    from wsiseg.white import WhiteRule


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """The segmentation of one slide.

    Parameters
    ----------
    slide, canvas
        Where the pixels come from.
    walk
        The geometry.
    is_tissue
        bool (rows, columns), the cells to analyse.
    store
        Where labels go.
    journal
        Where closed bands are noted.
    parts
        Folder for the tables of objects, one for each row of units.
    white
        What is bare glass and gets no class, or None for nothing.
    holes
        By row and column of cells, the windows in them that are not analysed because they cannot be read.
    """

    slide: Slide
    canvas: Canvas
    walk: Walk
    is_tissue: NDArray[np.bool_]
    store: MaskStore
    journal: Journal
    parts: Path
    white: WhiteRule | None = None
    holes: dict[tuple[int, int], list[Window]] = field(init=False)
    _noted: set[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.holes = {}
        core = self.walk.core_px
        for record in self.journal.records:
            for edges in record.get("unreadable", ()):
                hole = Window(*edges)
                self.holes.setdefault((hole.y // core, hole.x // core), []).append(hole)
        self._noted = set(self.holes)

    @property
    def closed_bands(self) -> int:
        """Return how many bands are on disk."""
        return sum("band" in record for record in self.journal.records)

    @property
    def first_ids(self) -> dict[int, int]:
        """Return the id of the first object of each row of units that has been reached."""
        return {row: first for record in self.journal.records for row, first in record.get("first_ids", ())}

    @property
    def analysed_px(self) -> int:
        """Return the canvas pixels that were analysed."""
        return sum(self._core(int(row), int(column)).size.area for row, column in np.argwhere(self.is_tissue)) - (
            self.unreadable_px
        )

    @property
    def unreadable_px(self) -> int:
        """Return the canvas pixels that were to be analysed and could not be read."""
        return sum(self._lost(*cell) for cell in self.holes)

    @property
    def readable(self) -> NDArray[np.float64]:
        """Return the share of each cell that could be read, (rows, columns)."""
        shares = np.ones(self.is_tissue.shape)
        for cell in self.holes:
            shares[cell] -= self._lost(*cell) / self._core(*cell).size.area
        return shares

    def close_band(self, band: int, first_ids: Sequence[tuple[int, int]]) -> None:
        """Note that a band is on disk, with the rows begun since the last one."""
        fresh = [hole for cell, holes in self.holes.items() if cell not in self._noted for hole in holes]
        unreadable = [[hole.x, hole.y, hole.width, hole.height] for hole in fresh]
        self._noted = set(self.holes)
        self.journal.append({"band": band, "first_ids": [list(pair) for pair in first_ids], "unreadable": unreadable})

    def cells(self, flags: NDArray[np.bool_], window: Window) -> NDArray[np.bool_]:
        """Return the flag of the cell that each pixel of `window` belongs to, (H, W)."""
        core = self.walk.core_px
        rows = np.arange(window.y, window.bottom) // core
        columns = np.arange(window.x, window.right) // core
        # Line by line: a gather of single pixels takes ten times as long.
        flagged: NDArray[np.bool_] = flags.take(columns, axis=1).take(rows, axis=0)
        return flagged

    def unreadable(self, window: Window) -> NDArray[np.bool_]:
        """Return which pixels of `window` could not be read, (H, W)."""
        core = self.walk.core_px
        rows = range(window.y // core, -(-window.bottom // core))
        columns = range(window.x // core, -(-window.right // core))
        return union([hole for row in rows for column in columns for hole in self.holes.get((row, column), ())], window)

    def has_tissue(self, window: Window) -> bool:
        """Tell whether `window` touches a cell that is to be analysed."""
        core = self.walk.core_px
        rows = slice(window.y // core, -(-window.bottom // core))
        return bool(self.is_tissue[rows, window.x // core : -(-window.right // core)].any())

    def part(self, row: int) -> Path:
        """Return the file with the objects of one row of units."""
        return self.parts / f"objects-{row:06d}.npy"

    def objects(self) -> Objects:
        """Return all objects in order of id."""
        return Objects.concat(Objects.load(self.part(row)) for row in range(self.walk.grid.rows))

    def _core(self, row: int, column: int) -> Window:
        return self.walk.grid.at(row, column).core

    def _lost(self, row: int, column: int) -> int:
        return int(np.count_nonzero(union(self.holes[row, column], self._core(row, column))))
