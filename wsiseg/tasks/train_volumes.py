"""Training from volumes, as ``wsiseg train`` asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from wsiseg.config import load, merged
from wsiseg.errors import ConfigError
from wsiseg.methods.base import TrainingFacts
from wsiseg.methods.registry import get_method
from wsiseg.nets.factory import OURS
from wsiseg.nets.unet3d import UNET3D
from wsiseg.tasks.train_data import fingerprints
from wsiseg.tasks.train_fit import Work
from wsiseg.tasks.train_job import with_usual
from wsiseg.tasks.volume_data import volume_data
from wsiseg.training.augmentation import Augmentation
from wsiseg.training.state import seed_all
from wsiseg.training.volume_batches import VolumeBatches
from wsiseg.training.volume_validation import VolumeValidation
from wsiseg.training.volume_windows import CHANGES
from wsiseg.volumes import VolumeInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsiseg.methods.base import Method
    from wsiseg.tasks.train_job import TrainConfig, TrainJob
    from wsiseg.tasks.volume_data import VolumeData
    from wsiseg.training.ranks import Ranks
    from wsiseg.training.volume_batches import VolumeSource
    from wsiseg.volumes import Shape

# Settings that mean nothing to volumes, and what they are called on the command line.
_UNUSED: Final = {"mpp": "--mpp", "layer": "--layer", "weights": "weights"}
# What is usual for volumes, whatever the method; a window of 96 voxels takes as much memory as an image of 940 pixels.
_USUAL: Final[dict[str, Any]] = {"batch_size": 2}


def of_volumes(job: TrainJob, ranks: Ranks) -> Work:
    """Return an untrained network of volumes with its data; see `train`.

    Raises
    ------
    ConfigError, MethodError
        If settings make no sense for volumes, or for the method.
    StoreError, DataError
        If a store cannot be used or has too few volumes, or the run was begun with other settings.
    """
    method = get_method(job.config.method)
    options = load(method.options, options=_with_arch(method, job.config.options))
    config = with_usual(job.config, merged(_USUAL, method.training(options, of_volumes=True)))
    _check(config, job.config, method)
    data = volume_data(job.stores, config, takes_unlabelled=method.sees_unlabelled(options))

    seed_all(config.fit.seed)
    patch = _patch(config, job.config, data)
    augmentation = _augmentation(config)
    facts = TrainingFacts(
        name=config.name or job.output.resolve().name,
        kind="classes",
        labels=data.labels,
        mpp=None,
        crop_px=max(patch),
        training_data=fingerprints(job.stores, data.stores),
        volume=VolumeInput(patch=patch, spacing_mm=data.spacing_mm, intensities=data.intensities),
    )
    options = method.resolved(options, facts)
    (stage,) = method.stages(options)
    learner = stage.build(facts)
    free = (config.unlabelled_batch_size or config.batch_size) if data.unlabelled else 0
    batches = VolumeBatches(
        data.labelled,
        learner.encode,
        patch=patch,
        batch_size=config.batch_size,
        unlabelled=data.unlabelled,
        unlabelled_batch_size=free,
        augmentation=augmentation,
        seed=config.fit.seed,
        rank=ranks.rank,
        world=ranks.world,
    )
    return Work(
        learner=learner,
        batches=batches,
        config=config.model_copy(
            update={
                "options": options.model_dump(mode="json"),
                "patch": patch,
                "crop_px": max(patch),
                "augmentation": augmentation,
            }
        ),
        facts=facts,
        chosen=data.chosen,
        data=_told(data, patch),
        judge=(lambda _: VolumeValidation(data.held_out)) if data.held_out else None,
        roles=data.roles,
    )


def _with_arch(method: Method, options: dict[str, Any]) -> dict[str, Any]:
    """Return options with a network of volumes where the method's usual one is of images."""
    usual = method.options.model_fields.get("arch")
    return {"arch": UNET3D, **options} if usual is not None and usual.default == OURS else options


def _check(config: TrainConfig, given: TrainConfig, method: Method) -> None:
    unused = [option for name, option in _UNUSED.items() if getattr(given, name) is not None]
    asked = given.augmentation.model_fields_set.difference(CHANGES)
    unused += [f"augmentation.{name}" for name in sorted(asked) if getattr(given.augmentation, name) > 0]
    if unused:
        raise ConfigError(
            "volumes are learnt from as their store has them",
            where=", ".join(unused),
            mend="Leave it out; wsiseg ingest decides how volumes are prepared, and in training they change by "
            + ", ".join(CHANGES),
        )
    if config.unlabelled_batch_size is not None and not method.takes_unlabelled:
        raise ConfigError(f"{config.method} does not learn from volumes without labels", where="unlabelled_batch_size")


def _patch(config: TrainConfig, given: TrainConfig, data: VolumeData) -> Shape:
    """Return the voxels of a window: as the user says, else the method, else as most volumes have them."""
    if given.patch is None and "crop_px" in given.model_fields_set:
        return (given.crop_px,) * 3
    return config.patch or data.usual_patch


def _augmentation(config: TrainConfig) -> Augmentation:
    """Return how windows change; what means nothing to volumes is off."""
    return Augmentation.none().model_copy(update={name: getattr(config.augmentation, name) for name in CHANGES})


def _told(data: VolumeData, patch: Sequence[int]) -> str:
    free = _count(data.unlabelled)
    without = f", {free} to learn from without labels" if free else ""
    windows = f"in windows of {' x '.join(map(str, patch))} voxels"
    return f"{_count(data.labelled)} volumes to train on{without}, {_count(data.held_out)} held out, {windows}"


def _count(sources: Sequence[VolumeSource]) -> int:
    return sum(len(source.indices) for source in sources)
