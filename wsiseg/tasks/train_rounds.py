"""Training of a teacher, and of students on its pseudo-labels, as ``wsiseg train`` asks for it."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from wsiseg.atomic import write_bytes
from wsiseg.config import load, save
from wsiseg.errors import ConfigError
from wsiseg.methods.base import TrainingFacts
from wsiseg.methods.label_efficient import METHOD, PSEUDO, LabelEfficientOptions, StudentStage, TeacherStage
from wsiseg.methods.predictor import head_of
from wsiseg.stores.volume_store import is_volume_store
from wsiseg.tasks.object_labels import ObjectLabels, remove_labels
from wsiseg.tasks.rounds_report import Told, Trained, compared, write_rounds_report
from wsiseg.tasks.train_data import fingerprints, roles, training_data
from wsiseg.tasks.train_fit import Work, carry_out, is_finished, write_choice
from wsiseg.tasks.train_job import CONFIG, TrainReport, clear, with_usual
from wsiseg.tasks.train_patches import share_model
from wsiseg.tasks.train_pool import drawn, for_student, for_teacher, kinds_of
from wsiseg.tiling.reading import open_patches
from wsiseg.training.batches import Batches
from wsiseg.training.head_check import check_head
from wsiseg.training.label_health import Health, annotated_coverage, doubt
from wsiseg.training.sources import Source
from wsiseg.training.state import Remedy, seed_all
from wsiseg.training.streams import PseudoStreams, other_seed
from wsiseg.training.training_run import BEST, STATE
from wsiseg.training.validation import Validation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wsiseg.methods.base import Encode
    from wsiseg.progress import Progress
    from wsiseg.stopping import Stop
    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.tasks.train_data import TrainingData
    from wsiseg.tasks.train_job import TrainConfig, TrainJob
    from wsiseg.tasks.train_pool import Kinds
    from wsiseg.training.batches import BatchStream
    from wsiseg.training.ranks import Ranks

# What the pseudo-labels of a student were like; lies in its folder.
HEALTH: Final = "pseudo-labels.json"


def train_in_rounds(job: TrainJob, ranks: Ranks, progress: Progress, stop: Stop) -> TrainReport:
    """Train the teacher and each student, in folders of their own; see `train`.

    What is finished is not done again, so that a run goes on where it was interrupted, or with more rounds.

    Raises
    ------
    ConfigError
        If settings make no sense for the method.
    """
    config = job.config
    check_settings(job)
    options = load(LabelEfficientOptions, options=config.options)
    config = with_usual(config, METHOD.training(options))
    stores = [open_patches([path]) for path in job.stores]
    mpp = config.mpp or next((store.mpp for store in stores if store.mpp is not None), None)
    data = training_data(stores, mpp, config, takes_unlabelled=True)
    kinds = kinds_of(stores, data)
    most = options.pool if options.pool is not None else _looks(kinds, options, config, ranks)
    if most is not None:
        kinds = replace(kinds, pool=drawn(kinds.pool, most, seed=config.fit.seed))
    data = replace(data, labelled=[*kinds.real, *kinds.synthetic], unlabelled=[source for _, source in kinds.pool])
    facts = TrainingFacts(
        name=config.name or job.output.resolve().name,
        kind="instances" if data.info.kind == "instances" else "classes",
        labels=data.info.labels,
        mpp=mpp,
        crop_px=config.crop_px,
        training_data=fingerprints(job.stores, stores),
    )
    resolved = config.model_copy(update={"layer": data.layer, "mpp": mpp})
    stages = METHOD.stages(options)
    if ranks.is_first:
        if job.overwrite:
            clear(job.output)
            for folder in (job.output / "teacher", *job.output.glob("student-*")):
                remove_labels(stores, _noted(folder / HEALTH).get("layer", ""))
                shutil.rmtree(folder, ignore_errors=True)
        if not (job.output / CONFIG).exists():
            _note(job, resolved, options, data, stores)
    ranks.wait()
    begun = replace(job, config=resolved, overwrite=False)
    rounds = _Rounds(begun, data, kinds, facts, ranks=ranks, progress=progress, stop=stop)
    trained = [rounds.run(stage) for stage in stages]
    report = trained[-1].report
    if ranks.is_first:
        # Only now is it certain that all stages had these settings.
        _note(job, resolved, options, data, stores)
        share_model(report.checkpoint, job.output / BEST)
        write_rounds_report(job.output, trained, kinds, method=config.method, device=ranks.device)
    ranks.wait()
    return replace(report, checkpoint=job.output / BEST)


def _looks(kinds: Kinds, options: LabelEfficientOptions, config: TrainConfig, ranks: Ranks) -> int | None:
    """Return how often a student looks at patches with pseudo-labels; None where their number itself decides."""
    if config.epochs is not None:
        return None
    _, count = for_student(kinds, options.student_shares, batch_size=config.batch_size)
    return config.fit.steps * config.fit.accumulate * count * ranks.world


def check_settings(job: TrainJob) -> None:
    """See that nothing is asked for that means nothing to the method.

    Raises
    ------
    ConfigError
        If something is.
    """
    config = job.config
    if any(is_volume_store(path) for path in job.stores):
        raise ConfigError(f"{config.method} learns from images, not from volumes", where="--method")
    if config.stages is not None:
        raise ConfigError(
            f"{config.method} runs all of its stages",
            where="--stages",
            mend="Leave it out: stages that are finished are not run again",
        )
    given = [name for name in ("weights", "unlabelled_batch_size", "patch") if name in config.model_fields_set]
    if given:
        raise ConfigError(
            f"{config.method} has shares of its own for each kind of patches",
            where=", ".join(given),
            mend="Set options.teacher_real or options.student_shares",
        )
    if config.batch_size < 2:  # noqa: PLR2004 - one image of each kind
        raise ConfigError("a batch holds given labels and pseudo-labels", where="--batch-size", mend="Pass 2 or more")


def _note(
    job: TrainJob, config: TrainConfig, options: LabelEfficientOptions, data: TrainingData, stores: Sequence[PatchSet]
) -> None:
    """Write down the settings of a run, and what each image is to it."""
    save(config.model_copy(update={"options": options.model_dump(mode="json")}), job.output / CONFIG)
    write_choice(job.output, data.chosen, roles(stores, data))


class _Rounds:
    """The stages of one training."""

    def __init__(
        self,
        job: TrainJob,
        data: TrainingData,
        kinds: Kinds,
        facts: TrainingFacts,
        *,
        ranks: Ranks,
        progress: Progress,
        stop: Stop,
    ) -> None:
        self._job, self._data, self._kinds, self._facts = job, data, kinds, facts
        self._ranks, self._progress, self._stop = ranks, progress, stop
        # The stage before.
        self._before: Trained | None = None

    def run(self, stage: TeacherStage | StudentStage) -> Trained:
        """Train one stage, its pseudo-labels first if it learns from any."""
        config, facts, pseudo = self._job.config, self._facts, list[Source]()
        labels, layer = None, ""
        if isinstance(stage, StudentStage) and self._before is not None:
            labels = self._labels(stage, self._before.report.checkpoint)
            layer = f"{labels.made_by}-{stage.name}"
            pool = [source for _, source in self._kinds.pool]
            pseudo = [Source(patches=one.patches, layer=layer, indices=one.indices, mpp=one.mpp) for one in pool]
            facts = replace(facts, training_data={**facts.training_data, "pseudo-labels": layer})
        seed_all(config.fit.seed)
        learner = stage.build(facts)
        folder = self._job.output / stage.name
        head = head_of(learner.card)
        if isinstance(stage, TeacherStage) and self._ranks.is_first and head is not None:
            said = "" if (folder / STATE).exists() else check_head(head, self._kinds.real)
            if said:
                self._progress.say(said)
        work = Work(
            learner=learner,
            batches=self._batches(stage, learner.encode, pseudo),
            config=config.model_copy(update={"options": stage.depends_on}),
            facts=facts,
            chosen=self._data.chosen,
            data=f"{stage.name} on {self._kinds}, {sum(len(one.indices) for one in self._data.held_out)} held out",
            judge=partial(Validation, self._data.held_out) if self._data.held_out else None,
            labels=self._data.fingerprint,
        )
        told = None if labels is None else self._label(labels, layer, work, folder)
        report = carry_out(work, replace(self._job, output=folder), self._ranks, self._progress, self._stop)
        trained = Trained(name=stage.name, report=report, told=told)
        if self._before is not None and self._ranks.is_first:
            self._progress.say(compared(trained, self._before))
        self._before = trained
        return trained

    def _batches(self, stage: TeacherStage | StudentStage, encode: Encode, pseudo: Sequence[Source]) -> BatchStream:
        config, kinds, options = self._job.config, self._kinds, stage.options
        shared: dict[str, Any] = {
            "crop_px": config.crop_px,
            "augmentation": config.augmentation,
            "rank": self._ranks.rank,
            "world": self._ranks.world,
        }
        if not pseudo:
            given = for_teacher(kinds, real=options.teacher_real)
            return Batches(given, encode, batch_size=config.batch_size, seed=config.fit.seed, **shared)
        given, count = for_student(kinds, options.student_shares, batch_size=config.batch_size)
        return PseudoStreams(
            Batches(given, encode, batch_size=config.batch_size - count, seed=config.fit.seed, **shared),
            Batches(pseudo, encode, batch_size=count, seed=other_seed(config.fit.seed), **shared),
            mark=PSEUDO,
        )

    def _labels(self, stage: StudentStage, teacher: Path) -> ObjectLabels:
        return ObjectLabels(
            model=teacher,
            name=self._facts.name,
            labels=self._facts.labels,
            pool=self._kinds.pool,
            rules=stage.options.pseudo,
            min_scores=stage.min_scores(self._facts.labels),
        )

    def _label(self, labels: ObjectLabels, layer: str, work: Work, folder: Path) -> Told:
        """Write the pseudo-labels of a student, unless that was done, and return what it is told.

        Before that it is seen that the student may go on, as it would not need labels that it cannot learn from.
        """
        anew = f"train all stages again, or remove the folders from {folder.name} on to train these again"
        is_done, file = is_finished(work, folder, Remedy(effect=anew)), folder / HEALTH
        self._ranks.wait()
        noted = _noted(file)
        before = noted.pop("layer", None)
        if self._ranks.is_first and not is_done and not (labels.are_in(layer) and before == layer):
            if before != layer:
                # Of labels that nothing is noted of nobody knows how sure their teacher was.
                labels.remove(layer, *([before] if before else []))
            health = labels.write(
                layer,
                before=_health(noted) if before == layer else Health.of_nothing(),
                device=self._ranks.device,
                workers=self._job.config.fit.num_workers,
                keep=partial(_note_health, file, layer),
                progress=self._progress,
                stop=self._stop,
            )
            self._progress.say(f"pseudo-labels of {folder.name}: {health}")
            if doubted := doubt(health, annotated_coverage(self._kinds.real)):
                self._progress.say(f"warning: {doubted}")
        self._ranks.wait()
        labels.find()
        return Told(labels=labels, layer=layer, health=_noted(file))


def _noted(file: Path) -> dict[str, Any]:
    """Return what was noted of pseudo-labels; nothing where there are none yet."""
    return dict(json.loads(file.read_bytes())) if file.exists() else {}


def _note_health(file: Path, layer: str, health: Health) -> None:
    told = {key: None if math.isnan(value) else value for key, value in asdict(health).items()}
    write_bytes(file, json.dumps({"layer": layer, **told}, indent=1).encode() + b"\n")


def _health(noted: dict[str, Any]) -> Health:
    known: dict[str, Any] = {key: math.nan if value is None else value for key, value in noted.items()}
    return Health(**known)
