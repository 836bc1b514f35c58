"""How fast slides are read, against OpenSlide and against nothing but JPEG decoding.

    python benchmarks/reading.py [--size 20000] [--rounds 3] [--slide SLIDE.svs]

All candidates read the same level-0 tiles with two threads, in turns, and the medians are
compared, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import openslide
import tifffile
from make_slide import make_slide

from wsiseg.errors import UnreadableError
from wsiseg.geometry import Canvas, Window
from wsiseg.slides.open import open_slide
from wsiseg.slides.reading import read_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PATCH = 256
BLOCK = 1536  # pixels along one edge of what is read at once
THREADS = 2
GOALS = {"over OpenSlide": 4.0, "over raw JPEG decoding": 0.7, "50 % overlap, per distinct pixel": 0.8}


def spread(read: Callable[[int], None], rows: Iterable[int]) -> None:
    """Read every row of patches, with two threads."""
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(read, row) for row in rows]:
            done.result()


def ours(path: Path) -> Callable[[], None]:
    """Return a reading of all aligned patches by this package."""

    def run() -> None:
        with open_slide(path, reader="tiff") as slide:
            size = slide.info.size

            def read(y: int) -> None:
                for x in range(0, size.width - PATCH + 1, PATCH):
                    slide.read_level(0, Window(x, y, PATCH, PATCH))

            spread(read, range(0, size.height - PATCH + 1, PATCH))

    return run


def ours_in_blocks(path: Path, *, stride: int) -> Callable[[], None]:
    """Return a reading of all patches at `stride`, block by block, by this package."""

    def run() -> None:
        with open_slide(path, reader="tiff") as slide:
            canvas = Canvas.over(slide.info.size, slide_mpp=None, mpp=None)
            columns = range(0, canvas.size.width - PATCH + 1, stride)
            rows = range(0, canvas.size.height - PATCH + 1, stride)
            block = BLOCK // stride

            def read(first: int) -> None:
                for start in range(0, len(columns), block):
                    near = [
                        Window(x, y, PATCH, PATCH)
                        for y in rows[first : first + block]
                        for x in columns[start : start + block]
                    ]
                    for patch in read_windows(slide, canvas, near):
                        if isinstance(patch, UnreadableError):
                            raise patch

            spread(read, range(0, len(rows), block))

    return run


def by_openslide(path: Path) -> Callable[[], None]:
    """Return a reading of all aligned patches by OpenSlide, into RGB arrays."""

    def run() -> None:
        with openslide.OpenSlide(path) as slide:
            width, height = slide.dimensions

            def read(y: int) -> None:
                for x in range(0, width - PATCH + 1, PATCH):
                    np.asarray(slide.read_region((x, y), 0, (PATCH, PATCH)).convert("RGB"))

            spread(read, range(0, height - PATCH + 1, PATCH))

    return run


def only_decoding(path: Path) -> Callable[[], None]:
    """Return a decoding of the same tiles, their bytes in memory already."""
    with tifffile.TiffFile(path) as file, path.open("rb") as data:
        page = file.pages.first
        tiles = []
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            data.seek(offset)
            tiles.append(data.read(count))
        columns = -(-page.imagewidth // PATCH)
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]

    def run() -> None:
        def read(row: int) -> None:
            for tile in rows[row]:
                imagecodecs.jpeg8_decode(tile, colorspace="YCBCR", outcolorspace="RGB")

        spread(read, range(len(rows)))

    return run


def main() -> None:
    """Measure and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=20_000, help="edge of the generated slide in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slide", type=Path, default=None, help="keep or take the generated slide here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = make_slide(arguments.slide or Path(folder) / "slide.svs", size=arguments.size)
        candidates = {
            "wsiseg": ours(path),
            "raw JPEG": only_decoding(path),
            "wsiseg, blocks": ours_in_blocks(path, stride=PATCH),
            "wsiseg, blocks, 50 % overlap": ours_in_blocks(path, stride=PATCH // 2),
            "OpenSlide": by_openslide(path),
        }
        times: dict[str, list[float]] = {name: [] for name in candidates}
        for _ in range(arguments.rounds):
            for name, run in candidates.items():
                begun = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - begun)
        with open_slide(path) as slide:
            megapixels = slide.info.size.area / 1e6
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"{name:30} {median:7.2f} s  {megapixels / median:7.1f} Mpx/s")
    # Ratios within a round, since the rounds meet different neighbours on a shared machine.
    ratios = [
        (other / mine, raw / mine, plain / overlap)
        for mine, raw, plain, overlap, other in zip(*(times[name] for name in candidates), strict=True)
    ]
    for (name, goal), values in zip(GOALS.items(), zip(*ratios, strict=True), strict=True):
        ratio = statistics.median(values)
        print(f"{name:34} {ratio:5.2f} x (at least {goal:g})  {'ok' if ratio >= goal else 'MISSED'}")


if __name__ == "__main__":
    main()
