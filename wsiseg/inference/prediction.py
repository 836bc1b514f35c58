"""One slide from its pixels to its finished folder."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, get_args

from wsiseg.atomic import sweep
from wsiseg.inference.engine import segment
from wsiseg.inference.export import OBJECTS_FILE, POLYGONS_STEM, PolygonFormat
from wsiseg.inference.job import Job
from wsiseg.inference.memory import Load, fit
from wsiseg.inference.outputs import LABEL_PNG, LABEL_TIFF, MEASUREMENTS, OVERLAY, Outputs, names_of
from wsiseg.inference.seams import SeamCounter, advice
from wsiseg.inference.settings import OutputSettings
from wsiseg.inference.slide_plan import check_outputs, plan_slide
from wsiseg.inference.summary import SUMMARY, WORK, peak_ram, settled, software, write_summary
from wsiseg.journal import Journal
from wsiseg.objects import Objects
from wsiseg.stores.mask_store import MaskStore

if TYPE_CHECKING:
    from pathlib import Path

    from wsiseg.geometry import Canvas
    from wsiseg.inference.forward import Network
    from wsiseg.inference.measurements import ClassRow
    from wsiseg.inference.settings import PredictSettings
    from wsiseg.inference.slide_plan import SlidePlan
    from wsiseg.inference.summary import Json
    from wsiseg.methods.base import PredictorSpec
    from wsiseg.progress import Progress
    from wsiseg.slides.base import Slide
    from wsiseg.stopping import Stop
    from wsiseg.stores.mask_layers import Layer
    from wsiseg.white import WhiteRule

logger = logging.getLogger(__name__)

PREDICTION: Final = "prediction.zarr"
# The table of objects as it is, from which outputs can be made when the work is long done.
OBJECTS: Final = "objects.npy"
# All that may lie beside it.
FILES: Final = (
    OBJECTS,
    *(f"{POLYGONS_STEM}.{polygons}" for polygons in get_args(PolygonFormat)),
    OBJECTS_FILE,
    MEASUREMENTS,
    OVERLAY,
    LABEL_PNG,
    LABEL_TIFF,
)
JOURNAL: Final = "journal"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Target:
    """Where the prediction of one slide goes, and under which terms.

    Parameters
    ----------
    slide_id
        Name of the slide in outputs.
    folder
        Its own folder.
    settings
        What the prediction looks like.
    plan
        All that it depends on, from `plan_of`.
    load
        Tiles in a batch and threads that are wanted.
    max_ram
        Bytes of memory to stay within.
    """

    slide_id: str
    folder: Path
    settings: PredictSettings
    plan: Json
    load: Load
    max_ram: int


def predict_slide(slide: Slide, network: Network, target: Target, *, progress: Progress, stop: Stop) -> Json:
    """Predict one slide, going on where an earlier run ended, and return its summary.

    Raises
    ------
    StoppedError
        If `stop` was requested; what is done is on disk.
    StoreError
        If unfinished work of other settings is in the folder.
    WsisegError
        If the slide, the settings or the disk do not allow it.
    """
    begun = time.monotonic()
    spec = network.predictor.spec
    plan = plan_slide(slide, spec, target.settings)
    load = fit(
        target.load,
        plan.walk,
        spec,
        on_cpu=network.device.type == "cpu",
        with_probs=target.settings.probability,
        limit=target.max_ram,
    )
    work = target.folder / WORK
    # Outputs can be asked for anew: the labels they are made from do not depend on them.
    with Journal(work / JOURNAL, settled(target.plan)) as journal:
        _sweep(target.folder)
        store = MaskStore.create(
            target.folder / PREDICTION,
            canvas=plan.canvas,
            labels=spec.labels,
            layers=_layers(spec, target.settings),
            band_px=plan.walk.band_px,
        )
        job = Job(
            slide=slide,
            canvas=plan.canvas,
            walk=plan.walk,
            is_tissue=plan.is_tissue,
            store=store,
            journal=journal,
            parts=work / "objects",
            white=_white(spec, plan.canvas) if target.settings.white else None,
        )
        is_resumed = job.closed_bands > 0
        segment(job, network, blend=target.settings.blend, load=load, progress=progress, stop=stop)
        segmented = time.monotonic()
        objects = None
        if "instances" in store.layers:
            objects = job.objects()
            objects.save(target.folder / OBJECTS)
        seams = None
        if spec.task == "semantic":
            seams = SeamCounter(plan.walk.core_px, partial(job.cells, job.is_tissue))
        outputs = Outputs(
            slide=slide,
            store=store,
            objects=objects,
            folder=target.folder,
            slide_id=target.slide_id,
            settings=target.settings.outputs,
            workers=load.readers + load.finders,
            done={record["output"] for record in journal.records if "output" in record},
            note=lambda name: journal.append({"output": name}),
            tissue_px=float((plan.tissue_px * job.readable).sum()) if plan.is_searched else None,
            seams=seams,
        )
        rows = outputs.write(job.analysed_px, progress, stop)
    summary = {
        "plan": target.plan,
        **_about(target, slide, plan),
        **_findings(plan, job, rows, None if objects is None else len(objects)),
        "seams": None if seams is None else seams.found.told(),
        "software": software(),
        "run": {
            "device": str(network.device),
            "batch_size": load.batch_size,
            "resumed": is_resumed,
            "segmentation_seconds": round(segmented - begun, 2),
            "outputs_seconds": round(time.monotonic() - segmented, 2),
            "peak_ram_bytes": peak_ram(),
        },
    }
    write_summary(target.folder, summary)
    if seams is not None and seams.found.are_visible:
        logger.warning("%s: %s", target.slide_id, advice(seams.found, plan.walk, target.settings.blend))
    shutil.rmtree(work, ignore_errors=True)
    return summary


def remake_outputs(slide: Slide, target: Target, summary: Json, *, progress: Progress, stop: Stop) -> Json:
    """Make the outputs that a finished prediction lacks from its labels, and return its new summary.

    Files that are no longer asked for stay.

    Parameters
    ----------
    slide
        That was predicted.
    target
        What is asked for; it differs from what is there in its outputs alone.
    summary
        Of the prediction that is there.
    progress, stop
        As for `predict_slide`.

    Raises
    ------
    StoppedError
        If `stop` was requested; the prediction stays, and what outputs it lacks can be asked for again.
    WsisegError
        If labels or objects are damaged, or the outputs cannot be made of them.
    """
    begun = time.monotonic()
    store = MaskStore.open(target.folder / PREDICTION)
    check_outputs(target.settings.outputs, store.canvas.size)
    there = summary["plan"]["settings"]["outputs"]
    sweep(target.folder)
    outputs = Outputs(
        slide=slide,
        store=store,
        objects=Objects.load(target.folder / OBJECTS) if "instances" in store.layers else None,
        folder=target.folder,
        slide_id=target.slide_id,
        settings=target.settings.outputs,
        workers=target.load.readers + target.load.finders,
        done=() if there is None else names_of(OutputSettings.model_validate(there)),
    )
    # Until all is made, nothing is known of what is there: a run that is killed must not leave a summary that lies.
    write_summary(target.folder, {**summary, "plan": settled(target.plan)})
    outputs.write_asked(progress, stop)
    run = {**summary["run"], "outputs_seconds": round(time.monotonic() - begun, 2)}
    summary = {**summary, "plan": target.plan, "run": run}
    write_summary(target.folder, summary)
    return summary


def clear(folder: Path) -> None:
    """Remove the prediction in a folder, and nothing else: users may keep files of their own beside it."""
    # What says that work is done goes before the work.
    for name in (SUMMARY, f"{WORK}/{JOURNAL}", *FILES):
        (folder / name).unlink(missing_ok=True)
    for name in (PREDICTION, WORK):
        if (folder / name).exists():
            shutil.rmtree(folder / name)


def _layers(spec: PredictorSpec, settings: PredictSettings) -> list[Layer]:
    objects: list[Layer] = ["instances"] if spec.task == "instance" else []
    probs: list[Layer] = ["probability"] if settings.probability else []
    return ["classes", "uncertainty", *objects, *probs]


def _sweep(folder: Path) -> None:
    """Remove what a killed run was just writing."""
    sweep(folder)
    # The name that zarr gives to files it has not finished.
    for half in (folder / PREDICTION).rglob("*.partial"):
        half.unlink(missing_ok=True)


def _about(target: Target, slide: Slide, plan: SlidePlan) -> Json:
    info, canvas = slide.info, plan.canvas
    return {
        "slide": {
            "slide_id": target.slide_id,
            "name": info.name,
            "vendor": info.vendor,
            "reader": info.reader,
            "width": info.size.width,
            "height": info.size.height,
            "mpp": None if info.mpp is None else info.mpp.value,
            "mpp_source": None if info.mpp is None else info.mpp.source,
        },
        "model": target.settings.model,
        "canvas": {
            "width": canvas.size.width,
            "height": canvas.size.height,
            "mpp": canvas.mpp,
            "downsample": canvas.scale.downsample,
        },
    }


def _white(spec: PredictorSpec, canvas: Canvas) -> WhiteRule | None:
    """Return what counts as white on the canvas, where spots are as large in µm as where the model learnt."""
    if spec.white is None or spec.mpp is None or canvas.mpp is None:
        return spec.white
    return spec.white.at(spec.mpp / canvas.mpp)


def _findings(plan: SlidePlan, job: Job, rows: list[ClassRow], objects: int | None) -> Json:
    looked_at = job.analysed_px + job.unreadable_px
    mpp = plan.canvas.mpp

    def mm2(pixels: int) -> float | None:
        return None if mpp is None else round(pixels * mpp**2 * 1e-6, 6)

    return {
        "tiles": plan.tiles,
        "tissue_mm2": None if plan.tissue.area_mm2 is None else round(plan.tissue.area_mm2, 6),
        "analysed_px": job.analysed_px,
        "analysed_mm2": mm2(job.analysed_px),
        "unreadable_mm2": mm2(job.unreadable_px),
        "unreadable_percent": round(100 * job.unreadable_px / looked_at, 4) if looked_at else 0.0,
        "objects": objects,
        "classes": [
            {"name": row.name, "area_px": row.area_px, "area_mm2": mm2(row.area_px), "objects": row.objects}
            for row in rows
        ],
    }
