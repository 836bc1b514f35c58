"""What a training is asked to do, and what it reports."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field

from wsiseg.config import Config, load, merged
from wsiseg.training.augmentation import Augmentation
from wsiseg.training.log import CURVES, TRAINING, VALIDATION
from wsiseg.training.settings import FitSettings
from wsiseg.training.training_run import BEST, LAST, STATE
from wsiseg.volumes import Shape  # noqa: TC001 - pydantic reads the annotations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wsiseg.methods.base import TrainingFacts
    from wsiseg.training.batches import BatchStream
    from wsiseg.training.fit import FitReport

CONFIG = "config.json"
LABELLED = "labelled.txt"
ROLES = "split.csv"
PAGE = "report.html"
Weight: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]


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
    labelled
        Of what there is to train on, that whose labels may be used: a share (``0.1`` or ``10%``; ``1.0`` is all), a
        count (``1`` is one), or a file with one name in each line; or a table with a column ``patch``, such as that of
        `wsiseg select`, whose patches of rank 1 are meant. None uses all. Methods that learn from images without labels
        see the others, too.
    labelled_by
        What is drawn or named: the ``patient`` with all images, where the store names patients (else slides or images),
        each ``image`` on its own, or each ``patch``. A table names patches in any case.
    split_seed
        Decides which images are held out and which labels are used; the seed of `fit` where None.
    batch_size
        Images in a batch, on each device; of methods that learn from images without labels, those with labels.
    unlabelled_batch_size
        Images without labels in a batch; as many as with labels where None.
    crop_px
        Side of the images that are cut from patches.
    patch
        Voxels of the windows that are cut from volumes, (D, H, W). Where None, a cube of `crop_px` if that is given;
        else what holds most volumes, 96 along each axis at most.
    epochs
        Rounds through the data; None leaves it to `fit.steps`.
    stages
        Stages to run of a method that has several; None runs all.
    val_fraction
        Share of the labelled patches held out by whole patients, slides or images, where the stores mark none as
        ``val``.
    val_from
        What is held out of where `labelled` draws: ``all`` that have labels, so that validation needs labels beyond
        those drawn, and draws of any size are judged by the same images; or those drawn (``labelled``), which are
        then fewer to learn from.
    weights
        Share of the draws of each store, in order, 0 or more; None shares by area.
    baseline
        Run of learning from the same labels alone; a word is said where the teacher of a method is worse than it.
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
    labelled: str | None = Field(default=None, coerce_numbers_to_str=True)
    labelled_by: Literal["patient", "image", "patch"] = "patient"
    split_seed: int | None = Field(default=None, ge=0)
    batch_size: int = Field(default=8, gt=0)
    unlabelled_batch_size: int | None = Field(default=None, gt=0)
    crop_px: int = Field(default=256, gt=0)
    patch: Shape | None = None
    epochs: float | None = Field(default=None, gt=0)
    stages: tuple[str, ...] | None = None
    val_fraction: float = Field(default=0.2, ge=0, lt=1)
    val_from: Literal["all", "labelled"] = "all"
    weights: tuple[Weight, ...] | None = None
    baseline: Path | None = None
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
    is_best
        Whether the model is the one that was best in validation; else it is the last.
    """

    fit: FitReport
    checkpoint: Path
    is_first: bool
    is_best: bool

    def __str__(self) -> str:
        fit = self.fit
        done = f"nothing to do, all {fit.steps} steps were made before: " if fit.steps_before == fit.steps else ""
        if math.isnan(fit.best):
            return f"{done}no validation, model of step {fit.best_step} in {self.checkpoint}"
        if not self.is_best:
            best = f"the best {fit.metric} was {fit.best:.4f} at step {fit.best_step}"
            return f"{done}model of step {fit.steps} in {self.checkpoint}, {best}"
        return (
            f"{done}best {fit.metric} {fit.best:.4f} at step {fit.best_step} of {fit.steps}, model in {self.checkpoint}"
        )


def with_usual(config: TrainConfig, usual: Mapping[str, Any]) -> TrainConfig:
    """Return settings in which those that are usual for a method take the place of what was not asked for."""
    return load(TrainConfig, options=merged(usual, config.model_dump(exclude_unset=True)))


def with_steps(config: TrainConfig, batches: BatchStream) -> FitSettings:
    """Return how the network learns, the updates counted where rounds through the data are asked for."""
    if config.epochs is None:
        return config.fit
    images = config.fit.accumulate * batches.images_per_batch
    steps = max(1, math.ceil(config.epochs * batches.images_per_epoch / images))
    return config.fit.model_copy(update={"steps": steps})


def plan_of(
    config: TrainConfig, facts: TrainingFacts, chosen: Sequence[str] | None, labels: str = ""
) -> dict[str, Any]:
    """Return what the result depends on; the rest may change when a training goes on.

    Parameters
    ----------
    config
        The resolved settings.
    facts
        The data.
    chosen
        Those whose labels are used, where not all of them are.
    labels
        Hash of the labels that are used, where what `facts` tell of the data leaves them open.
    """
    without: dict[str, Any] = {
        # What is drawn is what counts, not how.
        "labelled": True,
        "labelled_by": True,
        "baseline": True,
        "fit": {"num_workers", "save_interval_s"},
    }
    if config.val_from == "all":
        # Trainings that were begun before there was a choice may go on.
        without["val_from"] = True
    settings = config.model_dump(mode="json", exclude=without)
    fit_settings = settings.pop("fit")
    if config.fit.schedule != "step":
        # Numbers of another schedule; trainings that were begun before there was this one may go on.
        del fit_settings["step_every"], fit_settings["step_factor"]
    return {
        **settings,
        **{f"fit.{key}": value for key, value in fit_settings.items()},
        "data": facts.training_data,
        "labelled": chosen,
        **({"labels": labels} if labels else {}),
    }


def clear(output: Path) -> None:
    """Remove what an earlier run left in the folder of a run."""
    for name in (BEST, LAST):
        shutil.rmtree(output / name, ignore_errors=True)
    for name in (STATE, TRAINING, VALIDATION, CURVES, CONFIG, PAGE, LABELLED, ROLES):
        (output / name).unlink(missing_ok=True)
