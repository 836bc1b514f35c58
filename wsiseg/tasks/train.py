"""The job behind ``wsiseg train``: from labelled stores to a checkpoint."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wsiseg.config import load, save
from wsiseg.errors import ConfigError
from wsiseg.lock import locked
from wsiseg.methods.base import TrainingFacts
from wsiseg.methods.registry import get_method, get_patch_method
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.tasks.train_data import common_layer, fingerprints, sources
from wsiseg.tasks.train_job import CONFIG, TrainReport, clear
from wsiseg.tasks.train_patches import train_on_patches
from wsiseg.tiling.reading import open_patches
from wsiseg.training.batches import Batches
from wsiseg.training.fit import BEST, LAST, STATE, fit
from wsiseg.training.ranks import joined
from wsiseg.training.state import seed_all
from wsiseg.training.validation import Validation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsiseg.progress import Progress
    from wsiseg.tasks.train_job import TrainConfig, TrainJob
    from wsiseg.training.ranks import Ranks
    from wsiseg.training.settings import FitSettings
    from wsiseg.training.sources import Source

# What torch says where batch normalisation in training sees a single value; its error has no kind of its own.
_ALONE: Final = "more than 1 value per channel"


def train(job: TrainJob, progress: Progress = SILENT, stop: Stop | None = None) -> TrainReport:
    """Train a model, or go on with a training that was interrupted.

    Raises
    ------
    ConfigError, MethodError
        If settings make no sense or name something unknown.
    StoreError, DataError
        If a store cannot be used, has no labels, or the run was begun with other settings.
    StoppedError
        If `stop` was requested; the state is saved.
    """
    with joined(job.device) as ranks:
        lock = locked(job.output / ".lock") if ranks.is_first else nullcontext()
        with lock:
            return _train(job, ranks, progress if ranks.is_first else SILENT, stop or Stop())


def _train(job: TrainJob, ranks: Ranks, progress: Progress, stop: Stop) -> TrainReport:
    config = job.config
    patch_method = get_patch_method(config.method)
    if patch_method is not None:
        return train_on_patches(patch_method, job, ranks, progress, stop)
    if config.stages is not None:
        raise ConfigError(f"the method {config.method} has no stages", where="--stages")
    method = get_method(config.method)
    options = load(method.options, options=config.options)
    stores = [open_patches([path]) for path in job.stores]
    layer, info = common_layer(stores, config.layer)
    mpp = config.mpp or next((store.mpp for store in stores if store.mpp is not None), None)
    training, held_out = sources(stores, layer, mpp, config)
    (stage,) = method.stages(options)

    seed_all(config.fit.seed)
    facts = TrainingFacts(
        name=config.name or job.output.resolve().name,
        kind="instances" if info.kind == "instances" else "classes",
        labels=info.labels,
        mpp=mpp,
        crop_px=config.crop_px,
        training_data=fingerprints(job.stores, stores),
    )
    learner = stage.build(facts)
    batches = Batches(
        training,
        learner.encode,
        batch_size=config.batch_size,
        crop_px=config.crop_px,
        augmentation=config.augmentation,
        seed=config.fit.seed,
        rank=ranks.rank,
        world=ranks.world,
    )
    settings = _with_steps(config, batches)
    resolved = config.model_copy(
        update={"options": options.model_dump(mode="json"), "layer": layer, "mpp": mpp, "fit": settings}
    )
    if ranks.is_first:
        if job.overwrite:
            clear(job.output)
        if not (job.output / STATE).exists():
            save(resolved, job.output / CONFIG)
        progress.say(_summary(learner.module, training, held_out, ranks, config.batch_size * settings.accumulate))
    ranks.wait()
    try:
        report = fit(
            learner,
            batches,
            settings,
            job.output,
            validation=Validation(held_out, learner.predictor(learner.module).spec) if held_out else None,
            plan=_plan(resolved, facts),
            ranks=ranks,
            stop=stop,
            progress=progress,
        )
    except ValueError as error:
        if _ALONE not in str(error):
            raise
        raise ConfigError(
            "this network normalises features of whole images over the batch, which one image does not allow",
            where="--batch-size",
            mend="Pass 2 or more",
        ) from error
    is_best = not math.isnan(report.best)
    folder = job.output / (BEST if is_best else LAST)
    return TrainReport(fit=report, checkpoint=folder, is_first=ranks.is_first, is_best=is_best)


def _with_steps(config: TrainConfig, batches: Batches) -> FitSettings:
    if config.epochs is None:
        return config.fit
    images = config.fit.accumulate * batches.images_per_batch
    steps = max(1, math.ceil(config.epochs * batches.images_per_epoch / images))
    return config.fit.model_copy(update={"steps": steps})


def _plan(config: TrainConfig, facts: TrainingFacts) -> dict[str, Any]:
    """Return what the result depends on; the rest may change when a training goes on."""
    settings = config.model_dump(mode="json", exclude={"fit": {"num_workers", "save_interval_s"}})
    fit_settings = settings.pop("fit")
    return {**settings, **{f"fit.{key}": value for key, value in fit_settings.items()}, "data": facts.training_data}


def _summary(module: Any, training: Sequence[Source], held_out: Sequence[Source], ranks: Ranks, batch: int) -> str:  # noqa: ANN401 - a torch module
    weights = sum(value.numel() for value in module.parameters())
    patches = sum(len(source.indices) for source in training)
    images = len({group for source in training for group in np.unique(source.patches.groups[source.indices])})
    val = sum(len(source.indices) for source in held_out)
    devices = f"{ranks.world} × {ranks.device}" if ranks.world > 1 else f"{ranks.device}"
    return (
        f"{weights / 1e6:.2f} M weights on {devices}, {patches} patches of {images} images to train on, "
        f"{val} held out, {batch * ranks.world} images per step"
    )
