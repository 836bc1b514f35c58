"""The loop in which networks learn."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wsiseg.checkpoint import CARD
from wsiseg.methods.base import Clock, Learner
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.training.batches import Awaited
from wsiseg.training.ranks import Ranks
from wsiseg.training.state import Remedy, seed_all
from wsiseg.training.training_run import LAST, TrainingRun

if TYPE_CHECKING:
    from pathlib import Path

    from wsiseg.progress import Progress
    from wsiseg.training.batches import BatchStream
    from wsiseg.training.probe import Judge
    from wsiseg.training.settings import FitSettings
    from wsiseg.training.state_file import State
    from wsiseg.training.validation import Validator

# Share of the time waited for batches from which a word about it is worth reading.
_LONG_WAIT: Final = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """What became of a training.

    Parameters
    ----------
    steps
        Updates made in all.
    steps_before
        Those that had been made before this call.
    metric
        Name of the validation metric; empty without validation.
    best
        Its highest value; NaN without validation.
    best_step
        Updates behind the model in ``best``.
    wait
        Share of the time of this call that was waited for batches, 0 … 1; NaN without updates.
    """

    steps: int
    steps_before: int
    metric: str
    best: float
    best_step: int
    wait: float


def fit(
    learner: Learner,
    batches: BatchStream,
    settings: FitSettings,
    folder: Path,
    *,
    validation: Validator | None = None,
    probe: Judge | None = None,
    is_best_kept: bool = True,
    plan: State | None = None,
    remedy: Remedy | None = None,
    ranks: Ranks | None = None,
    stop: Stop | None = None,
    progress: Progress = SILENT,
) -> FitReport:
    """Train a learner, or go on where an earlier call was stopped or killed.

    Writes to `folder`: checkpoints ``best`` (of the highest validation metric) and ``last``,
    ``log.csv``, ``validation.csv``, ``curves.png``, and ``last.pt`` to go on from. A training
    that was interrupted ends with the same weights as one that was not (on one kind of machine);
    of one that had ended nothing is written again.
    The column ``wait`` of ``log.csv`` is the share of the time since the row before it that was
    waited for batches; more ``num_workers`` shorten it.

    Parameters
    ----------
    learner
        What is trained; moved to the device of `ranks`.
    batches
        Give batch n for any n.
    settings
        How.
    folder
        Belongs to this training; the caller holds its lock.
    validation
        Judges predictors; without it the last weights are the best.
    probe
        Judges something else of the learner whenever `validation` judges what it predicts.
    is_best_kept
        Write ``best``.
    plan
        What the result depends on; going on with another is refused.
    remedy
        What is told of where the training cannot go on.
    ranks
        The processes that train together; all of them call this function.
    stop
        Looked at after each update.
    progress
        Told of every update.

    Raises
    ------
    StoppedError
        If `stop` was requested; the state is saved.
    MethodError
        If the loss is no longer finite.
    DataError
        If the state in `folder` belongs to another plan.
    """
    ranks = ranks or Ranks()
    seed_all(settings.seed, ranks.rank)
    run = TrainingRun(
        learner,
        settings,
        folder,
        validation=validation,
        probe=probe,
        is_best_kept=is_best_kept,
        plan=plan or {},
        remedy=remedy or Remedy(),
        ranks=ranks,
        stop=stop or Stop(),
    )
    state, begun = run.state, run.state.step
    first, last = begun * settings.accumulate, settings.steps * settings.accumulate
    stream = Awaited(batches.stream(first, last, workers=settings.num_workers))
    with closing(stream), progress.task("training", total=settings.steps, unit="steps") as advance:
        advance(begun, status=run.status)
        while state.step < settings.steps:
            clock = Clock(step=state.step, steps=settings.steps)
            run.update(stream, clock)
            learner.after_update(clock)
            state.update_average()
            state.step += 1
            # The first loss is what all later ones are compared with.
            if state.step == 1 or run.is_time(settings.log_every):
                images = state.step * settings.accumulate * batches.images_per_batch
                run.log_losses(images / batches.images_per_epoch, stream.share_since_last())
            if run.is_time(settings.validate_every):
                run.judge(clock)
            advance(status=run.status)
            run.keep()
        wait = stream.share() if state.step > begun else math.nan
        if wait > _LONG_WAIT:
            progress.say(f"{wait:.0%} of the time was spent waiting for batches; more --num-workers shorten that")
    if state.step > begun or not (folder / LAST / CARD).exists():
        run.finish()
    return FitReport(
        steps=state.step,
        steps_before=begun,
        metric=validation.metric if validation is not None else "",
        best=state.best if validation is not None else math.nan,
        best_step=state.best_step if validation is not None else state.step,
        wait=wait,
    )
