"""A slide in memory, for tests and for pixels that were never a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from wsiseg.errors import UnreadableError
from wsiseg.geometry import Size, Window
from wsiseg.slides.base import Level, Mpp, SlideInfo

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from numpy.typing import NDArray


class ArraySlide:
    """A slide whose level 0 is an array.

    Parameters
    ----------
    pixels
        RGB uint8 (H, W, 3).
    mpp
        Micrometres per pixel, or None where there is no physical scale.
    downsamples
        Integer downsamples of further levels, made by block means.
    broken
        Level-0 windows that raise `UnreadableError` when touched, as a damaged file would.
    background
        Colour outside the array, RGB.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        *,
        mpp: float | None = None,
        downsamples: Sequence[int] = (),
        broken: Sequence[Window] = (),
        background: tuple[int, int, int] = (255, 255, 255),
    ) -> None:
        self._levels = [pixels, *(_block_mean(pixels, factor) for factor in downsamples)]
        self._broken = tuple(broken)
        levels = tuple(
            Level(size=Size(array.shape[1], array.shape[0]), downsample=float(factor))
            for array, factor in zip(self._levels, (1, *downsamples), strict=True)
        )
        self._info = SlideInfo(
            path=None,
            reader="array",
            why="in memory",
            levels=levels,
            mpp=None if mpp is None else Mpp(value=mpp, x=mpp, y=mpp, source="given"),
            mpp_problem="a slide in memory has the pixel size it is given" if mpp is None else None,
            background=background,
        )

    @property
    def info(self) -> SlideInfo:
        """Return what the slide is."""
        return self._info

    def read_level(self, level: int, window: Window) -> NDArray[np.uint8]:
        """Return pixels of one level, RGB (H, W, 3); see `Slide`."""
        array = self._levels[level]
        factor = self._info.levels[level].downsample
        for hole in self._broken:
            touched = Window.from_edges(
                int(hole.x // factor), int(hole.y // factor), -int(-hole.right // factor), -int(-hole.bottom // factor)
            )
            if not touched.intersection(window).is_empty:
                raise UnreadableError("a tile cannot be decoded", where=self._info.name)
        result = np.empty((window.height, window.width, 3), dtype=np.uint8)
        result[:] = self._info.background
        inside = window.clipped(self._info.levels[level].size)
        if not inside.is_empty:
            result[inside.within(window).slices] = array[inside.slices]
        return result

    def close(self) -> None:
        """Do nothing; memory needs no closing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self.close()


def _block_mean(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    blocks = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    means: NDArray[np.uint8] = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    return means
