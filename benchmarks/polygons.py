"""How long polygons take and how much memory, on masks that exist only where they are read.

    python benchmarks/polygons.py [--sizes 20000 40000] [--format geojson]

An instance mask with about one nucleus per 2,000 pixels (200,000 on 20k x 20k) is served
through a function, as a store would; GeoJSON and the table of objects are written. Each size
runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsiseg.geometry import Canvas, Scale, Size, Window
from wsiseg.inference.export import export_shapes
from wsiseg.labels import LabelMap
from wsiseg.objects import Objects

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELL = 44  # pixels along the edge of the square around each nucleus
KINDS = 64
LABELS = LabelMap.from_names(("background", "nucleus"))
GOAL_S = 60.0
GOAL_RATIO = 1.1


class Nuclei:
    """A mask of ellipses, one in each square cell, made where it is read."""

    def __init__(self, size: int) -> None:
        rng = np.random.default_rng(0)
        rows, columns = np.indices((CELL, CELL)) + 0.5
        angle = rng.uniform(0, np.pi, (KINDS, 1, 1))
        long, short = rng.uniform(6, 12, (KINDS, 1, 1)), rng.uniform(4, 8, (KINDS, 1, 1))
        x, y = columns - rng.uniform(16, 28, (KINDS, 1, 1)), rows - rng.uniform(16, 28, (KINDS, 1, 1))
        along, beside = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        self.kinds = (along / long) ** 2 + (beside / short) ** 2 < 1
        self.size = Size(size, size)
        self.cells = size // CELL
        self.kind = rng.integers(0, KINDS, (self.cells, self.cells))
        self.id = np.arange(1, self.cells**2 + 1, dtype=np.uint32).reshape(self.cells, self.cells)

    def instances(self, window: Window) -> NDArray[np.uint32]:
        """Return object ids."""
        first, last = window.y // CELL, min(-(-window.bottom // CELL), self.cells)
        whole = np.zeros((-(-window.bottom // CELL) * CELL - first * CELL, self.size.width), dtype=np.uint32)
        for row in range(first, last):
            strip = self.kinds[self.kind[row]] * self.id[row][:, None, None]
            top = (row - first) * CELL
            whole[top : top + CELL, : self.cells * CELL] = strip.transpose(1, 0, 2).reshape(CELL, -1)
        top = window.y - first * CELL
        return whole[top : top + window.height, window.x : window.right]

    def classes(self, window: Window) -> NDArray[np.uint8]:
        """Return class indices."""
        return (self.instances(window) > 0).astype(np.uint8)

    def objects(self) -> Objects:
        """Return the table of all nuclei."""
        one = Objects.concat([Objects.measured(kind.astype(np.int32)) for kind in self.kinds])
        table = one[self.kind.ravel()]
        row, column = np.divmod(np.arange(self.cells**2), self.cells)
        rows = table.to_rows()
        rows["id"], rows["score"] = self.id.ravel(), 0.9
        for name, shift in (("x0", column), ("x1", column), ("cx", column), ("y0", row), ("y1", row), ("cy", row)):
            rows[name] += shift * CELL
        return Objects.from_rows(rows)


def measure(size: int, polygons: str) -> dict[str, float]:
    """Export one mask and return seconds, objects, megabytes written and the peak of memory."""
    nuclei = Nuclei(size)
    start = time.perf_counter()
    for top in range(0, size, 512):
        nuclei.instances(Window(0, top, size, min(512, size - top)))
    making = time.perf_counter() - start
    objects = nuclei.objects()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        written = export_shapes(
            Path(folder),
            slide_id="benchmark",
            canvas=Canvas(nuclei.size, Scale(1.0), 0.5),
            labels=LABELS,
            read_classes=nuclei.classes,
            read_instances=nuclei.instances,
            objects=objects,
            polygons="geojson.gz" if polygons == "geojson.gz" else "geojson",
        )
        seconds = time.perf_counter() - start
        megabytes = sum(path.stat().st_size for path in written) / 1e6
    return {
        "objects": len(objects),
        "seconds": seconds,
        # The mask is made twice, once for its classes and once for its objects.
        "making the mask, seconds": 2 * making,
        "megabytes written": megabytes,
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Measure every size and print how they compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 40_000])
    parser.add_argument("--format", choices=["geojson", "geojson.gz"], default="geojson")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.format)))
        return
    peaks = []
    for size in arguments.sizes:
        command = [sys.executable, __file__, "--one", str(size), "--format", arguments.format]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        peaks.append(found["peak MB"])
        line = ", ".join(f"{name} {value:,.0f}" for name, value in found.items())
        print(f"{size:,} x {size:,}: {line}")
    print(f"goal for 20,000 x 20,000: {GOAL_S:.0f} s")
    print(f"peak memory, last over first: {peaks[-1] / peaks[0]:.2f} (goal {GOAL_RATIO} for the whole of predict)")


if __name__ == "__main__":
    main()
