"""The job behind ``wsiseg train``: from labelled stores to a checkpoint."""

from __future__ import annotations

import math
import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from wsiseg.atomic import atomic_path
from wsiseg.config import Config, load, save
from wsiseg.errors import ConfigError, DataError
from wsiseg.lock import locked
from wsiseg.methods.base import TrainingFacts
from wsiseg.methods.registry import get_method, get_patch_method
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.tasks.train_patches import PatchRun, clear_stages, patch_data
from wsiseg.tiling.reading import open_patches
from wsiseg.training.augmentation import Augmentation
from wsiseg.training.batches import Batches
from wsiseg.training.fit import BEST, LAST, STATE, FitReport, fit
from wsiseg.training.log import CURVES, TRAINING, VALIDATION
from wsiseg.training.ranks import joined
from wsiseg.training.settings import FitSettings
from wsiseg.training.sources import Source, split_patches
from wsiseg.training.state import seed_all
from wsiseg.training.validation import Validation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wsiseg.methods.base import PatchMethod
    from wsiseg.progress import Progress
    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.stores.patches import LayerInfo
    from wsiseg.training.ranks import Ranks

CONFIG = "config.json"


class TrainConfig(Config):
    """Settings of a training.

    Parameters
    ----------
    method
        Name of the method.
    options
        Options of the method; each method documents its own.
    layer
        Layer of labels; may be left out where there is only one.
    name
        Name of the model; that of the output folder where None.
    mpp
        Micrometres per pixel to train at; None takes the first store's.
    batch_size
        Images in a batch, on each device.
    crop_px
        Side of the images that are cut from patches.
    epochs
        Rounds through the data; None leaves it to `fit.steps`.
    stages
        Stages to run of a method that has several; None runs all.
    val_fraction
        Share of the labelled patches held out by whole images, where the stores mark none as ``val``.
    weights
        Share of the draws of each store, in order; None shares by area.
    augmentation
        How images are changed.
    fit
        How the network learns.
    """

    method: str = "supervised"
    options: dict[str, Any] = Field(default_factory=dict)
    layer: str | None = None
    name: str | None = None
    mpp: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=8, gt=0)
    crop_px: int = Field(default=256, gt=0)
    epochs: float | None = Field(default=None, gt=0)
    stages: tuple[str, ...] | None = None
    val_fraction: float = Field(default=0.2, ge=0, lt=1)
    weights: tuple[float, ...] | None = None
    augmentation: Augmentation = Augmentation()
    fit: FitSettings = FitSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """What to do.

    Parameters
    ----------
    stores
        Patch stores, or folders of them; each is a source of its own.
    output
        Folder of the run.
    config
        How to train.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    overwrite
        Train from the start even if there is a run to go on with.
    """

    stores: tuple[Path, ...]
    output: Path
    config: TrainConfig
    device: str = "auto"
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """What became of a training.

    Parameters
    ----------
    fit
        Steps and metrics.
    checkpoint
        Folder of the model to use.
    is_first
        Whether this process speaks for all that trained together.
    """

    fit: FitReport
    checkpoint: Path
    is_first: bool

    def __str__(self) -> str:
        fit = self.fit
        done = f"nothing to do, all {fit.steps} steps were made before: " if fit.steps_before == fit.steps else ""
        if math.isnan(fit.best):
            return f"{done}no validation, model of step {fit.best_step} in {self.checkpoint}"
        return (
            f"{done}best {fit.metric} {fit.best:.4f} at step {fit.best_step} of {fit.steps}, model in {self.checkpoint}"
        )


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
        return _train_on_patches(patch_method, job, ranks, progress, stop)
    if config.stages is not None:
        raise ConfigError(f"the method {config.method} has no stages", where="--stages")
    method = get_method(config.method)
    options = load(method.options, options=config.options)
    stores = [open_patches([path]) for path in job.stores]
    layer, info = _layer(stores, config.layer)
    mpp = config.mpp or next((store.mpp for store in stores if store.mpp is not None), None)
    training, held_out = _sources(stores, layer, mpp, config)
    (stage,) = method.stages(options)

    seed_all(config.fit.seed)
    facts = TrainingFacts(
        name=config.name or job.output.resolve().name,
        kind=info.kind,
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
            _clear(job.output)
        if not (job.output / STATE).exists():
            save(resolved, job.output / CONFIG)
        progress.say(_summary(learner.module, training, held_out, ranks, config.batch_size * settings.accumulate))
    ranks.wait()
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
    folder = job.output / (LAST if math.isnan(report.best) else BEST)
    return TrainReport(fit=report, checkpoint=folder, is_first=ranks.is_first)


def _train_on_patches(method: PatchMethod, job: TrainJob, ranks: Ranks, progress: Progress, stop: Stop) -> TrainReport:
    config = job.config
    if "lr" in config.fit.model_fields_set or "steps" in config.fit.model_fields_set:
        raise ConfigError(
            f"the stages of {config.method} have rates and epochs of their own",
            where="--lr, --steps",
            mend="Pass --epochs, or --set options.numbers.classify.lr=…",
        )
    options = load(method.options, options=_with_numbers(config))
    stores = [open_patches([path]) for path in job.stores]
    name = config.name or job.output.resolve().name
    data = patch_data(
        open_patches(job.stores),
        name=name,
        layer=config.layer,
        training_data=fingerprints(job.stores, stores),
    )
    if ranks.is_first:
        if job.overwrite:
            _clear(job.output)
            clear_stages(job.output, method.stages(options))
        resolved = config.model_copy(update={"options": options.model_dump(mode="json"), "mpp": data.facts.mpp})
        job.output.mkdir(parents=True, exist_ok=True)
        save(resolved, job.output / CONFIG)
    ranks.wait()
    run = PatchRun(method, options, data, config.fit, job.output, ranks=ranks, progress=progress, stop=stop)
    report, model = run.run(config.stages)
    if ranks.is_first:
        _share(model, job.output / BEST)
    return TrainReport(fit=report, checkpoint=job.output / BEST, is_first=ranks.is_first)


def _with_numbers(config: TrainConfig) -> dict[str, Any]:
    """Return the options of a method in stages, with epochs and batches as they were asked for."""
    asked = {
        key: value
        for key, value in (("epochs", config.epochs), ("batch_images", config.batch_size))
        if {"epochs": "epochs", "batch_images": "batch_size"}[key] in config.model_fields_set and value is not None
    }
    if not asked:
        return config.options
    numbers = dict(config.options.get("numbers", {}))
    for stage in ("classify", "segment"):
        numbers[stage] = {**asked, **numbers.get(stage, {})}
    return {**config.options, "numbers": numbers}


def _share(model: Path, folder: Path) -> None:
    """Give a model another place without using twice the space."""
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for file in model.iterdir():
            try:
                (temporary / file.name).hardlink_to(file)
            except OSError:
                # Some file systems know no links.
                shutil.copy2(file, temporary / file.name)
        shutil.rmtree(folder, ignore_errors=True)


def fingerprints(paths: Sequence[Path], stores: Sequence[PatchSet]) -> dict[str, str]:
    """Return the fingerprint of each store by its name, numbered where several have one."""
    names = [path.resolve().name for path in paths]
    numbered = [name if names.count(name) == 1 else f"{name} ({at})" for at, name in enumerate(names, start=1)]
    return {name: store.fingerprint for name, store in zip(numbered, stores, strict=True)}


def _layer(stores: Sequence[PatchSet], name: str | None) -> tuple[str, LayerInfo]:
    """Return the layer to train on, the same in all stores."""
    known = sorted({layer for store in stores for layer in store.layers})
    if not known:
        raise DataError(
            "the stores have no layer of labels", mend="Make them with wsiseg ingest --labels-as, or import labels"
        )
    if name is None and len(known) > 1:
        raise ConfigError(
            "the stores have several layers of labels", mend=f"Pass --layer with one of {', '.join(known)}"
        )
    name = name or known[0]
    for store in stores:
        if name not in store.layers:
            raise DataError(
                f"a store has no layer {name!r}",
                where=", ".join(sorted(set(store.parents))[:3]),
                mend=f"There are: {', '.join(store.layers) or 'none'}",
            )
    infos = [store.layers[name] for store in stores]
    if any(info != infos[0] for info in infos):
        raise DataError(f"the layers {name!r} of the stores have different classes", mend="Train on them one by one")
    return name, infos[0]


def _sources(
    stores: Sequence[PatchSet], layer: str, mpp: float | None, config: TrainConfig
) -> tuple[list[Source], list[Source]]:
    """Return what to train and to validate on."""
    weights: Sequence[float | None] = config.weights or [None] * len(stores)
    if len(weights) != len(stores):
        raise ConfigError(f"{len(weights)} weights for {len(stores)} stores", where="weights", mend="Give one for each")
    splits = split_patches(stores, layer, val_fraction=config.val_fraction, seed=config.fit.seed)
    training, held_out = [], []
    for store, weight, (train_indices, val_indices) in zip(stores, weights, splits, strict=True):
        training.append(Source(patches=store, layer=layer, indices=train_indices, mpp=mpp, weight=weight))
        if len(val_indices):
            held_out.append(Source(patches=store, layer=layer, indices=val_indices, mpp=mpp))
    return training, held_out


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


def _clear(output: Path) -> None:
    for name in (BEST, LAST):
        shutil.rmtree(output / name, ignore_errors=True)
    for name in (STATE, TRAINING, VALIDATION, CURVES, CONFIG):
        (output / name).unlink(missing_ok=True)


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
