"""The job behind ``wsiseg budget``: what more labels are worth, by training with more and more of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import Field, field_validator

from wsiseg.atomic import write_bytes
from wsiseg.config import Config, load, merged
from wsiseg.errors import ConfigError, DataError, SomeFailedError, StoppedError, WsisegError
from wsiseg.manifest import shard
from wsiseg.methods.registry import get_method, get_patch_method
from wsiseg.nets.devices import choose_device
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.stores.volume_store import VolumeStore, is_volume_store
from wsiseg.tasks.budget_report import Cell, Study, write_study
from wsiseg.tasks.budget_scores import has_judges, judged
from wsiseg.tasks.train import train
from wsiseg.tasks.train_data import fingerprints
from wsiseg.tasks.train_job import CONFIG, LABELLED, TrainConfig, TrainJob
from wsiseg.tiling.reading import open_patches

if TYPE_CHECKING:
    from pathlib import Path

    from wsiseg.progress import Progress

BEGUN: Final = "study.json"
CELLS: Final = "cells"
SCORES: Final = "scores.json"


class BudgetConfig(Config):
    """Settings of a study.

    Parameters
    ----------
    methods
        Methods that learn from labels of pixels, or names of variants that `each` has.
    fractions
        Shares of the images to train on whose labels are used, each above 0 and up to 1.
    counts
        The same as numbers of images; in the place of `fractions`.
    seeds
        Trainings of each method with each share; each draws images of its own.
    train
        Settings of all trainings, as in a configuration of ``wsiseg train``.
    each
        Settings of the trainings of one method, by its name; they come before those of all. Under any other name they
        make a variant of the ``method`` that they name, such as one that learns from labels alone.
    """

    methods: tuple[str, ...] = Field(default=("supervised", "mean-teacher"), min_length=1)
    fractions: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1.0)
    counts: tuple[int, ...] = ()
    seeds: int = Field(default=3, gt=0)
    train: dict[str, Any] = Field(default_factory=dict)
    each: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("methods")
    @classmethod
    def _are_names(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        # They are names of folders, too.
        if wrong := [value for value in values if not re.fullmatch(r"\w[\w.-]*", value)]:
            raise ValueError(f"{wrong[0]!r} is no name: letters, digits, dots, hyphens and underscores make one")
        return values

    @field_validator("fractions")
    @classmethod
    def _are_shares(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < value <= 1 for value in values):
            raise ValueError("shares lie above 0 and up to 1; --counts takes numbers of images")
        return values

    @property
    def sizes(self) -> tuple[str, ...]:
        """Return what ``--labelled`` is to be, from the smallest."""
        if self.counts:
            return tuple(str(count) for count in sorted(set(self.counts)))
        return tuple(f"{100 * share:g}%" for share in sorted(set(self.fractions)))


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
        The part of the trainings that is ours; see `shard`.
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
    trained, before, missing, failed
        Trainings that were made by this call, those made before, those left to other jobs, and those that failed.
    sentences
        What the study says.
    page
        The page.
    """

    trained: int
    before: int
    missing: int
    failed: int
    sentences: tuple[str, ...]
    page: Path

    def __str__(self) -> str:
        counts = {"trained": self.trained, "made before": self.before, "left": self.missing, "failed": self.failed}
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        return "\n".join([f"{told or 'nothing to do'}, page in {self.page}", *self.sentences])

    def check(self) -> None:
        """Raise if a training failed.

        Raises
        ------
        SomeFailedError
            If one did.
        """
        if self.failed:
            raise SomeFailedError(f"{self.failed} trainings failed; the others are done", where=self.page.parent)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    method: str
    size: str
    seed: int

    def folder(self, output: Path) -> Path:
        return output / CELLS / self.method / self.size.replace("%", "pc") / f"seed{self.seed}"


