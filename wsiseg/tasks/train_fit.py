"""Training one learner in the folder of a run, be it of images or of volumes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wsiseg.atomic import write_bytes
from wsiseg.checkpoint import CARD, read
from wsiseg.config import save
from wsiseg.errors import ConfigError
from wsiseg.tasks.train_job import CONFIG, LABELLED, ROLES, TrainReport, clear, plan_of, with_steps
from wsiseg.training.fit import fit
from wsiseg.training.state import check_plan, read_begun
from wsiseg.training.teacher_check import Taught, TeacherCheck
from wsiseg.training.training_run import BEST, LAST, STATE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from wsiseg.methods.base import DenseLearner, PredictorSpec, TrainingFacts
    from wsiseg.progress import Progress
    from wsiseg.stopping import Stop
    from wsiseg.tasks.train_job import TrainConfig, TrainJob
    from wsiseg.training.batches import BatchStream
    from wsiseg.training.ranks import Ranks
    from wsiseg.training.state import Remedy
    from wsiseg.training.validation import Validator

# What torch says where batch normalisation in training sees a single value; its error has no kind of its own.
_ALONE: Final = "more than 1 value per channel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A learner, and what it learns from and is judged by.

    Parameters
    ----------
    learner
        Untrained.
    batches
        What it learns from.
    config
        Settings as they were resolved, but for the number of steps.
    facts
        The data.
    chosen
        The images whose labels are used, where not all of them are.
    data
        What there is to learn from and to judge by, in words.
    judge
        Makes what judges predictors of a kind; None where nothing is held out.
    labels
        Hash of the labels that are learnt from and judged by; empty where `facts` tell it all.
    roles
        What each image is to the training, as a table; empty where that is not told.
    advice
        Says how well labels suit the model, before anything is learnt; None where nothing is to be said.
    """

    learner: DenseLearner
    batches: BatchStream
    config: TrainConfig
    facts: TrainingFacts
    chosen: list[str] | None
    data: str
    judge: Callable[[PredictorSpec], Validator] | None
    labels: str = ""
    roles: str = ""
    advice: Callable[[], str] | None = None


def carry_out(work: Work, job: TrainJob, ranks: Ranks, progress: Progress, stop: Stop) -> TrainReport:
    """Train, or go on with a training that was interrupted; see `train`.

    Raises
    ------
    ConfigError
        If batches are too small for the network, or the baseline has nothing to compare with.
    DataError
        If the run was begun with other settings or data.
    StoppedError
        If `stop` was requested; the state is saved.
    """
    learner, settings = work.learner, with_steps(work.config, work.batches)
    resolved = work.config.model_copy(update={"fit": settings})
    if ranks.is_first:
        if job.overwrite:
            clear(job.output)
        if not (job.output / STATE).exists():
            save(resolved, job.output / CONFIG)
            # What is left of a call that was killed before its first state says nothing of this one.
            write_choice(job.output, work.chosen, work.roles)
            if work.advice is not None and (told := work.advice()):
                progress.say(told)
        progress.say(_summary(work, ranks, work.batches.images_per_batch * settings.accumulate))
    ranks.wait()
    validation = None if work.judge is None else work.judge(learner.predictor(learner.module).spec)
    probe = None
    if work.judge is not None and isinstance(learner, Taught):
        probe = _teacher_check(learner, work.judge(learner.teacher(learner.module).spec), work.config)
    try:
        report = fit(
            learner,
            work.batches,
            settings,
            job.output,
            validation=validation,
            probe=probe,
            plan=plan_of(resolved, work.facts, work.chosen, work.labels),
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


def is_finished(work: Work, folder: Path, remedy: Remedy) -> bool:
    """Tell whether a training was carried out before; see that one that was begun may go on.

    Parameters
    ----------
    work
        The training.
    folder
        Its own.
    remedy
        What is told where it cannot go on.

    Raises
    ------
    DataError
        If it was begun with other settings or data.
    """
    begun = read_begun(folder / STATE, remedy)
    if begun is None:
        return False
    settings = with_steps(work.config, work.batches)
    plan = plan_of(work.config.model_copy(update={"fit": settings}), work.facts, work.chosen, work.labels)
    check_plan(begun.plan, plan, where=folder, remedy=remedy)
    return begun.step == settings.steps and (folder / LAST / CARD).exists()


def write_choice(folder: Path, chosen: Sequence[str] | None, roles: str) -> None:
    """Write into the folder of a run what is learnt from; see `Work`. Older such files go."""
    for name, text in ((LABELLED, "".join(f"{image}\n" for image in chosen or ())), (ROLES, roles)):
        (folder / name).unlink(missing_ok=True)
        if text:
            write_bytes(folder / name, text.encode())


def _teacher_check(learner: Taught, validation: Validator, config: TrainConfig) -> TeacherCheck:
    """Return what judges the teacher beside its student."""
    if config.baseline is None:
        return TeacherCheck(learner, validation)
    metrics = read(config.baseline).card.metrics
    if validation.metric not in metrics:
        raise ConfigError(
            f"the model has no {validation.metric} of validation to compare with",
            where=f"baseline {config.baseline}",
            mend="Name a run with validation on the same kind of labels",
        )
    return TeacherCheck(learner, validation, baseline=metrics[validation.metric])


def _summary(work: Work, ranks: Ranks, batch: int) -> str:
    weights = sum(value.numel() for value in work.learner.module.parameters() if value.requires_grad)
    devices = f"{ranks.world} × {ranks.device}" if ranks.world > 1 else f"{ranks.device}"
    what = "windows" if work.facts.volume is not None else "images"
    return f"{weights / 1e6:.2f} M weights on {devices}, {work.data}, {batch} {what} per step"
