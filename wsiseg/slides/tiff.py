"""The fast reader: tiles of SVS, pyramidal and OME TIFFs, fetched and decoded without OpenSlide."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from wsiseg.errors import SlideError, UnreadableError
from wsiseg.slides import tiff_codecs as codecs
from wsiseg.slides.base import Level, SlideInfo
from wsiseg.slides.mpp import choose_mpp
from wsiseg.slides.tiff_index import read_index
from wsiseg.slides.tile_cache import TileCache

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from wsiseg.geometry import Window
    from wsiseg.slides.tile_cache import Make

CACHE_BYTES = 256 << 20
BACKGROUND = (255, 255, 255)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTile:
    """A tile as the file holds it.

    Parameters
    ----------
    data
        A whole JPEG stream that any decoder shows in the right colours. It covers the full
        tile, beyond the level's edge too.
    colorspace
        What its components are: ``rgb`` or ``ycbcr``.
    """

    data: bytes
    colorspace: str


class TiffSlide:
    """A tiled TIFF whose pixels are those that OpenSlide shows, several times faster.

    Each tile is fetched with one read and decoded once, however many windows touch it,
    as long as it stays among the tiles used last. Threads share the tiles and decode side
    by side.

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
        If the file is no TIFF that can be shown exactly, with the reason.
    """

    def __init__(self, path: Path, *, why: str = "asked for", slide_mpp: float | None = None) -> None:
        index = read_index(path)
        mpp, problem, candidates = choose_mpp(index.properties, slide_mpp=slide_mpp)
        finest = index.levels[0].size
        self._levels = index.levels
        self._decoders = [
            codecs.make_decoder(
                compression=level.compression,
                photometric=codecs.RGB
                if "jpeg2000" in codecs.COMPRESSION_NAMES[level.compression]
                else level.photometric,
                predictor=level.predictor,
                tables=level.tables,
                height=level.tile.height,
                width=level.tile.width,
            )
            for level in index.levels
        ]
        self._info = SlideInfo(
            path=path,
            reader="tiff",
            why=why,
            vendor=index.vendor,
            levels=tuple(
                Level(
                    size=level.size,
                    # The mean of both directions, as OpenSlide counts it.
                    downsample=(finest.width / level.size.width + finest.height / level.size.height) / 2,
                    tile=level.tile,
                    compression=codecs.COMPRESSION_NAMES[level.compression],
                )
                for level in index.levels
            ),
            mpp=mpp,
            mpp_problem=problem,
            mpp_candidates=candidates,
            background=BACKGROUND,
            associated=index.associated,
            properties=index.properties,
        )
        self._cache = TileCache(CACHE_BYTES)
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise SlideError(f"cannot be read: {error.strerror}", where=path) from error

    @property
    def info(self) -> SlideInfo:
        """Return what the slide is."""
        return self._info

    def read_level(self, level: int, window: Window) -> NDArray[np.uint8]:
        """Return pixels of one level, RGB (H, W, 3); see `Slide`."""
        index = self._levels[level]
        width, height = index.tile.width, index.tile.height
        inside = window.clipped(index.size)
        if inside == window and (width, height) == (window.width, window.height):
            column, row = window.x // width, window.y // height
            key = (level, row * index.columns + column)
            if window.x == column * width and window.y == row * height and not self._cache.holds(key):
                # Windows that meet the tiles seldom touch one twice, so neither keep nor copy it.
                return self._read_whole(level, column, row)
        result = np.empty((window.height, window.width, 3), dtype=np.uint8)
        if inside != window:
            result[:] = BACKGROUND
        if inside.is_empty:
            return result
        for row in range(inside.y // height, -(-inside.bottom // height)):
            top, bottom = max(inside.y, row * height), min(inside.bottom, (row + 1) * height)
            for column in range(inside.x // width, -(-inside.right // width)):
                left, right = max(inside.x, column * width), min(inside.right, (column + 1) * width)
                part = result[top - window.y : bottom - window.y, left - window.x : right - window.x]
                if index.counts[row * index.columns + column] == 0:
                    part[:] = BACKGROUND
                    continue
                lease = self._cache.take((level, row * index.columns + column), self._maker(level, column, row))
                try:
                    part[:] = lease.pixels[
                        top - row * height : bottom - row * height, left - column * width : right - column * width
                    ]
                finally:
                    self._cache.give_back(lease)
        return result

    def raw_tile(self, level: int, column: int, row: int) -> RawTile | None:
        """Return a JPEG tile as it is stored, or None where the file holds no pixels.

        Parameters
        ----------
        level
            Index into ``info.levels``, one with ``compression`` "jpeg".
        column, row
            Which tile, counted from the upper left.

        Raises
        ------
        SlideError
            If the level is not compressed by JPEG in colour.
        UnreadableError
            If the bytes are damaged beyond recognition.
        """
        index = self._levels[level]
        if index.compression != codecs.JPEG or index.photometric == codecs.GRAY:
            raise SlideError(f"level {level} holds no colour JPEG tiles", where=self._info.name)
        data = self._bytes(level, row * index.columns + column)
        if data is None:
            return None
        is_rgb = index.photometric == codecs.RGB
        try:
            whole = codecs.standalone_jpeg(data, tables=index.tables, is_rgb=is_rgb)
        except ValueError as error:
            raise self._unreadable(level, column, row, error) from error
        return RawTile(data=whole, colorspace="rgb" if is_rgb else "ycbcr")

    def close(self) -> None:
        """Release the file and the tiles."""
        self._file.close()
        self._cache.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self.close()

    def _maker(self, level: int, column: int, row: int) -> Make:
        def make(buffer: NDArray[np.uint8] | None, /) -> NDArray[np.uint8]:
            return self._decode(level, column, row, buffer)

        return make

    def _read_whole(self, level: int, column: int, row: int) -> NDArray[np.uint8]:
        index = self._levels[level]
        if index.counts[row * index.columns + column] == 0:
            return np.full((index.tile.height, index.tile.width, 3), BACKGROUND, dtype=np.uint8)
        return self._decode(level, column, row, None)

    def _decode(self, level: int, column: int, row: int, buffer: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        data = self._bytes(level, row * self._levels[level].columns + column)
        try:
            return self._decoders[level](data or b"", buffer)
        except Exception as error:  # each codec has errors of its own
            raise self._unreadable(level, column, row, error) from error

    def _bytes(self, level: int, number: int) -> bytes | None:
        index = self._levels[level]
        count = int(index.counts[number])
        if count == 0:
            return None
        try:
            # One call with its own position: threads need neither lock nor handle of their own.
            data = os.pread(self._file.fileno(), count, int(index.offsets[number]))
        except OSError as error:
            raise UnreadableError(f"cannot be read: {error.strerror}", where=self._info.name) from error
        if len(data) < count:
            row, column = divmod(number, index.columns)
            raise self._unreadable(level, column, row, "the file is cut short")
        return data

    def _unreadable(self, level: int, column: int, row: int, why: object) -> UnreadableError:
        size = self._levels[level].tile
        return UnreadableError(
            f"level {level} cannot be read at {column * size.width}, {row * size.height}: {why}", where=self._info.name
        )
