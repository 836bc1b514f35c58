"""Training of methods that know patches by their classes: one stage after the other, each in a folder of its own."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wsiseg import checkpoint
from wsiseg.errors import ConfigError, DataError
from wsiseg.methods.stages import LabelStage, Probed
from wsiseg.tasks.patch_masks import BALANCE, balance, check_masks, layer_names, write_balance, write_masks
from wsiseg.tasks.stage_options import plan_of, remedy, up_to_last
from wsiseg.training.fit import FitReport, fit
from wsiseg.training.patch_batches import Known, PatchBatches
from wsiseg.training.probe import Probe
from wsiseg.training.state import check_plan, read_begun, seed_all
from wsiseg.training.training_run import BEST, LAST, STATE
from wsiseg.training.validation import CLASS_SCORES, Validation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import nn

    from wsiseg.methods.sgd import SgdSettings
    from wsiseg.methods.stages import PatchMethod, PatchStage
    from wsiseg.progress import Progress
    from wsiseg.stopping import Stop
    from wsiseg.tasks.patch_data import PatchData
    from wsiseg.tasks.stage_options import Stages
    from wsiseg.training.ranks import Ranks
    from wsiseg.training.settings import FitSettings
    from wsiseg.training.state import Remedy
    from wsiseg.training.state_file import State

# Updates of its weights from which on a network can be expected to have learnt something.
_ENOUGH: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchReport:
    """What became of a training in stages.

    Parameters
    ----------
    fit
        Of the last stage that was run.
    model
        Folder of its model.
    layers
        Layers of pseudo-labels, and their names in the stores.
    models
        Models of all stages that are trained, in order.
    is_new
        Whether anything was learnt that was not before.
    """

    fit: FitReport
    model: Path
    layers: dict[str, str]
    models: dict[str, Path]
    is_new: bool


class PatchRun:
    """A training in stages.

    Parameters
    ----------
    method, stages
        What to train.
    data
        On what.
    settings
        How, apart from the numbers that are the method's own.
    folder
        Of the run.
    ranks, progress, stop
        As for `fit`.
    """

    def __init__(
        self,
        method: PatchMethod,
        stages: Stages,
        data: PatchData,
        settings: FitSettings,
        folder: Path,
        *,
        ranks: Ranks,
        progress: Progress,
        stop: Stop,
    ) -> None:
        self._method, self._stages = method, stages
        self._data, self._settings, self._folder = data, settings, folder
        self._ranks, self._progress, self._stop = ranks, progress, stop
        self._done: dict[str, Path] = {}
        # Name in the stores of each layer that was labelled.
        self._layers: dict[str, str] = {}

    def run(self, wanted: Sequence[str] | None) -> PatchReport:
        """Run the wanted stages, or all.

        Raises
        ------
        ConfigError
            If there is no such stage, or none of them trains.
        DataError
            If a stage that is left out has not been run before.
        """
        stages = up_to_last(self._stages, wanted)
        # The last of them is wanted, and what is labelled after the last training has a command of its own.
        if isinstance(stages[-1], LabelStage) and not any(
            stage.name in (wanted or ()) for stage in stages if not isinstance(stage, LabelStage)
        ):
            raise ConfigError(
                "none of these stages trains a network", where="--stages", mend="Use wsiseg pseudo-label to label alone"
            )
        reports: list[FitReport] = []
        for stage in stages:
            is_wanted = wanted is None or stage.name in wanted
            if isinstance(stage, LabelStage):
                self._label(stage, is_wanted=is_wanted)
            elif is_wanted:
                reports.append(self._train(stage))
            else:
                self._skip(stage)
        return PatchReport(
            fit=reports[-1],
            model=self._last,
            layers=self._layers,
            models=dict(self._done),
            is_new=any(report.steps_before < report.steps for report in reports),
        )

    def _train(self, stage: PatchStage) -> FitReport:
        numbers, folder, data = stage.settings, self._folder / stage.name, self._data
        known = Known(
            patches=data.patches,
            indices=data.known.indices,
            present=data.known.present,
            layers=self._layers,
        )
        batches = PatchBatches(
            known,
            batch_size=numbers.batch_images,
            last_batch=numbers.last_batch,
            flips=stage.flips,
            blur_px=stage.blur_px,
            seed=self._settings.seed,
            rank=self._ranks.rank,
            world=self._ranks.world,
        )
        settings = fit_settings(self._settings, numbers, batches.batches_per_epoch)
        before = {name: checkpoint.fingerprint(model) for name, model in self._done.items()}
        plan = plan_of(self._method, self._stages, stage, data=data, models=before, settings=settings)
        mends = remedy(self._stages, stage)
        report = self._finished(stage, plan, mends, settings.steps)
        if report is not None:
            return report
        seed_all(self._settings.seed)
        learner = stage.build(data.facts, self._done, tuple(self._layers))
        validation = probe = None
        if data.validation is not None:
            spec = learner.predictor(learner.module).spec
            validation = Validation([data.validation], spec)
            probe = Probe(learner, data.validation, spec) if isinstance(learner, Probed) else None
        folder.mkdir(parents=True, exist_ok=True)
        if self._ranks.is_first:
            for line in about(stage.name, learner.module, known, batches, numbers):
                self._progress.say(line)
        report = fit(
            learner,
            batches,
            settings,
            folder,
            validation=validation,
            probe=probe,
            is_best_kept=stage.is_best_kept,
            plan=plan,
            remedy=mends,
            ranks=self._ranks,
            stop=self._stop,
            progress=self._progress,
        )
        self._keep(stage)
        return report

    def _finished(self, stage: PatchStage, plan: State, mends: Remedy, steps: int) -> FitReport | None:
        """Return what became of a stage if nothing of it is left to do; its learner would take long to make."""
        folder = self._folder / stage.name
        begun = read_begun(folder / STATE, mends)
        if begun is None:
            return None
        check_plan(begun.plan, plan, where=folder, remedy=mends)
        if begun.step < steps or not (folder / LAST / checkpoint.CARD).exists():
            return None
        self._progress.say(f"{stage.name}: finished before, {steps:,} updates")
        self._keep(stage)
        is_judged = self._data.validation is not None
        return FitReport(
            steps=steps,
            steps_before=steps,
            metric=CLASS_SCORES[0] if is_judged else "",
            best=begun.best if is_judged else math.nan,
            best_step=begun.best_step if is_judged else steps,
            wait=math.nan,
        )

    def _skip(self, stage: PatchStage) -> None:
        if not (self._folder / stage.name / LAST).exists():
            raise DataError(
                f"the stage {stage.name} has not been run", where=self._folder, mend=f"Add {stage.name} to --stages"
            )
        self._keep(stage)

    def _keep(self, stage: PatchStage) -> None:
        self._last = model_of(self._folder, stage)
        self._done[stage.name] = self._last

    def _label(self, stage: LabelStage, *, is_wanted: bool) -> None:
        labeller, data = stage.labeller(self._data.facts, self._done, self._ranks.device), self._data
        self._layers = layer_names(data, self._last, labeller.layers)
        if is_wanted and self._ranks.is_first:
            write_masks(
                data,
                labeller,
                self._layers,
                device=self._ranks.device,
                progress=self._progress,
                stop=self._stop,
            )
            write_balance(balance(data, self._layers, self._progress, self._stop), self._folder)
        self._ranks.wait()
        check_masks(data, self._layers, where=self._folder, stage=stage.name)


def clear_stages(folder: Path, stages: Sequence[PatchStage | LabelStage], wanted: Sequence[str] | None) -> None:
    """Remove what earlier runs left of the first wanted stage and of all that follow; labels in stores stay."""
    before = [] if wanted is None else [stage.name for stage in stages if stage.name not in wanted]
    is_stale = False
    for stage in stages:
        is_stale |= stage.name not in before
        if is_stale and isinstance(stage, LabelStage):
            (folder / BALANCE).unlink(missing_ok=True)
        elif is_stale:
            shutil.rmtree(folder / stage.name, ignore_errors=True)


def finished(folder: Path, stages: Sequence[PatchStage | LabelStage]) -> Path | None:
    """Return the model of the last stage of a run that has one."""
    trained = [stage for stage in stages if not isinstance(stage, LabelStage)]
    ended = [stage for stage in trained if (folder / stage.name / LAST).exists()]
    return model_of(folder, ended[-1]) if ended else None


def model_of(folder: Path, stage: PatchStage) -> Path:
    """Return where a stage of a run has its model, once it has one."""
    best = folder / stage.name / BEST
    return best if stage.is_best_kept and best.exists() else folder / stage.name / LAST


def fit_settings(given: FitSettings, numbers: SgdSettings, batches_per_epoch: int) -> FitSettings:
    """Return settings with the numbers of a method: SGD on a falling rate, validated once in an epoch."""
    return given.model_copy(
        update={
            "steps": numbers.epochs * batches_per_epoch,
            "optimiser": "sgd",
            "schedule": "poly",
            "warmup": 0.0,
            "power": numbers.power,
            "lr": numbers.lr,
            "momentum": numbers.momentum,
            "weight_decay": numbers.weight_decay,
            "clip_norm": None,
            "validate_every": batches_per_epoch,
        }
    )


def about(name: str, module: nn.Module, known: Known, batches: PatchBatches, numbers: SgdSettings) -> list[str]:
    """Return what people should know of a stage before it begins, line by line."""
    weights = sum(value.numel() for value in module.parameters() if value.requires_grad)
    updates = numbers.epochs * batches.batches_per_epoch
    without = f", {batches.left_out} patches left out of each" if batches.left_out else ""
    told = (
        f"{name}: {weights / 1e6:.2f} M weights to learn, {len(known.indices)} patches, "
        f"{batches.images_per_batch} images per step, {updates:,} updates in {numbers.epochs} epochs{without}"
    )
    if updates >= _ENOUGH:
        return [told]
    few = (
        f"warning: {name} learns little in {updates:,} updates. Pass --epochs "
        f"{math.ceil(_ENOUGH / batches.batches_per_epoch)} for about {_ENOUGH:,}, or a smaller --batch-size"
    )
    return [told, few]
