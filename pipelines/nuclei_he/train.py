"""Train `nuclei-he`, the model that wsiseg ships, from CC0 material only.

    python train.py CELLS SLIDE -o RUN

CELLS is the colour part of the 2018 Data Science Bowl, stage 1 (images/, labels/, index.csv);
SLIDE is CMU-1-Small-Region.svs. The first round learns the slide from the classical method, the
next from what the round before found on it with confidence. The threshold of the finished model is
chosen on images of their own; those held out are scored once, at the end. Run again to go on after
a stop.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from evaluate import finder, score_cells, scores
from material import LARGEST_PX, MPP, SMALLEST_PX, Cells, Regions, first_labels, read_cells, read_slide
from mixture import CROP_PX, SHARES, Crop, Mixture
from scipy import ndimage

from wsiseg import checkpoint
from wsiseg.checkpoint import HeadSpec
from wsiseg.cli.console import ProgressStyle, configure, graceful, progress_bar
from wsiseg.labels import Label, LabelMap
from wsiseg.methods.base import TrainingFacts
from wsiseg.methods.predictor import NetPredictor, load_predictor
from wsiseg.methods.supervised import SupervisedOptions, SupervisedStage
from wsiseg.training.fit import fit
from wsiseg.training.settings import FitSettings
from wsiseg.training.training_run import LAST
from wsiseg.training.validation import dense_maps

SEED = 0
ROUNDS = (2000, 1600, 3000, 5000, 4000)  # updates
OPTIONS = SupervisedOptions(
    arch="unet-gn",
    net={"widths": [32, 64, 128, 256]},
    head="flow",
    head_options={"min_area_px": 20},
    tile_px=576,
    halo_px=32,
    description="Nuclei in H&E at 0.5 µm per pixel; learnt from cells in mixed stains and an unlabelled slide, all CC0",
    licence="CC0-1.0",
)
LABELS = LabelMap(
    labels=(
        Label(index=0, name="Background", colour=(255, 255, 255)),
        Label(index=1, name="Nucleus", colour=(20, 160, 90)),
    )
)
# Of the finished model; objects are decided within the halo.
DECODING = {"min_area_px": 20, "reach_px": 24}
THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
COMPOSITES = 60  # by which the threshold is chosen, next to whole images
CONFIDENT, SURE_LOW, SURE_HIGH = 0.75, 0.3, 0.7


def settings(number: int) -> FitSettings:
    """Return how round `number` learns."""
    return FitSettings(
        steps=ROUNDS[number], lr=1e-3 if number == 0 else 7e-4, ema=0.998, amp="bf16", seed=SEED + number,
        clip_norm=5.0, warmup=0.05, num_workers=1, validate_every=500, log_every=50,
    )  # fmt: skip


def pseudo_labels(
    predictor: NetPredictor, rgb: np.ndarray, regions: Regions, first: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return objects that a model is sure of, and where it is sure of anything.

    Its maps are averaged over the eight symmetries of a square. Where the `first` labels have an
    object and the model none, nothing is believed: that is how pale nuclei would be unlearnt.
    """
    maps = np.zeros((predictor.spec.channels, *rgb.shape[:2]), dtype=np.float32)
    for symmetry in range(8):
        maps += dense_maps(_Turned(predictor, symmetry), rgb, torch.device("cpu")) / 8
    found = predictor.decode(maps)
    doubtful = np.zeros(len(found) + 1, dtype=bool)
    doubtful[1:] = (found.scores < CONFIDENT) | (found.area_px < SMALLEST_PX) | (found.area_px > LARGEST_PX)
    labels = np.where(doubtful[found.labels], 0, found.labels)
    probability = predictor.foreground(maps)
    unsure = (probability > SURE_LOW) & (probability < SURE_HIGH) & (labels == 0)
    valid = ~regions.unclear & ~ndimage.binary_dilation(doubtful[found.labels], iterations=2) & ~unsure
    valid &= ~((first > 0) & (labels == 0))
    valid &= ~((labels > 0) & regions.bare)
    labels[regions.bare] = 0
    return labels.astype(np.int32), valid