def budget(job: BudgetJob, progress: Progress = SILENT, stop: Stop | None = None) -> BudgetReport:
    """Train each method with each share of the labels and each seed, or go on with that, and tell what it is worth.

    Raises
    ------
    ConfigError, MethodError
        If settings make no sense, before anything is trained.
    DataError
        If nothing is marked ``test``, or the study was begun with other settings.
    StoppedError
        If `stop` was requested; the state is saved.
    """
    stop, config = stop or Stop(), job.config
    configs = {name: _training(config, name) for name in config.methods}
    _check_begun(job)
    plans = [
        _Plan(method=method, size=size, seed=seed)
        for seed in range(config.seeds)
        for size in config.sizes
        for method in config.methods
    ]
    outcomes: Counter[str] = Counter()
    mine = shard(plans, job.num_shards, job.shard_index)
    for number, plan in enumerate(mine, start=1):
        if (plan.folder(job.output) / SCORES).exists():
            outcomes["before"] += 1
            continue
        progress.say(f"training {number} of {len(mine)}: {plan.method}, {plan.size} labelled, seed {plan.seed}")
        try:
            _make(job, plan, configs[plan.method], progress, stop)
        except StoppedError:
            raise
        except WsisegError as error:
            progress.say(f"failed: {error}")
            outcomes["failed"] += 1
        else:
            outcomes["trained"] += 1
    cells = [_read(plan.folder(job.output) / SCORES) for plan in plans if (plan.folder(job.output) / SCORES).exists()]
    study = Study(cells=tuple(cells), methods=config.methods, seeds=config.seeds)
    page = write_study(job.output, study)
    return BudgetReport(
        trained=outcomes["trained"],
        before=outcomes["before"],
        failed=outcomes["failed"],
        missing=len(plans) - len(cells) - outcomes["failed"],
        sentences=study.sentences(),
        page=page,
    )


def _training(config: BudgetConfig, name: str) -> TrainConfig:
    """Return the settings of the trainings of a method, or of a variant.

    Raises
    ------
    ConfigError, MethodError
        If they make no sense.
    """
    own = dict(config.each.get(name, {}))
    method = own.pop("method", name)
    if get_patch_method(method) is not None:
        raise ConfigError(f"{method} learns from what patches show, not from labels of pixels", where="--methods")
    options = get_method(method).options
    if unknown := set(config.each) - set(config.methods):
        raise ConfigError(f"there are settings of {min(unknown)}, which is no method of the study", where="each")
    given = merged(config.train, own)
    if taken := {"method", "labelled", "split_seed"} & set(given):
        raise ConfigError("the study decides about it", where=f"train.{min(taken)}")
    resolved = load(TrainConfig, options={**given, "method": method})
    load(options, options=resolved.options)
    return resolved


def _check_begun(job: BudgetJob) -> None:
    """See that the study goes on with the settings and data that it was begun with; more of all that is fine.

    Raises
    ------
    DataError
        If it does not, or nothing is marked ``test``.
    """
    if not has_judges(job.stores):
        raise DataError(
            "nothing is marked test, so nothing can judge the trainings",
            where=job.stores[0],
            mend="Make the store with wsiseg ingest --split, a table of image and split",
        )
    stores = [VolumeStore.open(path) if is_volume_store(path) else open_patches([path]) for path in job.stores]
    data = fingerprints(job.stores, stores)
    path = job.output / BEGUN
    if path.exists():
        before = json.loads(path.read_bytes())
        known = load(BudgetConfig, options=before["config"])
        own = [name for name in known.methods if known.each.get(name) != job.config.each.get(name)]
        if own or known.train != job.config.train or before["data"] != data:
            raise DataError(
                "the study was begun with other settings of its trainings, or on other data",
                where=job.output,
                mend="Use the same ones or another output folder",
            )
    write_bytes(
        path, json.dumps({"config": job.config.model_dump(mode="json"), "data": data}, indent=2).encode() + b"\n"
    )


def _make(job: BudgetJob, plan: _Plan, config: TrainConfig, progress: Progress, stop: Stop) -> None:
    """Train one model and write down how good it is on the test patches."""
    folder = plan.folder(job.output)
    fit = config.fit.model_copy(update={"seed": plan.seed})
    resolved = config.model_copy(update={"labelled": plan.size, "split_seed": plan.seed, "fit": fit})
    report = train(TrainJob(stores=job.stores, output=folder, config=resolved, device=job.device), progress, stop)
    used = load(TrainConfig, options=json.loads((folder / CONFIG).read_bytes()))
    scores = judged(report.checkpoint, job.stores, used.layer, used.mpp, choose_device(job.device))
    cell = Cell(
        method=plan.method,
        size=plan.size,
        images=len((folder / LABELLED).read_text(encoding="utf-8").splitlines()),
        seed=plan.seed,
        steps=report.fit.best_step,
        scores={name: float(np.round(value, 6)) for name, value in scores.items()},
    )
    write_bytes(folder / SCORES, json.dumps(asdict(cell), indent=2).encode() + b"\n")


def _read(path: Path) -> Cell:
    return Cell(**json.loads(path.read_bytes()))
