"""Search the constants of the classical method on images that are not held out.

    python tune_classical.py CELLS [--trials 60]

Half of the trials are drawn anew and half near the best so far. Each is scored by the mean AJI of
the two stain classes that look like H&E, at each image's own scale, which is found from its labels.
`wsiseg.classical` holds the best of the trials, rounded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from evaluate import scores
from material import DIAMETER_PX, MPP, Cells, diameter_px, read_cells

from wsiseg import classical

SEED = 0
STAINS = ("HE_pink", "purple_on_purple")
RANGES = {
    "SMOOTHING_UM": (0.2, 0.8),
    "SURROUNDINGS_UM": (3, 12),
    "SURROUNDINGS_WEIGHT": (0, 0.9),
    "OPENING_RADIUS_UM": (0.5, 1.8),
    "DISTANCE_SMOOTHING_UM": (0.1, 0.6),
    "SHALLOWEST_NECK_UM": (0.05, 0.5),
}


def score(constants: dict[str, float], cells: list[Cells]) -> float:
    """Return the mean AJI of each stain class, averaged."""
    for name, value in constants.items():
        setattr(classical, name, value)
    by_stain: dict[str, list[float]] = {stain: [] for stain in STAINS}
    for item in cells:
        found = classical.classical_nuclei(item.rgb, MPP * DIAMETER_PX / diameter_px(item.labels))
        by_stain[item.stain].append(scores(item.labels, found)["AJI"])
    return float(np.mean([np.mean(values) for values in by_stain.values()]))


def main() -> None:
    """Print each set of constants that is better than those before it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", type=Path)
    parser.add_argument("--trials", type=int, default=60)
    args = parser.parse_args()
    train, choice, _ = read_cells(args.cells)
    cells = [item for item in train + choice if item.stain in STAINS]
    rng = np.random.default_rng(SEED)
    best, highest = dict.fromkeys(RANGES, 0.0), 0.0
    for trial in range(args.trials):
        if trial % 2 == 0:
            tried = {name: float(rng.uniform(*limits)) for name, limits in RANGES.items()}
        else:
            steps = {name: rng.normal() * (high - low) * 0.15 for name, (low, high) in RANGES.items()}
            tried = {name: float(np.clip(best[name] + steps[name], *limits)) for name, limits in RANGES.items()}
        found = score(tried, cells)
        if found > highest:
            best, highest = tried, found
            told = ", ".join(f"{name} {value:.2f}" for name, value in best.items())
            print(f"trial {trial}: AJI {found:.4f} with {told}", flush=True)


if __name__ == "__main__":
    main()
