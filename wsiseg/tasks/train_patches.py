"""Training from patches of which is only known what they show, as ``wsiseg train`` asks for it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Final

from wsiseg.atomic import atomic_path
from wsiseg.config import load, save
from wsiseg.errors import ConfigError
from wsiseg.methods.stages import LabelStage
from wsiseg.tasks.patch_data import patch_data
from wsiseg.tasks.patch_run import PatchRun, chosen, clear_stages, finished
from wsiseg.tasks.train_data import fingerprints
from wsiseg.tasks.train_job import CONFIG, PAGE, TrainReport, clear
from wsiseg.tasks.train_report import write_report
from wsiseg.tiling.reading import open_patches
from wsiseg.training.fit import BEST

if TYPE_CHECKING:
    from pathlib import Path

    from wsiseg.methods.stages import PatchMethod
    from wsiseg.progress import Progress
    from wsiseg.stopping import Stop
    from wsiseg.tasks.train_job import TrainConfig, TrainJob
    from wsiseg.training.ranks import Ranks

# Settings that mean nothing where whole patches are learnt from, and what they are called on the command line.
_UNUSED: Final = {
    "mpp": "--mpp",
    "crop_px": "--crop-px",
    "val_fraction": "--val-fraction",
    "weights": "weights",
    "augmentation": "augmentation",
}
# Settings of the fit that are the method's own.
_OWNED: Final = (
    "steps", "accumulate", "optimiser", "momentum", "schedule", "power", "lr", "lr_floor", "warmup", "weight_decay",
    "clip_norm", "validate_every",
)  # fmt: skip
_FIT_OPTIONS: Final = {"steps": "--steps", "accumulate": "--accumulate", "lr": "--lr"}
_NETWORK: Final = ("arch", "encoder", "head")


def train_on_patches(method: PatchMethod, job: TrainJob, ranks: Ranks, progress: Progress, stop: Stop) -> TrainReport:
    """Train the stages of a method one after the other; see `train`.

    Raises
    ------
    ConfigError
        If settings make no sense for the method.
    """
    config = job.config
    check_settings(method, config)
    options = load(method.options, options=_with_numbers(method, config))
    stages = method.stages(options)
    chosen(stages, config.stages)
    stores = [open_patches([path]) for path in job.stores]
    data = patch_data(
        open_patches(job.stores),
        name=config.name or job.output.resolve().name,
        layer=config.layer,
        training_data=fingerprints(job.stores, stores),
    )
    resolved = config.model_copy(update={"options": options.model_dump(mode="json"), "mpp": data.facts.mpp})
    if ranks.is_first:
        if job.overwrite:
            clear(job.output)
            clear_stages(job.output, stages, config.stages)
        if not (job.output / CONFIG).exists():
            save(resolved, job.output / CONFIG)
    ranks.wait()
    run = PatchRun(method, options, data, config.fit, job.output, ranks=ranks, progress=progress, stop=stop)
    report = run.run(config.stages)
    model = finished(job.output, stages) or report.model
    if ranks.is_first:
        # Only now is it certain that all stages had these settings.
        save(resolved, job.output / CONFIG)
        _share(model, job.output / BEST)
        if report.is_new or not (job.output / PAGE).exists():
            write_report(
                job.output,
                data,
                report.models,
                report.layers,
                method=config.method,
                device=ranks.device,
                progress=progress,
            )
    return TrainReport(
        fit=report.fit,
        checkpoint=job.output / BEST if model == report.model else report.model,
        is_first=ranks.is_first,
        is_best=report.model.name == BEST,
    )


def check_settings(method: PatchMethod, config: TrainConfig) -> None:
    """See that nothing is asked for that means nothing to the stages of a method.

    Raises
    ------
    ConfigError
        If something is.
    """
    given = [option for name, option in _UNUSED.items() if name in config.model_fields_set]
    if given:
        raise ConfigError(
            f"{config.method} learns from whole patches as they are",
            where=", ".join(given),
            mend="Leave it out; wsiseg tile and wsiseg ingest decide size, resolution and splits of patches",
        )
    owned = [_FIT_OPTIONS.get(name, f"fit.{name}") for name in _OWNED if name in config.fit.model_fields_set]
    if owned:
        raise ConfigError(
            f"the stages of {config.method} have numbers of their own",
            where=", ".join(owned),
            mend="Pass --epochs or --batch-size, or for one stage --set options.numbers.STAGE.lr=…",
        )
    foreign = [f"--{name}" for name in _NETWORK if name in config.options and name not in method.options.model_fields]
    if foreign:
        raise ConfigError(
            f"{config.method} has networks of its own", where=", ".join(foreign), mend="Choose their --backbone"
        )


def _with_numbers(method: PatchMethod, config: TrainConfig) -> dict[str, Any]:
    """Return the options of a method, with epochs and batches of all its stages as they were asked for."""
    asked = {
        number: getattr(config, name)
        for number, name in (("epochs", "epochs"), ("batch_images", "batch_size"))
        if name in config.model_fields_set and getattr(config, name) is not None
    }
    if not asked:
        return config.options
    stages = method.stages(load(method.options, options=config.options))
    numbers = dict(config.options.get("numbers", {}))
    for stage in stages:
        if not isinstance(stage, LabelStage):
            numbers[stage.name] = {**asked, **numbers.get(stage.name, {})}
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
