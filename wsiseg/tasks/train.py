"""The job behind ``wsiseg train``: from labelled stores to a checkpoint."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wsiseg.atomic import write_bytes
from wsiseg.checkpoint import read
from wsiseg.config import load, save
from wsiseg.errors import ConfigError
from wsiseg.lock import locked
from wsiseg.methods.base import TrainingFacts
from wsiseg.methods.registry import get_method, get_patch_method
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.stores.volume_store import is_volume_store
from wsiseg.tasks.train_data import fingerprints, training_data
from wsiseg.tasks.train_job import CONFIG, LABELLED, TrainReport, clear, plan_of, with_steps, with_usual
from wsiseg.tasks.train_patches import train_on_patches
from wsiseg.tasks.train_volumes import train_on_volumes
from wsiseg.tiling.reading import open_patches
from wsiseg.training.batches import Batches
from wsiseg.training.fit import BEST, LAST, STATE, fit
from wsiseg.training.ranks import joined
from wsiseg.training.state import seed_all
from wsiseg.training.streams import TwoStreams, unlabelled_batches
from wsiseg.training.teacher_check import Taught, TeacherCheck
from wsiseg.training.validation import Validation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsiseg.methods.base import Encode
    from wsiseg.progress import Progress
    from wsiseg.tasks.train_data import TrainingData
    from wsiseg.tasks.train_job import TrainConfig, TrainJob
    from wsiseg.training.ranks import Ranks
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
    patch_method = get_patch_method(job.config.method)
    if patch_method is not None:
        return train_on_patches(patch_method, job, ranks, progress, stop)
    if any(is_volume_store(path) for path in job.stores):
        return train_on_volumes(job, ranks, progress, stop)
    if job.config.patch is not None:
        raise ConfigError("images are cut by --crop-px, only volumes by a patch", where="patch")
    return _train_on_images(job, ranks, progress, stop)


def _train_on_images(job: TrainJob, ranks: Ranks, progress: Progress, stop: Stop) -> TrainReport:
    config = job.config
    if config.stages is not None:
        raise ConfigError(f"the method {config.method} has no stages", where="--stages")
    method = get_method(config.method)
    options = load(method.options, options=config.options)
    config = with_usual(config, method.training(options))
    if config.unlabelled_batch_size is not None and not method.takes_unlabelled:
        raise ConfigError(f"{config.method} does not learn from images without labels", where="unlabelled_batch_size")
    stores = [open_patches([path]) for path in job.stores]
    mpp = config.mpp or next((store.mpp for store in stores if store.mpp is not None), None)
    data = training_data(stores, mpp, config, takes_unlabelled=method.takes_unlabelled)
    (stage,) = method.stages(options)

    seed_all(config.fit.seed)
    facts = TrainingFacts(
        name=config.name or job.output.resolve().name,
        kind="instances" if data.info.kind == "instances" else "classes",
        labels=data.info.labels,
        mpp=mpp,
        crop_px=config.crop_px,
        training_data=fingerprints(job.stores, stores),
    )
    learner = stage.build(facts)
    batches = _batches(data, learner.encode, config, ranks)
    settings = with_steps(config, batches)
    resolved = config.model_copy(
        update={"options": options.model_dump(mode="json"), "layer": data.layer, "mpp": mpp, "fit": settings}
    )
    if ranks.is_first:
        if job.overwrite:
            clear(job.output)
        if not (job.output / STATE).exists():
            save(resolved, job.output / CONFIG)
            if data.chosen is not None:
                write_bytes(job.output / LABELLED, "".join(f"{name}\n" for name in data.chosen).encode())
        progress.say(_summary(learner.module, data, ranks, batches.images_per_batch * settings.accumulate))
    ranks.wait()
    validation = Validation(data.held_out, learner.predictor(learner.module).spec) if data.held_out else None
    probe = _teacher_check(learner, data, config) if data.held_out and isinstance(learner, Taught) else None
    try:
        report = fit(
            learner,
            batches,
            settings,
            job.output,
            validation=validation,
            probe=probe,
            plan=plan_of(resolved, facts, data.chosen),
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


def _teacher_check(learner: Taught, data: TrainingData, config: TrainConfig) -> TeacherCheck:
    """Return what judges the teacher beside its student."""
    validation = Validation(data.held_out, learner.teacher(learner.module).spec)
    baseline = None
    if config.baseline is not None:
        card = read(config.baseline).card
        if validation.metric not in card.metrics:
            raise ConfigError(
                f"the model has no {validation.metric} of validation to compare with",
                where=f"baseline {config.baseline}",
                mend="Name a run with validation on the same kind of labels",
            )
        baseline = card.metrics[validation.metric]
    return TeacherCheck(learner, validation, baseline=baseline)


def _batches(data: TrainingData, encode: Encode, config: TrainConfig, ranks: Ranks) -> Batches | TwoStreams:
    """Return batches with labels, or where there is something without labels to learn from, of two streams."""
    shared: dict[str, Any] = {
        "crop_px": config.crop_px,
        "augmentation": config.augmentation,
        "seed": config.fit.seed,
        "rank": ranks.rank,
        "world": ranks.world,
    }
    labelled = Batches(data.labelled, encode, batch_size=config.batch_size, **shared)
    if not data.unlabelled:
        return labelled
    size = config.unlabelled_batch_size or config.batch_size
    return TwoStreams(labelled, unlabelled_batches(data.unlabelled, batch_size=size, **shared))


def _summary(module: Any, data: TrainingData, ranks: Ranks, batch: int) -> str:  # noqa: ANN401 - a torch module
    weights = sum(value.numel() for value in module.parameters() if value.requires_grad)
    patches, images = _count(data.labelled)
    val, _ = _count(data.held_out)
    free, free_images = _count(data.unlabelled)
    without = f", {free} of {free_images} images to learn from without labels" if free else ""
    devices = f"{ranks.world} × {ranks.device}" if ranks.world > 1 else f"{ranks.device}"
    return (
        f"{weights / 1e6:.2f} M weights on {devices}, {patches} patches of {images} images to train on{without}, "
        f"{val} held out, {batch} images per step"
    )


def _count(sources: Sequence[Source]) -> tuple[int, int]:
    """Return the patches of sources, and the images they come from."""
    images = {group for source in sources for group in np.unique(source.patches.groups[source.indices])}
    return sum(len(source.indices) for source in sources), len(images)
