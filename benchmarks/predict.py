"""How much of a prediction is the network, and how its memory grows with the slide.

    python benchmarks/predict.py speed SLIDE --model MODEL
    python benchmarks/predict.py memory SMALL LARGE [--model MODEL]

``speed`` predicts a slide and then runs the same tiles, already decoded, through the network alone, several times in
turn; it prints the time of the bare forward passes over that of the whole prediction, by the clock and by processor
time (which other work on the machine disturbs less), and tiles and mm² of tissue per second.

``memory`` predicts two slides, each in a process of its own, and prints the ratio of their peaks. Without a model it
takes a stand-in that costs no time: the darkest pixels, in connected pieces.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.ndimage import label
from torch.nn.functional import avg_pool2d

from wsiseg.executors import run_ahead
from wsiseg.heads.base import Instances
from wsiseg.inference.forward import Network
from wsiseg.inference.memory import Load
from wsiseg.inference.prediction import Target, predict_slide
from wsiseg.inference.settings import PredictSettings
from wsiseg.inference.slide_plan import plan_slide
from wsiseg.labels import LabelMap
from wsiseg.limits import cpu_limit, memory_limit
from wsiseg.methods.base import Predictor, PredictorSpec
from wsiseg.methods.predictor import load_predictor
from wsiseg.nets.devices import choose_device, choose_dtype
from wsiseg.progress import SILENT
from wsiseg.slides.open import open_slide
from wsiseg.slides.reading import read_window
from wsiseg.stopping import Stop

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray
    from torch import Tensor

    from wsiseg.inference.summary import Json

MIB = 1 << 20


class StandIn:
    """A predictor that takes next to no time: dark pixels in connected pieces."""

    spec = PredictorSpec(
        task="instance",
        labels=LabelMap.from_names(("background", "dark")),
        mpp=0.5,
        tile_px=576,
        halo_px=32,
        channels=3,
    )

    def to(self, device: torch.device) -> None:
        """Stay where it is."""

    def forward(self, batch: Tensor) -> Tensor:
        """Return how dark pixels are, thrice."""
        darkness = 110 - avg_pool2d(batch[:, :1].float(), 5, stride=1, padding=2)
        return darkness.repeat(1, 3, 1, 1)

    def transformed(self, batch: Tensor, symmetry: int) -> Tensor:
        """Return `forward`; it knows no direction."""
        return self.forward(batch) if symmetry == 0 else self.forward(batch).clone()

    def decode(self, maps: NDArray[np.float32]) -> Instances:
        """Return connected pieces."""
        labels, count = label(maps[0] > 0)
        return Instances.from_labels(labels.astype(np.int32), np.ones(count, dtype=np.float32))

    def foreground(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return something between 0 and 1."""
        share: NDArray[np.float32] = np.clip(maps[0] / 220 + 0.5, 0, 1).astype(np.float32)
        return share


def run(path: Path, predictor: Predictor, settings: PredictSettings, device: str) -> tuple[Json, Network]:
    """Predict a slide into a folder that goes away, and return its summary."""
    chosen = choose_device(device)
    network = Network(predictor, device=chosen, dtype=choose_dtype(settings.amp, chosen), tta=settings.tta)
    threads = 1 if chosen.type == "cpu" else max(1, cpu_limit() // 2)
    load = Load(batch_size=network.suggested_batch_size(), readers=threads, finders=threads)
    with tempfile.TemporaryDirectory() as folder, open_slide(path) as slide:
        plan: Json = {"settings": {}}
        target = Target(
            slide_id="bench", folder=Path(folder), settings=settings, plan=plan, load=load, max_ram=memory_limit()
        )
        return predict_slide(slide, network, target, progress=SILENT, stop=Stop()), network


def pass_all(network: Network, batches: list[Tensor]) -> Generator[tuple[float, float]]:
    """Pass all batches through the network and yield the seconds by the clock and of processor time."""
    wall, cpu = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        for batch in batches:
            network.bare(batch)
    if network.device.type == "cuda":
        torch.cuda.synchronize()
    yield time.perf_counter() - wall, time.process_time() - cpu


def measure_speed(path: Path, model: str, device: str, repeats: int) -> None:
    """Print how long the network takes alone, over the whole prediction."""
    settings = PredictSettings(model=model)
    predictor = load_predictor(model)
    with open_slide(path) as slide:
        plan = plan_slide(slide, predictor.spec, settings)
        grid = plan.walk.grid
        tiles = [grid.at(int(row), int(column)) for row, column in np.argwhere(plan.is_tissue)]
        pixels = [read_window(slide, plan.canvas, tile.read) for tile in tiles]
    print(f"{len(tiles)} tiles of {predictor.spec.tile_px} px, canvas {plan.canvas.size}, {device}")
    ratios = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        summary, network = run(path, predictor, settings, device)
        whole = time.perf_counter() - wall, time.process_time() - cpu
        batch = summary["run"]["batch_size"]
        resident = [
            torch.from_numpy(np.stack(pixels[first : first + batch])).permute(0, 3, 1, 2).to(network.device)
            for first in range(0, len(pixels), batch)
        ]
        # In a thread, as in a prediction: OpenMP waits differently there.
        bare = next(run_ahead(pass_all(network, resident), depth=1))
        ratios.append((bare[0] / whole[0], bare[1] / whole[1]))
        seconds = summary["run"]
        print(
            f"  whole {whole[0]:.1f} s (processor {whole[1]:.1f} s; labels {seconds['segmentation_seconds']} s, "
            f"outputs {seconds['outputs_seconds']} s), bare {bare[0]:.1f} s (processor {bare[1]:.1f} s): "
            f"{ratios[-1][0]:.2f}, by processor time {ratios[-1][1]:.2f}; {len(tiles) / whole[0]:.2f} tiles/s, "
            f"{(summary['tissue_mm2'] or 0) / whole[0]:.3f} mm2/s"
        )
    clock, processor = np.median(np.array(ratios), axis=0)
    print(f"bare forward passes over predict, median: {clock:.2f} by the clock, {processor:.2f} by processor time")


def measure_memory(small: Path, large: Path, model: str | None) -> None:
    """Print the peaks of two slides and their ratio."""
    peaks = []
    for path in (small, large):
        command = [sys.executable, __file__, "one", str(path), *(() if model is None else ("--model", model))]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        peaks.append(told["peak"])
        print(f"{path.name}: {told['peak'] / MIB:.0f} MiB, canvas {told['canvas']}, {told['seconds']:.0f} s")
    print(f"peak memory, large over small: {peaks[1] / peaks[0]:.3f}")


def measure_one(path: Path, model: str | None) -> None:
    """Print the peak memory of one slide as JSON."""
    begun = time.perf_counter()
    predictor = StandIn() if model is None else load_predictor(model)
    summary, _ = run(path, predictor, PredictSettings(), "cpu")
    peak = summary["run"]["peak_ram_bytes"]
    canvas = f"{summary['canvas']['width']}x{summary['canvas']['height']}"
    print(json.dumps({"peak": peak, "canvas": canvas, "seconds": time.perf_counter() - begun}))


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "memory", "one"))
    parser.add_argument("slides", type=Path, nargs="+")
    parser.add_argument("--model", help="shipped model or folder of one")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    if options.what == "speed":
        measure_speed(options.slides[0], options.model or "nuclei-he", options.device, options.repeats)
    elif options.what == "memory":
        measure_memory(options.slides[0], options.slides[1], options.model)
    else:
        measure_one(options.slides[0], options.model)


if __name__ == "__main__":
    main()
