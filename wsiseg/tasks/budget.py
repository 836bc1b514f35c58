"""The job behind ``wsiseg budget``: what more labels are worth, by training with more and more of them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from wsiseg.config import load
from wsiseg.errors import BusyError, DataError, PredictionError, SomeFailedError, StoppedError, WsisegError
from wsiseg.nets.devices import choose_device
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.stores.volume_store import VolumeStore, is_volume_store
from wsiseg.tasks.budget_begun import begin, read_begun
from wsiseg.tasks.budget_cells import FAILED, SCORES, Cell, Failure, cell_folder, counted, write_cell, write_failure
from wsiseg.tasks.budget_draws import dealt, is_of_volumes, plans_of
from wsiseg.tasks.budget_page import PAGE, write_study
from wsiseg.tasks.budget_scores import judged
from wsiseg.tasks.budget_settings import check_each, check_network, training_of
from wsiseg.tasks.budget_trial import cards_of, heads_told, shared_head, with_head
from wsiseg.tasks.budget_words import in_words_of_study
from wsiseg.tasks.train import train
from wsiseg.tasks.train_data import fingerprints
from wsiseg.tasks.train_job import CONFIG, TrainConfig, TrainJob
from wsiseg.tiling.reading import open_patches

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wsiseg.progress import Progress
    from wsiseg.tasks.budget_draws import Plan
    from wsiseg.tasks.budget_settings import BudgetConfig

Outcome = Literal["trained", "made before", "left", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetJob:
    """What to do.

    Parameters
    ----------
    stores
        Patch stores; patches marked ``test`` judge, and are never trained on.
    output
        Folder of the study.
    config
        Which trainings.
    device
        What they compute on.
    num_shards, shard_index
        The part of the trainings that is ours; see `dealt`.
    """

    stores: tuple[Path, ...]
    output: Path
    config: BudgetConfig
    device: str = "auto"
    num_shards: int | None = None
    shard_index: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetReport:
    """What became of a study.

    Parameters
    ----------
    outcomes
        How many trainings were made by this call, were made before, are left to other jobs, and failed.
    sentences
        What the study says.
    page
        The page.
    """

    outcomes: Counter[Outcome]
    sentences: tuple[str, ...]
    page: Path

    def __str__(self) -> str:
        kinds: tuple[Outcome, ...] = ("trained", "made before", "left", "failed")
        told = ", ".join(f"{self.outcomes[kind]} {kind}" for kind in kinds if self.outcomes[kind])
        return "\n".join([f"{told or 'nothing to do'}, page in {self.page}", *self.sentences])

    def check(self) -> None:
        """Raise if a training failed.

        Raises
        ------
        SomeFailedError
            If one did.
        DataError
            If one did, and none is done.
        """
        failed, left = self.outcomes["failed"], self.outcomes["left"]
        done = self.outcomes["trained"] + self.outcomes["made before"]
        if not failed:
            return
        trainings = "training" if failed == 1 else "trainings"
        told = f"{failed} {trainings} failed, {done or 'none'} done" + (f", {left} left to other jobs" if left else "")
        kind = SomeFailedError if done else DataError
        raise kind(told, where=self.page, mend="The page tells why; run it again when that is mended")


def budget(job: BudgetJob, progress: Progress = SILENT, stop: Stop | None = None) -> BudgetReport:
    """Train each method with each share of the labels and each seed, or go on with that, and tell what it is worth.

    The page tells of all that the study has, also where a call is stopped, or asks for a part of it.

    Raises
    ------
    ConfigError, MethodError
        If settings make no sense, before anything is trained.
    StoreError, DataError
        If the stores cannot be learnt from, nothing that is marked ``test`` has labels, or trainings that are done had
        other settings.
    BusyError
        If settings changed and another job still trains with those before.
    StoppedError
        If `stop` was requested; the state is saved.
    """
    stop, config = stop or Stop(), job.config
    of_volumes = is_of_volumes(job.stores)
    with in_words_of_study():
        # Settings of methods that this call does not ask for are read, too, so that slips are told.
        for name in config.each:
            if name not in config.methods:
                check_each(config, name)
        known = read_begun(job.output)
        check_network(config if known is None else config.with_all_of(known.config))
        trainings = {name: training_of(config, name, of_volumes=of_volumes) for name in config.methods}
        plans = plans_of(job.stores, config, trainings, progress)
        cards = cards_of(job.stores, job.output, trainings)
    begun = begin(job.output, config, _fingerprints(job.stores), head=shared_head(cards, trainings))
    trainings = {name: with_head(training, begun.head) for name, training in trainings.items()}
    if told := heads_told(cards, trainings):
        progress.say(told)
    outcomes: Counter[Outcome] = Counter()
    mine = dealt(plans, job.num_shards, job.shard_index)
    try:
        for number, plan in enumerate(mine, start=1):
            if _is_made(job, plan):
                outcomes["made before"] += 1
                continue
            progress.say(f"training {number} of {len(mine)}: {plan.method}, {plan.size} labelled, seed {plan.seed}")
            outcomes[_outcome(job, plan, trainings[plan.method], progress, stop)] += 1
    except BaseException:
        # Why it ends says more than that others are drawing.
        try:
            write_study(job.output)
        except BusyError:
            progress.say("other jobs draw the page; it tells of this call when one of them ends")
        raise
    study = write_study(job.output)
    others = [plan for plan in plans if plan not in mine]
    outcomes["made before"] += sum(_is_made(job, plan) for plan in others)
    outcomes["left"] += sum(not _is_made(job, plan) for plan in others)
    return BudgetReport(outcomes=outcomes, sentences=study.sentences(), page=job.output / PAGE)


def _fingerprints(paths: Sequence[Path]) -> dict[str, str]:
    stores = [VolumeStore.open(path) if is_volume_store(path) else open_patches([path]) for path in paths]
    return fingerprints(paths, stores)


def _folder(job: BudgetJob, plan: Plan) -> Path:
    return cell_folder(job.output, plan.method, plan.size, plan.seed)


def _is_made(job: BudgetJob, plan: Plan) -> bool:
    return (_folder(job, plan) / SCORES).exists()


def _outcome(job: BudgetJob, plan: Plan, config: TrainConfig, progress: Progress, stop: Stop) -> Outcome:
    """Make one training and tell what became of it; one that another job makes is left to it.

    Raises
    ------
    StoppedError
        If `stop` was requested.
    """
    try:
        with in_words_of_study():
            _make(job, plan, config, progress, stop)
    except StoppedError:
        raise
    except BusyError as error:
        progress.say(f"left: {error}")
        return "left"
    except WsisegError as error:
        progress.say(f"failed: {error}")
        failure = Failure(method=plan.method, size=plan.size, seed=plan.seed, why=str(error))
        write_failure(_folder(job, plan), failure)
        return "failed"
    return "trained"


def _make(job: BudgetJob, plan: Plan, config: TrainConfig, progress: Progress, stop: Stop) -> None:
    """Train one model and write down how good it is on the test patches."""
    import torch

    folder = _folder(job, plan)
    fit = config.fit.model_copy(update={"seed": plan.seed})
    resolved = config.model_copy(update={"labelled": plan.size, "split_seed": plan.seed, "fit": fit})
    try:
        report = train(TrainJob(stores=job.stores, output=folder, config=resolved, device=job.device), progress, stop)
        used = load(TrainConfig, options=json.loads((folder / CONFIG).read_bytes()))
        scores = judged(report.checkpoint, job.stores, used.layer, used.mpp, choose_device(job.device))
    except torch.OutOfMemoryError as error:
        raise PredictionError(
            "the training does not fit into the device's memory",
            where=folder,
            mend="Pass a smaller --batch-size or --crop-px, and another --output if trainings with these are done",
        ) from error
    images, held_out = counted(folder, plan.unit)
    cell = Cell(
        method=plan.method,
        size=plan.size,
        images=images,
        seed=plan.seed,
        steps=report.fit.best_step,
        scores=scores,
        held_out=held_out if report.is_best else 0,
        unit=plan.unit,
        lacks_unlabelled=plan.lacks_unlabelled,
    )
    write_cell(folder, cell)
    (folder / FAILED).unlink(missing_ok=True)
