"""One slide's work: what is to be done, where it goes and what of it is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from wsiseg.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.geometry import Canvas, Window
    from wsiseg.inference.walk import Walk
    from wsiseg.journal import Journal
    from wsiseg.slides.base import Slide
    from wsiseg.stores.mask_store import MaskStore


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
    is_unreadable
        bool (rows, columns), the cells that turned out not to be readable.
    """

    slide: Slide
    canvas: Canvas
    walk: Walk
    is_tissue: NDArray[np.bool_]
    store: MaskStore
    journal: Journal
    parts: Path
    is_unreadable: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.is_unreadable = np.zeros_like(self.is_tissue)
        for record in self.journal.records:
            for row, column in record.get("unreadable", ()):
                self.is_unreadable[row, column] = True

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
        """Return the canvas pixels that belong to cells that were analysed."""
        return self._area(self.is_tissue & ~self.is_unreadable)

    @property
    def unreadable_px(self) -> int:
        """Return the canvas pixels that belong to cells that could not be read."""
        return self._area(self.is_unreadable)

    def close_band(self, band: int, first_ids: Sequence[tuple[int, int]]) -> None:
        """Note that a band is on disk, with the rows begun since the last one."""
        unreadable = np.argwhere(self.is_unreadable).tolist()
        self.journal.append({"band": band, "first_ids": [list(pair) for pair in first_ids], "unreadable": unreadable})

    def cells(self, flags: NDArray[np.bool_], window: Window) -> NDArray[np.bool_]:
        """Return the flag of the cell that each pixel of `window` belongs to, (H, W)."""
        core = self.walk.core_px
        rows = np.arange(window.y, window.bottom) // core
        columns = np.arange(window.x, window.right) // core
        return flags[np.ix_(rows, columns)]

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

    def _area(self, flags: NDArray[np.bool_]) -> int:
        return sum(self.walk.grid.at(int(row), int(column)).core.size.area for row, column in np.argwhere(flags))
