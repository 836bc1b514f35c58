"""The job behind ``wsiseg info``: what slides are, and whether the fast reader shows them exactly."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsiseg.errors import SlideError, SomeFailedError, UnreadableError, WsisegError
from wsiseg.geometry import Window
from wsiseg.manifest import find_slides
from wsiseg.slides.mpp import is_plausible
from wsiseg.slides.open import open_slide
from wsiseg.slides.openslide import OpenSlideSlide
from wsiseg.slides.reading import best_level
from wsiseg.urls import url_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.slides.base import Level, Slide, SlideInfo

USUAL_MPP = 0.5
TILES_PER_LEVEL = 8
TILE_PX = 256
CORNER_PX = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Whether pixels can be read, and how those of the fast reader compare with OpenSlide's.

    Parameters
    ----------
    tiles, different, unreadable
        Tiles looked at, those of them that differ, and those that cannot be read, by OpenSlide neither.
    note
        Why nothing was compared, or None.
    """

    tiles: int = 0
    different: int = 0
    unreadable: int = 0
    note: str | None = None

    @property
    def is_unreadable(self) -> bool:
        """Tell whether nothing at all could be read."""
        return 0 < self.tiles == self.unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideReport:
    """What is known of one slide: `info` if it can be opened, `error` if it cannot be opened or read."""

    path: Path
    info: SlideInfo | None = None
    error: WsisegError | None = None
    verification: Verification | None = None

    @property
    def size_mm(self) -> tuple[float, float] | None:
        """Return width and height in millimetres, or None without a pixel size."""
        if self.info is None or self.info.mpp is None:
            return None
        return self.info.size.width * self.info.mpp.x / 1e3, self.info.size.height * self.info.mpp.y / 1e3

    @property
    def usual_level(self) -> int | None:
        """Return the level that is read for 0.5 µm per pixel, or None without a pixel size."""
        if self.info is None or self.info.mpp is None:
            return None
        return best_level(self.info, USUAL_MPP / self.info.mpp.value)

    def as_json(self) -> dict[str, Any]:
        """Return the report in plain types."""
        if self.info is None:
            return {"path": url_of(self.path) or str(self.path), "error": str(self.error)}
        info = self.info
        size_mm = self.size_mm
        return {
            "path": url_of(self.path) or str(self.path),
            "error": None if self.error is None else str(self.error),
            "vendor": info.vendor,
            "reader": info.reader,
            "why": info.why,
            "size": [info.size.width, info.size.height],
            "size_mm": None if size_mm is None else [round(side, 4) for side in size_mm],
            "levels": [_level_json(level) for level in info.levels],
            "mpp": None
            if info.mpp is None
            else {"value": info.mpp.value, "x": info.mpp.x, "y": info.mpp.y, "source": info.mpp.source},
            "mpp_problem": info.mpp_problem,
            "mpp_warnings": list(info.mpp.warnings) if info.mpp is not None else [],
            "mpp_candidates": [
                {
                    "source": one.source,
                    "x": one.x,
                    "y": one.y,
                    "is_guess": one.is_guess,
                    "is_plausible": is_plausible(one),
                }
                for one in info.mpp_candidates
            ],
            "level_at_0.5_um": self.usual_level,
            "bounds": None
            if info.bounds is None
            else [info.bounds.x, info.bounds.y, info.bounds.width, info.bounds.height],
            "associated": list(info.associated),
            "background": list(info.background),
            "verification": None
            if self.verification is None
            else {
                "tiles": self.verification.tiles,
                "different": self.verification.different,
                "unreadable": self.verification.unreadable,
                "note": self.verification.note,
            },
            "properties": info.properties,
        }


def describe_slides(
    inputs: Sequence[str], *, reader: str | None = None, slide_mpp: float | None = None, is_verified: bool = False
) -> list[SlideReport]:
    """Return what each slide is; a slide that cannot be opened does not stop the others.

    Parameters
    ----------
    inputs
        Slides, folders of slides, or globs.
    reader
        Reader that is forced, or None.
    slide_mpp
        Micrometres per level-0 pixel that beat what the files say.
    is_verified
        Whether to read random tiles, and to compare those of the fast reader with OpenSlide's.

    Raises
    ------
    NothingMatchedError
        If there is no slide among the inputs.
    ConfigError
        If there is no such reader.
    """
    return [_describe(entry.path, reader, slide_mpp, is_verified=is_verified) for entry in find_slides(inputs)]


