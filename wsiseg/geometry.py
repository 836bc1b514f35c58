"""Places on slides and canvases, and the only way between them.

Two frames exist. A `Region` lies on a slide and is counted in *level-0* pixels.
A `Window` lies on a canvas, a pixel grid of a chosen resolution laid over the
slide. `Scale` turns one into the other. All boxes are half-open: a box covers
x … x + width - 1. Pixel (0, 0) covers 0 … 1 (corner convention).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels of whatever frame it is used in."""

    width: int
    height: int

    @property
    def area(self) -> int:
        """Return the number of pixels."""
        return self.width * self.height

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class _Box:
    x: int
    y: int
    width: int
    height: int

    @classmethod
    def from_edges(cls, left: int, top: int, right: int, bottom: int) -> Self:
        """Return the box between four edges, empty where they cross."""
        return cls(left, top, max(0, right - left), max(0, bottom - top))

    @property
    def right(self) -> int:
        """Return the first column behind the box."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """Return the first row below the box."""
        return self.y + self.height

    @property
    def size(self) -> Size:
        """Return width and height."""
        return Size(self.width, self.height)

    @property
    def is_empty(self) -> bool:
        """Tell whether the box covers no pixel."""
        return self.width <= 0 or self.height <= 0

    def intersection(self, other: Self) -> Self:
        """Return what both boxes cover, possibly empty."""
        return self.from_edges(
            max(self.x, other.x), max(self.y, other.y), min(self.right, other.right), min(self.bottom, other.bottom)
        )

    def grown(self, margin: int) -> Self:
        """Return the box with `margin` more pixels on each side."""
        return type(self)(self.x - margin, self.y - margin, self.width + 2 * margin, self.height + 2 * margin)


@dataclass(frozen=True, slots=True)
class Region(_Box):
    """A box on a slide, in level-0 pixels."""


@dataclass(frozen=True, slots=True)
class Window(_Box):
    """A box on a canvas or on one level of a slide, in pixels of that grid."""

    @property
    def slices(self) -> tuple[slice, slice]:
        """Return the (rows, columns) that cut the window out of an array (H, W, …)."""
        return slice(self.y, self.bottom), slice(self.x, self.right)

    def within(self, outer: Window) -> Window:
        """Return the same window counted from the corner of `outer`."""
        return Window(self.x - outer.x, self.y - outer.y, self.width, self.height)

    def split(self, cell: Size) -> Iterator[Window]:
        """Yield the parts of the window, row by row, that lie in one cell each of the grid of such cells."""
        for top in range(self.y // cell.height * cell.height, self.bottom, cell.height):
            for left in range(self.x // cell.width * cell.width, self.right, cell.width):
                yield Window(left, top, cell.width, cell.height).intersection(self)

    def clipped(self, size: Size) -> Window:
        """Return the part of the window that lies on a grid of `size`."""
        return self.intersection(Window(0, 0, size.width, size.height))


@dataclass(frozen=True, slots=True)
class Scale:
    """Level-0 pixels per canvas pixel.

    Parameters
    ----------
    downsample
        Level-0 pixels along one edge of a canvas pixel; below 1 the canvas is finer than the slide.
    """

    downsample: float

    def region(self, window: Window) -> Region:
        """Return the place of `window` on the slide.

        Edges are rounded, not origin and extent, so windows that touch become
        regions that touch, at any downsample.
        """
        return Region.from_edges(
            round(window.x * self.downsample),
            round(window.y * self.downsample),
            round(window.right * self.downsample),
            round(window.bottom * self.downsample),
        )

    def window(self, region: Region) -> Window:
        """Return the place of `region` on the canvas, edges rounded."""
        return Window.from_edges(
            round(region.x / self.downsample),
            round(region.y / self.downsample),
            round(region.right / self.downsample),
            round(region.bottom / self.downsample),
        )


@dataclass(frozen=True, slots=True)
class Canvas:
    """A pixel grid of a chosen resolution that covers a whole slide.

    Canvas pixel (x, y) covers the level-0 square from (x, y) * downsample to
    (x + 1, y + 1) * downsample exactly, fractions included.

    Parameters
    ----------
    size
        Pixels of the canvas.
    scale
        Level-0 pixels per canvas pixel.
    mpp
        Micrometres per canvas pixel, or None where the slide has no physical scale.
    """

    size: Size
    scale: Scale
    mpp: float | None

    @classmethod
    def over(cls, slide_size: Size, *, slide_mpp: float | None, mpp: float | None) -> Canvas:
        """Return the canvas of resolution `mpp` over a slide of `slide_size` level-0 pixels.

        Without `mpp` the canvas has the slide's own resolution. The last row and
        column may reach beyond the slide by less than one canvas pixel.

        Raises
        ------
        ValueError
            If `mpp` is asked of a slide without `slide_mpp`.
        """
        if mpp is None:
            return cls(slide_size, Scale(1.0), slide_mpp)
        if slide_mpp is None:
            raise ValueError("a target resolution needs the slide's own")
        downsample = mpp / slide_mpp
        # 1e-9: a size that divides evenly must not gain a pixel by floating point.
        size = Size(
            max(1, math.ceil(slide_size.width / downsample - 1e-9)),
            max(1, math.ceil(slide_size.height / downsample - 1e-9)),
        )
        return cls(size, Scale(downsample), mpp)

    @property
    def window(self) -> Window:
        """Return the window that covers the canvas."""
        return Window(0, 0, self.size.width, self.size.height)
