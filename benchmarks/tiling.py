"""How fast `wsiseg tile` is, against a plain OpenSlide loop that writes the same patches.

    python benchmarks/tiling.py [--size 20000] [--rounds 3] [--slide SLIDE.svs]

The loop reads every 256-px patch with two threads and writes it to a zstd Zarr through
zarr-python, in the same shards. The whole command is timed, its start included, in turns
with the loop, and the medians are compared.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import openslide
import zarr
from make_slide import make_slide
from zarr.codecs import ZstdCodec

if TYPE_CHECKING:
    from collections.abc import Callable

PATCH = 256
THREADS = 2
GOALS = {"copy": 8.0, "zstd": 2.0}


def by_openslide(path: Path, folder: Path) -> None:
    """Write all patches of level 0 with OpenSlide and zarr-python, a shard of 128 at a time."""
    with openslide.OpenSlide(path) as slide, ThreadPoolExecutor(THREADS) as pool:
        width, height = slide.dimensions
        places = [(x, y) for y in range(0, height, PATCH) for x in range(0, width, PATCH)]
        images = zarr.create_array(
            folder / "loop.zarr",
            shape=(len(places), PATCH, PATCH, 3),
            chunks=(1, PATCH, PATCH, 3),
            shards=(128, PATCH, PATCH, 3),
            dtype="uint8",
            compressors=[ZstdCodec(level=1)],
        )

        def copy(first: int) -> None:
            patches = [
                np.asarray(slide.read_region(place, 0, (PATCH, PATCH)).convert("RGB"))
                for place in places[first : first + 128]
            ]
            images[first : first + len(patches)] = np.stack(patches)

        for done in [pool.submit(copy, first) for first in range(0, len(places), 128)]:
            done.result()


def by_wsiseg(path: Path, codec: str, folder: Path) -> None:
    """Run the command on all tiles."""
    command = [sys.executable, "-m", "wsiseg.cli.app", "--progress", "none", "tile", str(path), "-o", str(folder)]
    options = ["--mpp", "native", "--tissue", "none", "--min-tissue", "0", "--codec", codec]
    # As it is after installation: some containers keep Python from storing what it compiles.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    command += [*options, "--num-workers", str(THREADS)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


def measured(work: Callable[[Path], None], scratch: Path) -> float:
    """Return the seconds that work into an empty folder takes."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    begun = time.perf_counter()
    work(folder)
    seconds = time.perf_counter() - begun
    shutil.rmtree(folder)
    return seconds


def main() -> None:
    """Measure and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=20_000, help="edge of the generated slide in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slide", type=Path, default=None, help="where the generated slide is or shall be kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        slide = make_slide(arguments.slide or Path(scratch) / "slide.svs", size=arguments.size)
        works: dict[str, Callable[[Path], None]] = {
            "loop": partial(by_openslide, slide),
            **{codec: partial(by_wsiseg, slide, codec) for codec in GOALS},
        }
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(arguments.rounds):
            for name, work in works.items():
                seconds[name].append(measured(work, Path(scratch)))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"OpenSlide loop into a zstd Zarr: {medians['loop']:.2f} s")
    for codec, goal in GOALS.items():
        ratio = medians["loop"] / medians[codec]
        print(f"wsiseg tile --codec {codec}: {medians[codec]:.2f} s, {ratio:.1f} x (goal {goal:g} x)")


if __name__ == "__main__":
    main()
