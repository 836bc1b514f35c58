"""Training of methods that know patches by their classes: one stage after the other, each in a folder of its own."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, Final

from wsiseg import checkpoint
from wsiseg.atomic import atomic_path
from wsiseg.errors import ConfigError, DataError
from wsiseg.methods.stages import LabelStage
from wsiseg.training.annotation import annotate, class_shares
from wsiseg.training.fit import BEST, LAST, FitReport, fit
from wsiseg.training.patch_batches import Known, PatchBatches
from wsiseg.training.state import seed_all
from wsiseg.training.validation import Validation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wsiseg.config import Config
    from wsiseg.methods.sgd import SgdSettings
    from wsiseg.methods.stages import PatchMethod, PatchStage
    from wsiseg.progress import Progress
    from wsiseg.stopping import Stop
    from wsiseg.tasks.patch_data import PatchData
    from wsiseg.training.ranks import Ranks
    from wsiseg.training.settings import FitSettings

BALANCE: Final = "pseudo-labels.json"
# A class that patches show has fewer of their pixels than this only where something went wrong.
_COLLAPSED: Final = 0.002


class PatchRun:
    """A training in stages.

    Parameters
    ----------
    method, options
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
        options: Config,
        data: PatchData,
        settings: FitSettings,
        folder: Path,
        *,
        ranks: Ranks,
        progress: Progress,
        stop: Stop,
    ) -> None:
        self._stages = method.stages(options)
        self._options = options
        self._data = data
        self._settings = settings
        self._folder = folder
        self._ranks, self._progress, self._stop = ranks, progress, stop
        self._done: dict[str, Path] = {}
        # Name in the stores of each layer that was labelled.
        self._layers: dict[str, str] = {}

    def run(self, wanted: Sequence[str] | None) -> tuple[FitReport, Path]:
        """Run the wanted stages, or all, and return what became of the last training and its model.

        Raises
        ------
        ConfigError
            If there is no such stage.
        DataError
            If a stage that is left out has not been run before.
        """
        names = [stage.name for stage in self._stages]
        unknown = sorted(set(wanted or ()) - set(names))
        if unknown:
            raise ConfigError(
                f"there is no stage {unknown[0]!r}", where="--stages", mend=f"There are: {', '.join(names)}"
            )
        report: FitReport | None = None
        for stage in self._stages:
            is_wanted = wanted is None or stage.name in wanted
            if isinstance(stage, LabelStage):
                self._label(stage, is_wanted=is_wanted)
                continue
            if not is_wanted:
                self._skip(stage)
                continue
            report = self._train(stage)
        if report is None:
            raise ConfigError("none of these stages trains a network", where="--stages")
        return report, self._last

    def _train(self, stage: PatchStage) -> FitReport:
        numbers, folder, data = stage.settings, self._folder / stage.name, self._data
        seed_all(self._settings.seed)
        learner = stage.build(data.facts, self._done, tuple(self._layers))
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
        validation = None
        if data.validation is not None:
            validation = Validation([data.validation], learner.predictor(learner.module).spec)
        folder.mkdir(parents=True, exist_ok=True)
        if self._ranks.is_first:
            self._progress.say(_about(stage.name, learner.module, known, batches, numbers))
        report = fit(
            learner,
            batches,
            settings,
            folder,
            validation=validation,
            plan=self._plan(stage, settings),
            ranks=self._ranks,
            stop=self._stop,
            progress=self._progress,
        )
        self._keep(stage)
        return report

    def _skip(self, stage: PatchStage) -> None:
        if not (self._folder / stage.name / LAST).exists():
            raise DataError(
                f"the stage {stage.name} has not been run", where=self._folder, mend=f"Add {stage.name} to --stages"
            )
        self._keep(stage)

    def _keep(self, stage: PatchStage) -> None:
        folder = self._folder / stage.name
        self._last = folder / (BEST if stage.is_best_kept and (folder / BEST).exists() else LAST)
        self._done[stage.name] = self._last

    def _label(self, stage: LabelStage, *, is_wanted: bool) -> None:
        labeller, data = stage.labeller(self._done, self._ranks.device), self._data
        # The model's hash in the name keeps masks of an older classifier apart.
        mark = checkpoint.fingerprint(self._last)[:8]
        self._layers = {layer: f"{data.facts.name}-{mark}-{layer}" for layer in labeller.layers}
        if is_wanted and self._ranks.is_first:
            annotate(
                data.known,
                labeller,
                self._layers,
                data.info.labels,
                white=data.info.white,
                batch_size=8,
                device=self._ranks.device,
                progress=self._progress,
                stop=self._stop,
            )
            self._tell_balance()
        self._ranks.wait()

    def _tell_balance(self) -> None:
        """Write how often each class is labelled, and warn of classes that have gone."""
        data, labels = self._data, self._data.info.labels
        told: dict[str, dict[str, float]] = {}
        shown = data.known.present.mean(axis=0)
        for layer, name in self._layers.items():
            shares = class_shares(data.known, name, len(labels))
            told[layer] = {label.name: float(share) for label, share in zip(labels.labels, shares, strict=True)}
            self._progress.say(f"{layer}: " + ", ".join(f"{key} {share:.1%}" for key, share in told[layer].items()))
            for label, share, part in zip(labels.labels, shares, shown, strict=True):
                # Written so that no number at all counts as too few.
                if part > 0 and not share >= _COLLAPSED * part:
                    found = f"is in {part:.0%} of the patches and has {share:.2%} of the pixels in {layer}"
                    self._progress.say(f"warning: {label.name} {found}")
        with atomic_path(self._folder / BALANCE) as temporary:
            temporary.write_text(json.dumps(told, indent=1))

    def _plan(self, stage: PatchStage, settings: FitSettings) -> dict[str, Any]:
        before = {name: checkpoint.fingerprint(folder) for name, folder in self._done.items()}
        learning = settings.model_dump(mode="json", exclude={"num_workers", "save_interval_s"})
        return {
            "stage": stage.name,
            "options": self._options.model_dump(mode="json"),
            "data": self._data.facts.training_data,
            "patches": len(self._data.known.indices),
            "before": before,
            **{f"fit.{key}": value for key, value in learning.items()},
        }


def clear_stages(folder: Path, stages: Sequence[PatchStage | LabelStage]) -> None:
    """Remove what earlier runs of the stages left in the folder of a run; labels in stores stay."""
    (folder / BALANCE).unlink(missing_ok=True)
    for stage in stages:
        shutil.rmtree(folder / stage.name, ignore_errors=True)


def fit_settings(given: FitSettings, numbers: SgdSettings, batches_per_epoch: int) -> FitSettings:
    """Return settings with the numbers of a method: SGD on a falling rate, validated once in an epoch."""
    return given.model_copy(
        update={
            "steps": numbers.epochs * batches_per_epoch,
            "optimiser": "sgd",
            "schedule": "poly",
            "power": numbers.power,
            "lr": numbers.lr,
            "momentum": numbers.momentum,
            "weight_decay": numbers.weight_decay,
            "clip_norm": None,
            "validate_every": batches_per_epoch,
        }
    )


def _about(name: str, module: Any, known: Known, batches: PatchBatches, numbers: SgdSettings) -> str:  # noqa: ANN401 - a torch module
    weights = sum(value.numel() for value in module.parameters() if value.requires_grad)
    return (
        f"{name}: {weights / 1e6:.2f} M weights to learn, {len(known.indices)} patches, "
        f"{batches.images_per_batch} images per step, {numbers.epochs} epochs"
    )
