"""The slide protocol: an open slide is described once and read by level."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from wsiseg.geometry import Region, Size, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class MppCandidate:
    """One statement in a file about its pixel size.

    Parameters
    ----------
    source
        Where it stands, such as ``openslide.mpp-x`` or ``--slide-mpp``.
    x, y
        Micrometres per level-0 pixel.
    is_guess
        Whether it is only derived from an objective power.
    """

    source: str
    x: float
    y: float
    is_guess: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mpp:
    """The pixel size of a slide with its source.

    Parameters
    ----------
    value
        Micrometres per level-0 pixel, mean of x and y.
    x, y
        Micrometres per level-0 pixel along each axis.
    source
        The candidate that was taken.
    warnings
        What a user should know about it, one line each.
    """

    value: float
    x: float
    y: float
    source: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One resolution of a slide.

    Parameters
    ----------
    size
        Pixels of the level.
    downsample
        Level-0 pixels per level pixel, at least 1.
    tile
        Size of the file's own tiles, or None where it is not tiled.
    compression
        Name of the codec, such as ``jpeg``, or None where unknown.
    """

    size: Size
    downsample: float
    tile: Size | None = None
    compression: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideInfo:
    """What a slide is.

    Parameters
    ----------
    path
        The file or folder, or None for a slide in memory.
    reader
        Name of the adapter that opened it.
    why
        Why this adapter was chosen, for people.
    vendor
        Scanner family, such as ``aperio``.
    levels
        Resolutions, finest first; the first has downsample 1.
    mpp
        Pixel size, or None where none was found or where those found contradict each other.
    mpp_problem
        Why `mpp` is None, for people; None where it is known.
    mpp_candidates
        All that the file states about its pixel size, best first.
    background
        Colour outside the scanned area, RGB.
    bounds
        The scanned part in level-0 pixels where the file names one.
    associated
        Names of the label, macro and thumbnail images.
    properties
        The file's own metadata as text.
    """

    path: Path | None
    reader: str
    why: str = ""
    vendor: str = "unknown"
    levels: tuple[Level, ...]
    mpp: Mpp | None = None
    mpp_problem: str | None = None
    mpp_candidates: tuple[MppCandidate, ...] = ()
    background: tuple[int, int, int] = (255, 255, 255)
    bounds: Region | None = None
    associated: tuple[str, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> Size:
        """Return the size of level 0."""
        return self.levels[0].size

    @property
    def name(self) -> str:
        """Return the file name, for messages."""
        return self.path.name if self.path is not None else "slide in memory"


class Slide(Protocol):
    """An open slide. Reading one level is its only operation; the rest are functions elsewhere.

    Reading is safe from several threads at once.
    """

    @property
    def info(self) -> SlideInfo:
        """Return what the slide is."""
        ...

    def read_level(self, level: int, window: Window) -> NDArray[np.uint8]:
        """Return pixels of one level.

        Parameters
        ----------
        level
            Index into ``info.levels``.
        window
            In pixels of that level; may reach beyond it.

        Returns
        -------
        NDArray[np.uint8]
            RGB, (H, W, 3), filled with the slide's background outside the level and where
            the file holds no pixels.

        Raises
        ------
        UnreadableError
            If stored pixels in the window cannot be decoded.
        """
        ...

    def close(self) -> None:
        """Release the file."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
