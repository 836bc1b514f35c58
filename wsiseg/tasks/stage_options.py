"""The options of a training in stages, of which some have been trained before."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from wsiseg.config import flattened, load, merged, save
from wsiseg.errors import ConfigError, DataError
from wsiseg.methods.stages import LabelStage
from wsiseg.training.state import Remedy, read_begun
from wsiseg.training.training_run import STATE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wsiseg.config import Config
    from wsiseg.methods.stages import PatchMethod, PatchStage
    from wsiseg.progress import Progress
    from wsiseg.tasks.patch_data import PatchData
    from wsiseg.tasks.train_job import TrainConfig
    from wsiseg.training.settings import FitSettings
    from wsiseg.training.state_file import State

# Settings of the fit that are numbers of a stage.
NUMBERS: Final = (
    "steps", "accumulate", "accumulation", "optimiser", "momentum", "schedule", "power", "step_every",
    "step_factor", "lr", "lr_floor", "warmup", "weight_decay", "clip_norm", "validate_every",
)  # fmt: skip
Stages = tuple["PatchStage | LabelStage", ...]

# Of the whole method, as they were asked for when a stage was trained; lies in the stage's folder.
OPTIONS: Final = "options.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What is to be trained.

    Parameters
    ----------
    options
        Of the method; those of stages that are left out are what these were trained with.
    stages
        All of them.
    """

    options: Config
    stages: Stages


def choose(method: PatchMethod, config: TrainConfig, folder: Path, progress: Progress) -> Chosen:
    """Return the options that hold for a run, and the stages that they make.

    A stage that is left out stays as it was trained. What was asked for then, a preset among it, holds for later
    stages, too, unless they are asked for something else.

    Raises
    ------
    ConfigError
        If there is no such stage or option, or an option is for nothing but a stage that is left out and was
        trained with another.
    DataError
        If a stage that is left out does not tell what it was trained with.
    """
    first = method.stages(load(method.options, options=config.options))
    running = up_to_last(first, config.stages)
    left_out = [
        stage.name for stage in running if not isinstance(stage, LabelStage) and not _is_wanted(stage, config.stages)
    ]
    trained = {name: _trained_with(folder / name, method) for name in left_out}
    asked: dict[str, Any] = {}
    for name in left_out:
        asked = merged(asked, _asked_for(folder / name, progress))
    known = asked
    for options in trained.values():
        # A preset that is asked for now does not concern what was trained with the numbers of another.
        known = merged(known, options)
    given = _with_numbers(config, [stage.name for stage in first if not isinstance(stage, LabelStage)])
    chosen = load(method.options, options=merged(known, given))
    stages = method.stages(chosen)
    now = {stage.name: flattened(stage.depends_on) for stage in stages}
    for name, options in trained.items():
        others = {key for stage in running if stage.name != name for key in now[stage.name]}
        _check(flattened(options), now[name], others, where=folder / name)
    _tell(" and ".join(left_out), flattened(asked), load(method.options, options=given), chosen, progress)
    return Chosen(options=chosen, stages=stages)


def note_options(chosen: Chosen, folder: Path, wanted: Sequence[str] | None, *, is_certain: bool) -> None:
    """Write into the folder of each stage that is run what `choose` takes up where the stage is left out.

    Parameters
    ----------
    chosen
        What is trained.
    folder
        Of the run.
    wanted
        Names of the stages that are run; None for all.
    is_certain
        Whether all of them are known to have these options. Else what is said of stages that were begun before stays.
    """
    for stage in up_to_last(chosen.stages, wanted):
        place = folder / stage.name
        is_trained = _is_wanted(stage, wanted) and not isinstance(stage, LabelStage)
        if is_trained and (is_certain or not (place / STATE).exists()):
            place.mkdir(parents=True, exist_ok=True)
            save(chosen.options, place / OPTIONS)


def up_to_last(stages: Stages, wanted: Sequence[str] | None) -> Stages:
    """Return the stages up to the last wanted one; None wants all.

    Raises
    ------
    ConfigError
        If there is no such stage.
    """
    if wanted is None:
        return stages
    names = [stage.name for stage in stages]
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        what = f"there is no stage {unknown[0]!r}" if unknown else "no stage is named"
        raise ConfigError(what, where="--stages", mend=f"There are: {', '.join(names)}")
    return stages[: max(names.index(name) for name in wanted) + 1]


