"""Joining the outputs of overlapping tiles while only the seams of one row stay in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.inference.walk import Walk

Blend: TypeAlias = Literal["none", "gaussian", "hann"]


def blend_weights(blend: Blend, *, core_px: int, reach_px: int, tile_px: int) -> NDArray[np.float32]:
    """Return the weights along one side of a tile's used output, (core + 2 * reach,).

    Those of two neighbours add up to 1 wherever both see a pixel, and a pixel that one tile
    alone sees has weight 1, so nothing is lost to rounding away from the seams.
    """
    offsets = np.arange(-reach_px, core_px + reach_px) + 0.5 - core_px / 2

    def bell(offset: NDArray[np.floating]) -> NDArray[np.floating]:
        if blend == "hann":
            return np.asarray(np.cos(np.clip(offset / tile_px, -0.5, 0.5) * np.pi) ** 2 + 1e-12)
        return np.asarray(np.exp(-0.5 * (8 * offset / tile_px) ** 2) + 1e-12)

    weights = np.ones(core_px + 2 * reach_px)
    if blend != "none" and reach_px:
        seam = offsets[: 2 * reach_px]
        weights[: 2 * reach_px] = bell(seam) / (bell(seam) + bell(seam + core_px))
        weights[-2 * reach_px :] = weights[: 2 * reach_px][::-1]
    return weights.astype(np.float32)


class Blender:
    """Adds up weighted tiles and gives out each block once it is final.

    Tiles are given row by row, left to right, missing ones too. The order of additions
    depends on the place of a pixel alone.

    Parameters
    ----------
    walk
        The geometry.
    channels
        Channels of a tile's output.
    blend
        Shape of the weights; with ``none`` the reach of the walk must be 0.
    tile_px
        Side of a tile, which scales the weights.
    """

    def __init__(self, walk: Walk, *, channels: int, blend: Blend, tile_px: int) -> None:
        self._walk = walk
        self._core, self._reach = walk.core_px, walk.reach_px
        line = blend_weights(blend, core_px=self._core, reach_px=self._reach, tile_px=tile_px)
        self._weights = line[:, None] * line[None, :]
        seam = 2 * self._reach
        columns = walk.grid.columns
        # Weighted sums on the seam below the row above; the last channel adds up the weights.
        self._above = np.zeros((channels + 1, seam, columns * self._core + seam), dtype=np.float32)
        self._left: NDArray[np.float32] | None = None
        self._had = self._has = np.zeros(columns + 2, dtype=np.bool_)

    def push(self, row: int, column: int, output: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        """Add a tile and return the block that is now final.

        Parameters
        ----------
        row, column
            Place of the tile.
        output
            (channels, core + 2 * reach, core + 2 * reach), or None for a tile that is left out.

        Returns
        -------
        NDArray[np.float32] or None
            (channels, height, width) of ``walk.block(row, column)``, 0 where no tile has been;
            None where that is everywhere.
        """
        block = self._walk.block(row, column)
        if self._reach == 0:
            return None if output is None else output[:, : block.height, : block.width]
        if column == 0:
            self._had, self._has = self._has, np.zeros_like(self._has)
            self._left = None
        self._has[column + 1] = output is not None
        is_touched = output is not None or self._left is not None or bool(self._had[column : column + 3].any())
        if not is_touched:
            return None
        sums = self._add(column, output)
        # The canvas begins in the middle of the first block, and ends in the middle of the last.
        top, left = (self._reach if row == 0 else 0), (self._reach if column == 0 else 0)
        final = sums[:, top : top + block.height, left : left + block.width]
        weight = final[-1]
        mean: NDArray[np.float32] = np.divide(final[:-1], weight, out=np.zeros_like(final[:-1]), where=weight > 0)
        return mean

    def _add(self, column: int, output: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Return the sums over the tile's used window, and keep those of its seams for later."""
        core, seam = self._core, 2 * self._reach
        side = core + seam
        sums = np.zeros((len(self._above), side, side), dtype=np.float32)
        if output is not None:
            np.multiply(output, self._weights, out=sums[:-1])
            sums[-1] = self._weights
        start = column * core
        if column == 0:
            sums[:, :seam, :seam] += self._above[:, :, :seam]
        elif self._left is not None:
            sums[:, :, :seam] += self._left
        sums[:, :seam, seam:] += self._above[:, :, start + seam : start + side]
        left = sums[:, :, core:]
        self._left = left.copy() if left[-1].any() else None
        is_last = column == self._walk.grid.columns - 1
        width = side if is_last else core
        self._above[:, :, start : start + width] = sums[:, core:, :width]
        return sums
