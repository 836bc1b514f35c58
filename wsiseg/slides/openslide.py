"""Slides read by OpenSlide: the widest choice of formats, and the oracle for the fast reader."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

import numpy as np
import openslide

from wsiseg.errors import SlideError, UnreadableError
from wsiseg.geometry import Region, Size, Window
from wsiseg.slides.base import Level, SlideInfo
from wsiseg.slides.dicom import hides_ycbcr
from wsiseg.slides.mpp import choose_mpp
from wsiseg.slides.tiff_codecs import ycbcr_to_rgb

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

CACHE_BYTES = 128 << 20


class OpenSlideSlide:
    """A slide that OpenSlide reads.

    A level whose downsample is not a whole number is placed to within half a level-0 pixel,
    since OpenSlide takes level-0 coordinates only.

    Parameters
    ----------
    path
        The slide.
    why
        Why this reader was chosen, for people.
    slide_mpp
        Pixel size that beats the file's own.

    Raises
    ------
    SlideError
        If OpenSlide cannot open it.
    """

    def __init__(self, path: Path, *, why: str = "asked for", slide_mpp: float | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._cache = openslide.OpenSlideCache(CACHE_BYTES)
        self._handle = self._open()
        properties = dict(self._handle.properties)
        self._hides_ycbcr = hides_ycbcr(path, properties)
        if self._hides_ycbcr:
            why += "; says RGB, but its JPEG is YCbCr, which is converted"
        mpp, problem, candidates = choose_mpp(properties, slide_mpp=slide_mpp)
        self._info = SlideInfo(
            path=path,
            reader="openslide",
            why=why,
            vendor=properties.get("openslide.vendor", "unknown"),
            levels=_levels(self._handle),
            mpp=mpp,
            mpp_problem=problem,
            mpp_candidates=candidates,
            background=_background(properties),
            bounds=_bounds(properties),
            associated=tuple(sorted(key.split(".")[2] for key in properties if _is_associated(key))),
            properties=properties,
        )

    @property
    def info(self) -> SlideInfo:
        """Return what the slide is."""
        return self._info

    def read_level(self, level: int, window: Window) -> NDArray[np.uint8]:
        """Return pixels of one level, RGB (H, W, 3); see `Slide`."""
        result = np.empty((window.height, window.width, 3), dtype=np.uint8)
        result[:] = self._info.background
        inside = window.clipped(self._info.levels[level].size)
        if not inside.is_empty:
            rgba = self._read(level, inside)
            colours = ycbcr_to_rgb(rgba[..., :3]) if self._hides_ycbcr else rgba[..., :3]
            result[inside.within(window).slices] = _flatten(colours, rgba[..., 3:], self._info.background)
        return result

    def close(self) -> None:
        """Release the file."""
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self.close()

    def _open(self) -> openslide.OpenSlide:
        try:
            handle = openslide.OpenSlide(self._path)
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise SlideError("OpenSlide does not know this format", where=self._path) from error
        except openslide.OpenSlideError as error:
            raise SlideError(f"OpenSlide cannot open it: {error}", where=self._path) from error
        handle.set_cache(self._cache)
        return handle

    def _read(self, level: int, window: Window) -> NDArray[np.uint8]:
        downsample = self._info.levels[level].downsample
        where = (round(window.x * downsample), round(window.y * downsample))
        handle = self._handle
        try:
            return np.asarray(handle.read_region(where, level, (window.width, window.height)))
        except openslide.OpenSlideError:
            # A handle that failed once refuses everything, also what other threads ask of it.
            with self._lock:
                if self._handle is handle:
                    self._handle = self._open()
        fresh = self._open()
        try:
            return np.asarray(fresh.read_region(where, level, (window.width, window.height)))
        except openslide.OpenSlideError as error:
            raise UnreadableError(
                f"level {level} cannot be read at {window.x}, {window.y}: {error}", where=self._info.name
            ) from error
        finally:
            fresh.close()


def _levels(handle: openslide.OpenSlide) -> tuple[Level, ...]:
    return tuple(
        Level(
            size=Size(*handle.level_dimensions[index]),
            downsample=float(handle.level_downsamples[index]),
            tile=_tile(handle.properties, index),
        )
        for index in range(handle.level_count)
    )


def _tile(properties: Mapping[str, str], level: int) -> Size | None:
    width, height = (properties.get(f"openslide.level[{level}].tile-{side}") for side in ("width", "height"))
    return Size(int(width), int(height)) if width and height else None


def _is_associated(key: str) -> bool:
    return key.startswith("openslide.associated.") and key.endswith(".width")


def _background(properties: Mapping[str, str]) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(properties.get("openslide.background-color", "FFFFFF"))
    return red, green, blue


def _bounds(properties: Mapping[str, str]) -> Region | None:
    values = [properties.get(f"openslide.bounds-{side}") for side in ("x", "y", "width", "height")]
    if any(value is None for value in values):
        return None
    return Region(*(int(value) for value in values if value is not None))


def _flatten(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8], background: tuple[int, int, int]) -> NDArray[np.uint8]:
    if alpha.min() == 255:  # noqa: PLR2004 - opaque
        return rgb
    share = alpha.astype(np.float32) / 255
    return np.rint(rgb * share + np.array(background, dtype=np.float32) * (1 - share)).astype(np.uint8)