def chosen_model(
    last: NetPredictor, weights: checkpoint.Weights, folder: Path, choice: list[Cells], composites: list[Crop]
) -> NetPredictor:
    """Return the model in `folder` with the threshold that gives the highest AJI, images and composites alike."""

    def stored(threshold: float) -> NetPredictor:
        head = HeadSpec(kind="flow", options={**DECODING, "min_probability": threshold})
        checkpoint.save(folder, last.card.model_copy(update={"head": head}), weights, half=True)
        return load_predictor(folder)

    def aji(threshold: float) -> float:
        candidate = stored(threshold)
        find = finder(candidate, tta=False)
        found = [np.where(valid, find(np.clip(rgb, 0, 255).astype(np.uint8)), 0) for rgb, _, valid in composites]
        values = [scores(labels, item)["AJI"] for item, (_, labels, _) in zip(found, composites, strict=True)]
        whole = score_cells(candidate, choice)["AJI"]
        print(f"threshold {threshold}: AJI {whole:.4f} on images, {np.mean(values):.4f} on composites", flush=True)
        return (whole + float(np.mean(values))) / 2

    return stored(max(THRESHOLDS, key=aji))


class _Turned:
    """A predictor that looks at everything under one symmetry."""

    def __init__(self, predictor: NetPredictor, symmetry: int) -> None:
        self._predictor = predictor
        self._symmetry = symmetry
        self.spec = predictor.spec

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self._predictor.transformed(batch, self._symmetry)


def main() -> None:
    """Train all rounds and write the model to RUN/nuclei-he."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", type=Path)
    parser.add_argument("slide", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    configure(ProgressStyle.PLAIN, 1)
    train, choice, held_out = read_cells(args.cells)
    rgb = read_slide(args.slide)
    regions = Regions.read(rgb.shape[:2])
    first, valid = first_labels(rgb, regions)
    labels = first
    facts = TrainingFacts(
        name="nuclei-he", kind="instances", labels=LABELS, mpp=MPP, crop_px=CROP_PX,
        training_data={"2018 Data Science Bowl, stage 1, colour": f"{len(train)} images, CC0",
                       "CMU-1-Small-Region.svs": "no labels, CC0"},
    )  # fmt: skip
    stage = SupervisedStage(options=OPTIONS)
    weights = None
    finished = [number for number in range(len(ROUNDS)) if (args.output / f"round{number}" / LAST).exists()]
    for number in range(max(finished, default=0), len(ROUNDS)):
        torch.manual_seed(SEED + number)
        learner = stage.build(facts)
        if weights is not None:
            learner.module.load_state_dict(weights)
        mixture = Mixture(train, rgb, labels, valid, encode=learner.encode, seed=SEED + number)
        folder = args.output / f"round{number}"
        folder.mkdir(parents=True, exist_ok=True)
        plan = {"round": number, "steps": ROUNDS[number], "shares": str(SHARES)}
        with progress_bar() as progress, graceful() as stop:
            fit(learner, mixture, settings(number), folder, plan=plan, stop=stop, progress=progress)
        weights = checkpoint.read(folder / LAST).weights
        predictor = load_predictor(folder / LAST)
        print(f"round {number}, cells to choose by: {score_cells(predictor, choice)}", flush=True)
        if number + 1 < len(ROUNDS):
            labels, valid = pseudo_labels(predictor, rgb, regions, first)
            print(f"round {number}, nuclei on the slide: {labels.max()}, believed: {valid.mean():.3f}", flush=True)
    composites = Mixture(choice, rgb, labels, valid, encode=learner.encode, seed=SEED).composites(COMPOSITES)
    model = args.output / "nuclei-he"
    predictor = chosen_model(predictor, weights, model, choice, composites)
    metrics = score_cells(predictor, held_out)
    print(f"nuclei-he, cells held out: {metrics}", flush=True)
    predictor.save(model, metrics=metrics, half=True)


if __name__ == "__main__":
    main()
