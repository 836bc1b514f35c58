"""Training from patches of which is only known what they show, as ``wsiseg train`` asks for it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from wsiseg.atomic import atomic_path
from wsiseg.config import save
from wsiseg.errors import ConfigError
from wsiseg.tasks.patch_data import patch_data
from wsiseg.tasks.patch_run import PatchRun, clear_stages, finished
from wsiseg.tasks.stage_options import NUMBERS, choose, note_options
from wsiseg.tasks.train_data import fingerprints
from wsiseg.tasks.train_job import CONFIG, PAGE, TrainReport, clear
from wsiseg.tasks.train_report import write_report
from wsiseg.tiling.reading import open_patches
from wsiseg.training.training_run import BEST

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
    "labelled": "--labelled",
    "labelled_by": "labelled_by",
    "val_from": "val_from",
    "split_seed": "split_seed",
    "unlabelled_batch_size": "unlabelled_batch_size",
    "weights": "weights",
    "augmentation": "augmentation",
}
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
    chosen = choose(method, config, job.output, progress)
    stages = chosen.stages
    # All have looked at the folder before it changes.
    ranks.wait()
    stores = [open_patches([path]) for path in job.stores]
    data = patch_data(
        open_patches(job.stores),
        name=config.name or job.output.resolve().name,
        layer=config.layer,
        training_data=fingerprints(job.stores, stores),
    )
    resolved = config.model_copy(update={"options": chosen.options.model_dump(mode="json"), "mpp": data.facts.mpp})
    if ranks.is_first:
        if job.overwrite:
            clear(job.output)
            clear_stages(job.output, stages, config.stages)
        if not (job.output / CONFIG).exists():
            save(resolved, job.output / CONFIG)
        note_options(chosen, job.output, config.stages, is_certain=False)
    ranks.wait()
    run = PatchRun(method, stages, data, config.fit, job.output, ranks=ranks, progress=progress, stop=stop)
    report = run.run(config.stages)
    model = finished(job.output, stages) or report.model
    if ranks.is_first:
        # Only now is it certain that all stages had these settings.
        save(resolved, job.output / CONFIG)
        note_options(chosen, job.output, config.stages, is_certain=True)
        share_model(model, job.output / BEST)
        if report.is_new or not (job.output / PAGE).exists():
            # If this is stopped, the next call must not take an older page for the new one.
            (job.output / PAGE).unlink(missing_ok=True)
            write_report(
                job.output,
                data,
                report.models,
                report.layers,
                method=config.method,
                device=ranks.device,
                progress=progress,
                stop=stop,
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
    owned = [_FIT_OPTIONS.get(name, f"fit.{name}") for name in NUMBERS if name in config.fit.model_fields_set]
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


def share_model(model: Path, folder: Path) -> None:
    """Give a model another place without using twice the space."""
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for file in model.iterdir():
            try:
                (temporary / file.name).hardlink_to(file)
            except OSError:
                # Some file systems know no links.
                shutil.copy2(file, temporary / file.name)
