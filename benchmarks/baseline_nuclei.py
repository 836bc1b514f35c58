"""How well nuclei are found without learning, and how much better a model's predictions are.

Finds nuclei in a folder of images by their haematoxylin (`wsiseg.classical`), at the images' own resolution or at a
coarser one, and compares them with label images of the same names:

    python benchmarks/baseline_nuclei.py DATA/images DATA/labels --mpp 0.25 --at 0.5 [--pred PREDICTIONS]

With --pred, the scores of predictions (label images at the same resolution) and their ratio to the baseline follow.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from wsiseg.classical import classical_nuclei
from wsiseg.evaluation.config import EvaluateConfig
from wsiseg.rasters import READABLE, read_labels, write_labels
from wsiseg.tasks.evaluate import evaluate

if TYPE_CHECKING:
    from wsiseg.evaluation.report import EvaluateReport

QUALITIES = ("aji", "aji_plus", "dice", "f1", "pq", "object_dice", "boundary_f1")


def main() -> None:
    """Score the baseline, and predictions if there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("labels", type=Path, help="folder of label images of the same names")
    parser.add_argument("--mpp", type=float, required=True, help="µm per pixel of the images")
    parser.add_argument("--at", type=float, help="µm per pixel at which to work, a multiple of --mpp")
    parser.add_argument("--pred", type=Path, help="predicted label images at the same resolution")
    options = parser.parse_args()
    at = options.at or options.mpp
    step = round(at / options.mpp)
    if step < 1 or not np.isclose(step * options.mpp, at):
        parser.error(f"--at {at} is not a multiple of --mpp {options.mpp}")

    with tempfile.TemporaryDirectory() as folder:
        found, truth = Path(folder, "found"), Path(folder, "truth")
        seconds = 0.0
        files = sorted(file for file in options.images.iterdir() if file.suffix.lower() in READABLE)
        for file in files:
            with Image.open(file) as opened:
                rgb = np.asarray(opened.convert("RGB").reduce(step))
            labels = read_labels(options.labels / f"{file.stem}.png")[step // 2 :: step, step // 2 :: step]
            begun = time.perf_counter()
            nuclei = classical_nuclei(rgb, at)[: labels.shape[0], : labels.shape[1]]
            seconds += time.perf_counter() - begun
            write_labels(found / f"{file.stem}.png", nuclei)
            write_labels(truth / f"{file.stem}.png", labels)
        config = EvaluateConfig(task="instance", mpp=at)
        baseline = evaluate(found, truth, config)
        show(f"baseline, {len(files)} images at {at} µm/px, {seconds / len(files):.2f} s each", baseline)
        if options.pred is not None:
            predicted = evaluate(options.pred, truth, config)
            show(f"{options.pred}", predicted)
            print("prediction / baseline")
            for name in QUALITIES:
                print(f"  {name:<12} {(value(predicted, name) / value(baseline, name)):.2f} x")


def value(report: EvaluateReport, name: str) -> float:
    """Return the mean of a score over images."""
    mean = report.mean[name].value
    return float("nan") if mean is None else mean


def show(title: str, report: EvaluateReport) -> None:
    """Print means over images with their intervals."""
    print(title)
    for name in (*QUALITIES, "hd95"):
        estimate = report.mean[name]
        unit = "" if report.units[name] == "1" else f" {report.units[name]}"
        print(f"  {name:<12} {value(report, name):.3f}{unit}  ({estimate.low:.3f} to {estimate.high:.3f})")


if __name__ == "__main__":
    main()
