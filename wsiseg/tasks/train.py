"""The job behind ``wsiseg train``: from labelled stores to a checkpoint."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from wsiseg.config import load
from wsiseg.errors import ConfigError
from wsiseg.lock import locked
from wsiseg.methods.base import TrainingFacts
from wsiseg.methods.label_efficient import NAME as LABEL_EFFICIENT
from wsiseg.methods.predictor import NetPredictor, head_of
from wsiseg.methods.registry import get_method, get_patch_method
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.stores.patch_meta import SYNTHETIC
from wsiseg.stores.volume_store import is_volume_store
from wsiseg.tasks.train_data import fingerprints, roles, training_data
from wsiseg.tasks.train_fit import Work, carry_out
from wsiseg.tasks.train_job import with_usual
from wsiseg.tasks.train_patches import train_on_patches
from wsiseg.tasks.train_rounds import train_in_rounds
from wsiseg.tasks.train_volumes import of_volumes
from wsiseg.tiling.reading import open_patches
from wsiseg.training.batches import Batches
from wsiseg.training.head_check import check_head
from wsiseg.training.ranks import joined
from wsiseg.training.state import seed_all
from wsiseg.training.streams import TwoStreams, unlabelled_batches
from wsiseg.training.validation import Validation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsiseg.methods.base import Encode, Method
    from wsiseg.methods.stages import PatchMethod
    from wsiseg.progress import Progress
    from wsiseg.tasks.train_data import TrainingData
    from wsiseg.tasks.train_job import TrainConfig, TrainJob, TrainReport
    from wsiseg.training.ranks import Ranks
    from wsiseg.training.sources import Source


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
    _check_rounds(job.config, patch_method or get_method(job.config.method))
    if patch_method is not None:
        return train_on_patches(patch_method, job, ranks, progress, stop)
    if job.config.method == LABEL_EFFICIENT:
        return train_in_rounds(job, ranks, progress, stop)
    return carry_out(prepared(job, ranks), job, ranks, progress, stop)


def _check_rounds(config: TrainConfig, method: Method | PatchMethod) -> None:
    if "rounds" in config.options and "rounds" not in method.options.model_fields:
        raise ConfigError(
            f"the method {config.method} has no rounds",
            where="--rounds",
            mend=f"Leave it out, or train with --method {LABEL_EFFICIENT}",
        )


def prepared(job: TrainJob, ranks: Ranks) -> Work:
    """Return an untrained learner with its data, of a method that learns from labels of pixels in one stage.

    Raises
    ------
    ConfigError, MethodError, StoreError, DataError
        See `train`.
    """
    if any(is_volume_store(path) for path in job.stores):
        if (job.config.labelled_by, job.config.val_from) != ("patient", "all"):
            raise ConfigError("volumes are drawn by patients, and held out before", where="labelled_by, val_from")
        return of_volumes(job, ranks)
    if job.config.patch is not None:
        raise ConfigError("images are cut by --crop-px, only volumes by a patch", where="patch")
    return _of_images(job, ranks)


def _of_images(job: TrainJob, ranks: Ranks) -> Work:
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
    sees_unlabelled = method.sees_unlabelled(options)
    data = training_data(stores, mpp, config, takes_unlabelled=sees_unlabelled)

    seed_all(config.fit.seed)
    used = [at for at, store in enumerate(stores) if sees_unlabelled or data.layer in store.layers]
    facts = TrainingFacts(
        name=config.name or job.output.resolve().name,
        kind="instances" if data.info.kind == "instances" else "classes",
        labels=data.info.labels,
        mpp=mpp,
        crop_px=config.crop_px,
        training_data=fingerprints([job.stores[at] for at in used], [stores[at] for at in used]),
    )
    options = method.resolved(options, facts)
    (stage,) = method.stages(options)
    learner = stage.build(facts)
    predictor = learner.predictor(learner.module)
    head = head_of(predictor.card) if isinstance(predictor, NetPredictor) else None
    return Work(
        learner=learner,
        batches=_batches(data, learner.encode, config, ranks),
        config=config.model_copy(update={"options": options.model_dump(mode="json"), "layer": data.layer, "mpp": mpp}),
        facts=facts,
        chosen=data.chosen,
        data=_told(data, config),
        judge=partial(Validation, data.held_out) if data.held_out else None,
        labels=data.fingerprint,
        roles=roles(stores, data),
        advice=None if head is None else partial(check_head, head, data.labelled),
    )


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


def _told(data: TrainingData, config: TrainConfig) -> str:
    said = [f"{_amount(data.labelled, data)} to train on"]
    if data.unlabelled:
        said.append(f"{_amount(data.unlabelled, data)} to learn from without labels")
    beyond = " with labels beyond those drawn" if config.labelled is not None and config.val_from == "all" else ""
    said.append(f"{_amount(data.held_out, data)} held out{beyond}" if data.held_out else "none held out")
    return ", ".join(said)


def _amount(sources: Sequence[Source], data: TrainingData) -> str:
    """Return how many patches, images and patients these are, in words."""
    images, groups = (
        len({name for source in sources for name in getattr(source.patches, of)[source.indices].tolist()})
        for of in ("parents", "groups")
    )
    patches = sum(len(source.indices) for source in sources)
    synthetic = sum(int((source.patches.splits[source.indices] == SYNTHETIC).sum()) for source in sources)
    count = f"{patches - synthetic} annotated and {synthetic} synthetic" if synthetic else f"{patches}"
    return f"{count} patches of {images} images" + (f" of {groups} patients" if data.has_patients else "")
