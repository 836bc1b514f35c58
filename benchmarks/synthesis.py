"""How many new masks of nuclei are made in a second, and how long a step of a GAN takes at each scale.

Masks are those of a made-up patch of 256 px with 45 nuclei, as many as are dense in H&E at 0.25 µm per pixel:

    python benchmarks/synthesis.py [--preset cpu] [--steps 5] [--device auto]

Times are those of the wall; on a busy machine compare the seconds of the processor beside them. Without --preset only
masks are made.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsiseg.config import load
from wsiseg.labels import LabelMap
from wsiseg.nets.devices import choose_device
from wsiseg.synthesis.gan_card import GanCard
from wsiseg.synthesis.gan_files import Example, begin
from wsiseg.synthesis.gan_fit import fit
from wsiseg.synthesis.layouts import LayoutSettings, layouts
from wsiseg.synthesis.nucleus_bank import bank_of
from wsiseg.synthesis.settings import PRESETS, GanSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE, NUCLEI, MASKS = 256, 45, 50
GOAL = 15


class Clock:
    """Seconds since it was made: of the wall, and of the processor."""

    def __init__(self) -> None:
        self._begun = time.perf_counter(), time.process_time()

    def __str__(self) -> str:
        return f"{self.wall:.2f} s ({time.process_time() - self._begun[1]:.2f} s of the processor)"

    @property
    def wall(self) -> float:
        """Return the seconds of the wall."""
        return time.perf_counter() - self._begun[0]


def main() -> None:
    """Measure masks, and steps if a preset is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), help="sizes of the GAN whose steps are measured")
    parser.add_argument("--steps", type=int, default=5, help="steps at each scale")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:N or mps")
    options = parser.parse_args()

    labels = _patch(np.random.default_rng(0))
    bank = bank_of(labels)
    for mode in ("density-matched", "faithful"):
        clock = Clock()
        layouts(bank, load(LayoutSettings, options={"mode": mode}), "normal", range(MASKS), patch="a", seed=0)
        speed, taken = MASKS / clock.wall, str(clock)
        verdict = "ok" if speed >= GOAL else "MISSED"
        print(f"{mode}: {speed:.1f} masks/s (at least {GOAL}), {MASKS} in {taken}  {verdict}")
    if options.preset is not None:
        _measure_steps(labels, options)


def _measure_steps(labels: NDArray[np.int32], options: argparse.Namespace) -> None:
    settings = load(GanSettings, options={"preset": options.preset, "steps": options.steps})
    labels = np.ascontiguousarray(labels[: settings.largest_px, : settings.largest_px])
    example = Example(image=np.where(labels[..., None] > 0, 90, 200).repeat(3, axis=2).astype(np.uint8), labels=labels)
    masks = np.stack(layouts(bank_of(labels), settings.layout, "normal", range(5), patch="a", seed=0))
    card = GanCard(
        patch="a",
        parent="a",
        group="a",
        position=(0, 0),
        mpp=None,
        layer="labels",
        labels=LabelMap.from_names(("background", "nucleus")),
        density="normal",
        source=example.fingerprint,
        settings=settings,
    )
    with tempfile.TemporaryDirectory() as folder:
        begin(Path(folder), card, example)
        clock = Clock()
        fit(Path(folder), example, masks, settings, device=choose_device(options.device))
        full = load(GanSettings, options={"preset": options.preset}).steps
        print(f"{options.preset}: {options.steps} steps at each of {len(settings.widths)} scales in {clock}")
        print(f"a training of {full} steps at each: about {clock.wall * full / options.steps / 60:.1f} min")


def _patch(rng: np.random.Generator) -> NDArray[np.int32]:
    """Return a label map of ellipses."""
    labels = np.zeros((SIDE, SIDE), dtype=np.int32)
    y, x = np.mgrid[:SIDE, :SIDE]
    for number in range(1, NUCLEI + 1):
        cy, cx = rng.uniform(0, SIDE, 2)
        a, b = rng.uniform(6, 12, 2)
        labels[((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 <= 1] = number
    return labels


if __name__ == "__main__":
    main()