def raise_failures(reports: Sequence[SlideReport]) -> None:
    """Raise if slides failed, as the exit codes of all commands have it.

    Raises
    ------
    SlideError
        If no slide could be opened and read.
    SomeFailedError
        If some could not, or not everywhere, or if pixels differ from OpenSlide's.
    """
    failed = [report for report in reports if report.error is not None]
    broken = [report for report in reports if report.verification is not None and report.verification.unreadable]
    wrong = [report for report in reports if report.verification is not None and report.verification.different]
    if failed and len(failed) == len(reports):
        if len(failed) == 1 and failed[0].error is not None:
            raise failed[0].error
        raise SlideError(f"none of {len(reports)} slides can be read")
    if failed:
        raise SomeFailedError(f"{len(failed)} of {len(reports)} slides cannot be read")
    if broken:
        raise SomeFailedError(f"{len(broken)} of {len(reports)} slides cannot be read everywhere")
    if wrong:
        raise SomeFailedError(f"{len(wrong)} of {len(reports)} slides look different in OpenSlide")


def _describe(path: Path, reader: str | None, slide_mpp: float | None, *, is_verified: bool) -> SlideReport:
    try:
        with open_slide(path, reader=reader, slide_mpp=slide_mpp) as slide:
            verification = _verify(slide) if is_verified else None
            error = None
            if verification is not None and verification.is_unreadable:
                error = UnreadableError(
                    f"it opens, but none of {verification.tiles} tiles can be read", where=path, mend="Copy it again"
                )
            return SlideReport(path=path, info=slide.info, error=error, verification=verification)
    except SlideError as error:
        return SlideReport(path=path, error=error)


def _verify(slide: Slide) -> Verification:
    info = slide.info
    if info.reader != "tiff" or info.path is None:
        return _compared(slide, None, note="only the fast reader is compared")
    try:
        oracle = OpenSlideSlide(info.path)
    except SlideError as error:
        return _compared(slide, None, note=f"nothing to compare with: {error.what}")
    with oracle:
        return _compared(slide, oracle)


def _compared(slide: Slide, oracle: Slide | None, *, note: str | None = None) -> Verification:
    tiles = different = unreadable = 0
    known = {} if oracle is None else {level.size: index for index, level in enumerate(oracle.info.levels)}
    for index, level in enumerate(slide.info.levels):
        for window in _windows(level) if oracle is None or level.size in known else ():
            tiles += 1
            ours = _read(slide, index, window)
            theirs = ours if oracle is None else _read(oracle, known[level.size], window)
            if ours is None and theirs is None:
                unreadable += 1
            else:
                different += ours is None or theirs is None or not np.array_equal(ours, theirs)
    return Verification(tiles=tiles, different=different, unreadable=unreadable, note=note)


def _read(slide: Slide, level: int, window: Window) -> NDArray[np.uint8] | None:
    try:
        return slide.read_level(level, window)
    except UnreadableError:
        return None


def _windows(level: Level) -> Iterator[Window]:
    """Yield windows that OpenSlide, which counts in level-0 pixels, can place exactly."""
    width, height = level.size.width, level.size.height
    if level.downsample != round(level.downsample):
        yield Window(0, 0, min(CORNER_PX, width), min(CORNER_PX, height))
        return
    rng = random.Random(0)
    for _ in range(TILES_PER_LEVEL):
        yield Window(rng.randrange(width), rng.randrange(height), TILE_PX, TILE_PX).clipped(level.size)
    yield Window(max(0, width - TILE_PX), max(0, height - TILE_PX), TILE_PX, TILE_PX).clipped(level.size)


def _level_json(level: Level) -> dict[str, Any]:
    return {
        "size": [level.size.width, level.size.height],
        "downsample": level.downsample,
        "tile": None if level.tile is None else [level.tile.width, level.tile.height],
        "compression": level.compression,
    }
