"""Training from patches of which is only known what they show, as ``wsiseg train`` asks for it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from wsiseg.atomic import atomic_path
from wsiseg.config import load, save
from wsiseg.errors import ConfigError
from wsiseg.tasks.patch_data import patch_data
from wsiseg.tasks.patch_run import PatchRun, clear_stages
from wsiseg.tasks.train_data import fingerprints
from wsiseg.tasks.train_job import CONFIG, TrainReport, clear
from wsiseg.tiling.reading import open_patches
from wsiseg.training.fit import BEST

if TYPE_CHECKING:
    from pathlib import Path

    from wsiseg.methods.stages import PatchMethod
    from wsiseg.progress import Progress
    from wsiseg.stopping import Stop
    from wsiseg.tasks.train_job import TrainConfig, TrainJob
    from wsiseg.training.ranks import Ranks


def train_on_patches(method: PatchMethod, job: TrainJob, ranks: Ranks, progress: Progress, stop: Stop) -> TrainReport:
    """Train the stages of a method one after the other; see `train`.

    Raises
    ------
    ConfigError
        If settings make no sense for the method.
    """
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
            clear(job.output)
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
