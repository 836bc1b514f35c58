"""Score a nuclei model and the classical baseline on images that were not trained on.

    python evaluate.py MODEL --cells CELLS [--images FOLDER --mpp 0.25] [--tta]

Cells of unknown scale: the image is first predicted far too small, then grown until the median
diameter of what is found is that of the slide's nuclei; coming from below, large nuclei are not
taken for heaps of small ones. No label is used for it. The classical method, which needs a scale,
gets the training images' median diameter, and in a second row the scale that the model finds for each
image. Other images are predicted at the model's resolution.
Scores are taken at native size and averaged over images.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from material import DIAMETER_PX, Cells, diameter_px, read_cells, resized

from wsiseg.classical import classical_nuclei
from wsiseg.metrics.instances import tally_instances
from wsiseg.metrics.overlaps import count_overlaps
from wsiseg.rasters import read_labels
from wsiseg.training.validation import dense_maps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.methods.predictor import NetPredictor

SCORES = {"aji": "AJI", "f1": "F1", "dice": "Dice", "pq": "PQ"}
TYPICAL_DIAMETER_PX = 21.0  # of the training cells
FIRST_FACTOR, SMALLEST_FACTOR, LARGEST_FACTOR = 0.35, 0.15, 1.3  # of the search for an image's scale
LARGEST_WHOLE_PX = 448
Find = "Callable[[NDArray[np.uint8]], NDArray[np.int32]]"


class _Averaged:
    """A predictor whose maps are means over the eight symmetries of a square."""

    def __init__(self, predictor: NetPredictor) -> None:
        self._predictor = predictor
        self.spec = predictor.spec

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.stack([self._predictor.transformed(batch, symmetry) for symmetry in range(8)]).mean(dim=0)


def finder(predictor: NetPredictor, *, tta: bool) -> Find:
    """Return a function from pixels at the model's resolution to labels."""
    source = _Averaged(predictor) if tta else predictor

    def find(rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
        return predictor.decode(_maps(source, rgb)).labels

    return find


def _maps(source: NetPredictor | _Averaged, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    height, width = rgb.shape[:2]
    if max(height, width) > LARGEST_WHOLE_PX:
        return dense_maps(source, rgb, torch.device("cpu"))
    # Small images would be lost in a tile.
    side = -(-max(height, width) // 32) * 32
    padded = np.pad(rgb, ((0, side - height), (0, side - width), (0, 0)), mode="reflect")
    with torch.inference_mode():
        maps = source.forward(torch.from_numpy(padded).permute(2, 0, 1)[None])
    return maps[0, :, :height, :width].numpy()


def at_scale(find: Find, rgb: NDArray[np.uint8], factor: float) -> NDArray[np.int32]:
    """Return labels at native size of an image that is looked at `factor` times as large."""
    scaled = np.rint(resized(rgb, factor)).clip(0, 255).astype(np.uint8)
    labels = find(scaled)
    rows, columns = (
        np.minimum((np.arange(side) + 0.5) * small / side, small - 1).astype(np.intp)
        for side, small in zip(rgb.shape[:2], labels.shape, strict=True)
    )
    return labels[rows[:, None], columns]


def own_scale(find: Find, rgb: NDArray[np.uint8]) -> float:
    """Return the factor that brings nuclei to the slide's size, found from the image alone."""
    factor = FIRST_FACTOR
    for _ in range(6):
        change = DIAMETER_PX / diameter_px(find(np.rint(resized(rgb, factor)).clip(0, 255).astype(np.uint8)))
        factor = float(np.clip(factor * change, SMALLEST_FACTOR, LARGEST_FACTOR))
        if abs(math.log(change)) < 0.07:  # noqa: PLR2004 - within 7 %
            break
    return factor


def scores(truth: NDArray[np.int32], found: NDArray[np.int32]) -> dict[str, float]:
    """Return the scores of one image."""
    values = tally_instances(count_overlaps(found, truth)).scores()
    return {SCORES[key]: float(values[key]) for key in SCORES}


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each score."""
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def score_cells(predictor: NetPredictor, cells: list[Cells], *, tta: bool = False) -> dict[str, float]:
    """Return mean scores on cells of unknown scale."""
    plain, find = finder(predictor, tta=False), finder(predictor, tta=tta)
    return mean([scores(item.labels, at_scale(find, item.rgb, own_scale(plain, item.rgb))) for item in cells])


def score_images(find: Find, folder: Path, factor: float) -> dict[str, float]:
    """Return mean scores on a folder of images/ and labels/ of known scale."""
    from PIL import Image

    rows = []
    for path in sorted((folder / "images").iterdir()):
        rgb = np.asarray(Image.open(path).convert("RGB"))
        labels = read_labels(folder / "labels" / f"{path.stem}.png").astype(np.int32)
        rows.append(scores(labels, at_scale(find, rgb, factor)))
    return mean(rows)


def main() -> None:
    """Print a row of scores for each method and set."""
    from wsiseg.methods.predictor import load_predictor

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--cells", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--mpp", type=float, default=0.25)
    parser.add_argument("--tta", action="store_true", help="also with the eight symmetries averaged")
    args = parser.parse_args()
    predictor = load_predictor(args.model)
    mpp = predictor.spec.mpp or 0.5
    if args.cells:
        *_, held_out = read_cells(args.cells)
        baseline = [
            scores(item.labels, classical_nuclei(item.rgb, mpp * DIAMETER_PX / TYPICAL_DIAMETER_PX))
            for item in held_out
        ]
        print("cells held out, classical:", mean(baseline), flush=True)
        plain = finder(predictor, tta=False)
        scaled = [
            scores(item.labels, classical_nuclei(item.rgb, mpp * own_scale(plain, item.rgb))) for item in held_out
        ]
        print("cells held out, classical at the model's scale:", mean(scaled), flush=True)
        for tta in (False, True)[: 1 + args.tta]:
            print(f"cells held out, model, tta {tta}:", score_cells(predictor, held_out, tta=tta), flush=True)
    if args.images:
        print(
            "images, classical:",
            score_images(lambda rgb: classical_nuclei(rgb, args.mpp), args.images, 1.0),
            flush=True,
        )
        for tta in (False, True)[: 1 + args.tta]:
            row = score_images(finder(predictor, tta=tta), args.images, args.mpp / mpp)
            print(f"images, model, tta {tta}:", row, flush=True)


if __name__ == "__main__":
    main()