def plan_of(
    method: PatchMethod,
    stages: Stages,
    stage: PatchStage,
    *,
    data: PatchData,
    models: dict[str, str],
    settings: FitSettings,
) -> State:
    """Return what the result of a stage depends on.

    Parameters
    ----------
    method, stages, stage
        What is trained, all its stages, and the one that is meant.
    data
        What is learnt from.
    models
        Fingerprint of the model of each earlier stage.
    settings
        Of the fit.
    """
    # What it learns from is made by the stages that label; of what is trained before, fingerprints tell.
    options = stage.depends_on
    for other in stages[: [one.name for one in stages].index(stage.name)]:
        if isinstance(other, LabelStage):
            options = merged(other.depends_on, options)
    learning = settings.model_dump(mode="json", exclude={"num_workers", "save_interval_s", *NUMBERS})
    return {
        "method": method.name,
        "stage": stage.name,
        "options": options,
        "data": data.facts.training_data,
        "labels": data.fingerprint,
        "models": models,
        "fit": {**learning, "steps": settings.steps},
    }


def remedy(stages: Stages, stage: PatchStage) -> Remedy:
    """Return what to pass where the training of a stage cannot go on."""
    trained = [one.name for one in stages if not isinstance(one, LabelStage)]
    is_first = stage.name == trained[0]
    return Remedy(
        anew="--overwrite" if is_first else f"--stages {stage.name} --overwrite",
        effect="train all stages again" if is_first else f"train {stage.name} alone again",
        slower=f"--set options.numbers.{stage.name}.lr={stage.settings.lr / 10:g}",
    )


def _trained_with(folder: Path, method: PatchMethod) -> dict[str, Any]:
    """Return the options that a stage was trained with; none where its folder does not tell."""
    begun = read_begun(folder / STATE, Remedy(effect="train all stages again"))
    if begun is None:
        return {}
    if not {"method", "options"} <= begun.plan.keys():
        raise DataError(
            f"{folder.name} was begun with an older version of wsiseg, which does not tell the options it had",
            where=folder,
            mend="Pass --overwrite without --stages to train all stages again, or train in another output folder",
        )
    trainer = begun.plan["method"]
    if trainer != method.name:
        raise ConfigError(
            f"{folder.name} was trained by {trainer}, not by {method.name}",
            where=folder,
            mend=f"Pass --method {trainer}",
        )
    options: dict[str, Any] = begun.plan["options"]
    return options


def _asked_for(folder: Path, progress: Progress) -> dict[str, Any]:
    """Return the options of the run that trained a stage; none where its folder does not tell."""
    path = folder / OPTIONS
    if not path.exists():
        if folder.exists():
            progress.say(f"warning: {path} is not there; what later stages are not asked for is as it is by default")
        return {}
    options: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return options


def _tell(trained: str, asked: dict[str, Any], alone: Config, chosen: Config, progress: Progress) -> None:
    """Say which options were taken up, and which were replaced; numbers would be too many."""
    without, now = (flattened(options.model_dump(mode="json")) for options in (alone, chosen))
    kept = [f"{key}={value}" for key, value in now.items() if not _is_number(key) and without.get(key) != value]
    if kept:
        progress.say(f"as {trained} was trained: {', '.join(kept)}")
    replaced = [
        f"{key}={now.get(key)} and not {value}"
        for key, value in asked.items()
        if not _is_number(key) and now.get(key) != value
    ]
    if replaced:
        progress.say(f"other than when {trained} was trained: {', '.join(replaced)}")


def _is_number(key: str) -> bool:
    return key.startswith("numbers.")


def _is_wanted(stage: PatchStage | LabelStage, wanted: Sequence[str] | None) -> bool:
    return wanted is None or stage.name in wanted


def _with_numbers(config: TrainConfig, names: Sequence[str]) -> dict[str, Any]:
    """Return the options as they were asked for, epochs and batches as numbers of all stages that are to be run."""
    asked = {
        number: getattr(config, name)
        for number, name in (("epochs", "epochs"), ("batch_images", "batch_size"))
        if name in config.model_fields_set and getattr(config, name) is not None
    }
    numbers = {name: asked for name in names if asked and (config.stages is None or name in config.stages)}
    return merged({"numbers": numbers}, config.options) if numbers else config.options


def _check(before: dict[str, Any], now: dict[str, Any], others: set[str], *, where: Path) -> None:
    changed = [key for key in sorted({*before, *now} - others) if key in before and before[key] != now.get(key)]
    if changed:
        told = ", ".join(f"options.{key}={before[key]} and not {now.get(key)}" for key in changed)
        raise ConfigError(
            f"{where.name} was trained with {told}",
            where=where,
            mend=f"Leave that out, as {where.name} stays as it is, or train in another output folder",
        )
