"""The job behind ``wsiseg demo --loop``: a model of nuclei from a few annotated patches, and a page that shows how."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import orjson

from wsiseg.annotations import read_features
from wsiseg.atomic import write_bytes
from wsiseg.config import load
from wsiseg.inference.settings import PredictSettings
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.stores.patch_store import PatchStore
from wsiseg.stores.patches import patch_names
from wsiseg.synthesis.settings import GanSettings
from wsiseg.tasks.demo import grow
from wsiseg.tasks.demo_loop_page import (
    ANNOTATIONS,
    ANNOTATOR,
    GANS,
    LAYER,
    PREDICTIONS,
    PROPOSED,
    RUN,
    SELECTION,
    SLIDE,
    SLIDE_ID,
    SYNTHETIC,
    TILES,
    loop_page,
)
from wsiseg.tasks.label import label
from wsiseg.tasks.label_settings import LabelConfig
from wsiseg.tasks.predict import PredictJob, predict
from wsiseg.tasks.select import select
from wsiseg.tasks.select_files import GEOJSON
from wsiseg.tasks.select_job import SelectConfig, SelectJob
from wsiseg.tasks.synth_fit import SynthFitJob, synth_fit
from wsiseg.tasks.synth_sample import SampleSettings, SynthSampleJob, synth_sample
from wsiseg.tasks.tile import TileConfig, TileJob, tile
from wsiseg.tasks.train import train
from wsiseg.tasks.train_job import TrainConfig, TrainJob

if TYPE_CHECKING:
    from pathlib import Path

    from wsiseg.progress import Progress

PAGE: Final = "loop.html"
# No larger than the real region, so that nothing on the slide is there twice.
SIDE_PX: Final = 2048
PATCH_PX: Final = 96
PATCHES: Final = 6
GANS_FITTED: Final = 2
SAMPLES: Final = 24
# Weights of well-known encoders do not come along; random ones tell colours and coarse texture, so that rules must keep
# out what is no good to annotate.
ENCODER: Final = {"encoder": "resnet18", "init": "none"}
RULES: Final = {"min_tissue": 0.85, "min_nuclei": 0.15}
GAN: Final = {
    "preset": "smoke",
    "smallest_px": 48,
    "largest_px": PATCH_PX,
    "widths": [16, 16, 16, 16],
    "steps": 60,
    "penalty_every": 4,
}
TRAINING: Final = {
    "method": "label-efficient",
    "crop_px": PATCH_PX,
    "batch_size": 5,
    "val_fraction": 0,
    # Few of the synthetic patches, as their GANs have seconds.
    "options": {
        "head": "hv",
        "net": {"widths": [16, 32, 64]},
        "teacher_real": 0.8,
        "student_shares": [0.5, 0.1, 0.4],
    },
    "fit": {"steps": 250, "lr": 0.003, "log_every": 25},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopReport:
    """What the demo made.

    Parameters
    ----------
    page
        The HTML page that shows everything.
    patches
        Annotated patches.
    nuclei
        Nuclei that the model found on the slide.
    seconds
        Time taken.
    """

    page: Path
    patches: int
    nuclei: int
    seconds: float


def demo_loop(output: Path, *, progress: Progress = SILENT, stop: Stop | None = None) -> LoopReport:
    """Choose patches of a small slide, have them annotated, multiply them, train, predict, and write a page about it.

    Nobody annotated the slide: what the shipped model finds in the chosen patches stands in for what a person would
    draw there, and is known nowhere else.

    Parameters
    ----------
    output
        Folder for everything; what is already there is used.
    progress
        Told of every step.
    stop
        Looked at by every step.

    Raises
    ------
    StoppedError
        If a stop was requested.
    """
    stop, begun = stop or Stop(), time.monotonic()
    slide, tiles, synthetic = output / SLIDE, output / TILES, output / SYNTHETIC
    if not slide.exists():
        grow(slide, side_px=SIDE_PX, tissue=1.0)
    settings = TileConfig(patch_size=PATCH_PX)
    tile(TileJob(inputs=(str(slide),), output=tiles, settings=settings), progress, stop).raise_failures()
    config = load(SelectConfig, options={"count": PATCHES, **ENCODER, **RULES})
    select(SelectJob(stores=(tiles,), output=output / SELECTION, config=config), progress, stop)
    progress.say("the shipped model stands in for the annotator")
    _predict(slide, PredictSettings(), output / ANNOTATOR, progress, stop)
    _annotate(output)
    drawn = LabelConfig(labels_as="instances", layer=LAYER, classes=("Nucleus",))
    label(tiles / f"{SLIDE_ID}.zarr", output / ANNOTATIONS, drawn, progress=progress)
    gans = SynthFitJob(
        stores=(tiles,), output=output / GANS, patches=_busiest(output), settings=load(GanSettings, options=GAN)
    )
    synth_fit(gans, progress, stop)
    if not synthetic.exists():
        samples = SynthSampleJob(gans=output / GANS, output=synthetic, settings=SampleSettings(count=SAMPLES))
        synth_sample(samples, progress, stop)
    training = load(TrainConfig, options=TRAINING)
    train(TrainJob(stores=(tiles, synthetic), output=output / RUN, config=training), progress, stop)
    _predict(slide, PredictSettings(model=str(output / RUN)), output / PREDICTIONS, progress, stop)
    proposed = SelectJob(
        stores=(tiles,),
        output=output / PROPOSED,
        config=load(SelectConfig, options={"count": PATCHES, "strategy": "uncertainty"}),
        prediction=output / PREDICTIONS,
    )
    select(proposed, progress, stop)
    page, nuclei = loop_page(output)
    write_bytes(output / PAGE, page)
    return LoopReport(page=output / PAGE, patches=PATCHES, nuclei=nuclei, seconds=time.monotonic() - begun)


def _predict(slide: Path, settings: PredictSettings, output: Path, progress: Progress, stop: Stop) -> None:
    predict(PredictJob(inputs=(str(slide),), output=output, settings=settings), progress, stop).raise_failures()


def _annotate(output: Path) -> None:
    """Write what an annotator would export from QuPath: the boxes, and the nuclei in them."""
    boxes, nuclei = output / SELECTION / GEOJSON, output / ANNOTATOR / SLIDE_ID / "polygons.geojson"
    areas = [box.area for box in read_features(boxes).features if box.area is not None]
    drawn = [
        feature.number - 1
        for feature in read_features(nuclei).features
        if any(area.intersects(feature.area) for area in areas)
    ]
    content, found = orjson.loads(boxes.read_bytes()), orjson.loads(nuclei.read_bytes())["features"]
    content["features"] += [found[place] for place in drawn]
    write_bytes(output / ANNOTATIONS, orjson.dumps(content) + b"\n")


def _busiest(output: Path) -> tuple[str, ...]:
    """Return the annotated patches with most nuclei."""
    store = PatchStore.open(output / TILES / f"{SLIDE_ID}.zarr")
    indices = np.flatnonzero(store.is_labelled(LAYER))
    counts = [len(np.unique(labels[labels > 0])) for labels in store.read_labels(LAYER, indices)]
    names = patch_names(store)
    return tuple(names[indices[place]] for place in np.argsort(counts, kind="stable")[::-1][:GANS_FITTED])
