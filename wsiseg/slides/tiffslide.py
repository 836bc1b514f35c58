"""Slides read by tiffslide, wherever fsspec finds them: on the web, in object stores, on disk."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from wsiseg.errors import SlideError, UnreadableError
from wsiseg.geometry import Region, Size, Window
from wsiseg.slides.base import Level, SlideInfo
from wsiseg.slides.mpp import choose_mpp

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from numpy.typing import NDArray

BACKGROUND = (255, 255, 255)


class TiffSlideSlide:
    """A slide that tiffslide reads.

    Its handles are not made for several threads, so each thread opens one of its own.

    Parameters
    ----------
    place
        Path or URL such as ``s3://bucket/slide.svs``.
    why
        Why this reader was chosen, for people.
    slide_mpp
        Pixel size that beats the file's own.

    Raises
    ------
    SlideError
        If it cannot be opened.
    """

    def __init__(self, place: str, *, why: str = "asked for", slide_mpp: float | None = None) -> None:
        self._place = place
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._handles: list[Any] = []
        handle = self._handle()
        properties = {key: str(value) for key, value in handle.properties.items() if value is not None}
        mpp, problem, candidates = choose_mpp(properties, slide_mpp=slide_mpp)
        self._info = SlideInfo(
            path=Path(place),
            reader="tiffslide",
            why=why,
            vendor=properties.get("tiffslide.vendor", "unknown"),
            levels=tuple(
                Level(size=Size(*size), downsample=float(downsample), tile=_tile(properties, index))
                for index, (size, downsample) in enumerate(
                    zip(handle.level_dimensions, handle.level_downsamples, strict=True)
                )
            ),
            mpp=mpp,
            mpp_problem=problem,
            mpp_candidates=candidates,
            background=BACKGROUND,
            bounds=_bounds(properties),
            associated=tuple(sorted(handle.associated_images)),
            properties=properties,
        )

    @property
    def info(self) -> SlideInfo:
        """Return what the slide is."""
        return self._info

    def read_level(self, level: int, window: Window) -> NDArray[np.uint8]:
        """Return pixels of one level, RGB (H, W, 3); see `Slide`."""
        result = np.empty((window.height, window.width, 3), dtype=np.uint8)
        result[:] = BACKGROUND
        size, finest = self._info.levels[level].size, self._info.size
        inside = window.clipped(size)
        if inside.is_empty:
            return result
        # The least level-0 pixel that falls into the level's pixel: tiffslide rounds down.
        where = (-(-inside.x * finest.width // size.width), -(-inside.y * finest.height // size.height))
        try:
            pixels = self._handle().read_region(where, level, (inside.width, inside.height), as_array=True)
        except Exception as error:  # fsspec, tifffile, zarr and the codecs all have errors of their own
            raise UnreadableError(
                f"level {level} cannot be read at {inside.x}, {inside.y}: {error}", where=self._info.name
            ) from error
        result[inside.within(window).slices] = pixels[..., :3]
        return result

    def close(self) -> None:
        """Release the handles of all threads."""
        with self._lock:
            while self._handles:
                self._handles.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self.close()

    def _handle(self) -> Any:  # noqa: ANN401 - tiffslide ships no types
        handle = getattr(self._mine, "handle", None)
        if handle is None:
            # Late: it brings zarr and fsspec, which a local slide never needs.
            from tiffslide import TiffSlide

            try:
                handle = TiffSlide(self._place)
            except ImportError as error:
                raise SlideError(
                    f"reading from there needs a package that is not installed: {error}",
                    where=self._place,
                    mend="pip install 'wsiseg[remote]'",
                ) from error
            except Exception as error:  # see read_level
                raise SlideError(
                    f"tiffslide cannot open it: {error or type(error).__name__}", where=self._place
                ) from error
            self._mine.handle = handle
            with self._lock:
                self._handles.append(handle)
        return handle


def _tile(properties: Mapping[str, str], level: int) -> Size | None:
    width, height = (properties.get(f"tiffslide.level[{level}].tile-{side}") for side in ("width", "height"))
    return Size(int(width), int(height)) if width and height else None


def _bounds(properties: Mapping[str, str]) -> Region | None:
    values = [properties.get(f"tiffslide.bounds-{side}") for side in ("x", "y", "width", "height")]
    if any(value is None for value in values):
        return None
    return Region(*(int(value) for value in values if value is not None))
