"""Which trainings make a study, and how many labelled images each draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.config import load
from wsiseg.errors import DataError
from wsiseg.manifest import shard
from wsiseg.methods.registry import get_method
from wsiseg.stores.volume_store import LAYER, is_volume_store
from wsiseg.tasks.train_data import training_data
from wsiseg.tasks.train_labelled import unit_of_draws
from wsiseg.tasks.volume_data import unit_of_volumes, volume_data
from wsiseg.tiling.reading import open_patches
from wsiseg.training.labelled import draw_labelled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from wsiseg.progress import Progress
    from wsiseg.tasks.budget_settings import BudgetConfig
    from wsiseg.tasks.train_job import TrainConfig
    from wsiseg.training.splits import Divisible

_ALL: Final = "100%"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A training to be made.

    Parameters
    ----------
    method, size, seed
        How, with what share of the labels, and with which draw.
    unit
        What is drawn: patients, slides, images, volumes or patches.
    lacks_unlabelled
        Whether the method learns from images without labels, and none are left.
    """

    method: str
    size: str
    seed: int
    unit: str = "images"
    lacks_unlabelled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pool:
    names: list[str]
    unit: str
    # Whether nothing is left to be learnt from without labels, by a method that does, once all are drawn.
    is_spent: bool


def is_of_volumes(stores: Sequence[Path]) -> bool:
    """Tell whether volumes are learnt from."""
    return any(is_volume_store(path) for path in stores)


def plans_of(
    stores: Sequence[Path], config: BudgetConfig, trainings: Mapping[str, TrainConfig], progress: Progress
) -> list[Plan]:
    """Return the trainings of a study, seed by seed and from the smallest size.

    Of sizes that come to the same number of images the first is kept: the training would be the same.

    Parameters
    ----------
    stores
        Of patches, or of volumes.
    config
        Methods, sizes and seeds.
    trainings
        Settings of the trainings of each method.
    progress
        Is told which sizes are left out.

    Raises
    ------
    ConfigError
        If there are fewer images than are to be drawn.
    StoreError, DataError
        If the stores cannot be learnt from, or nothing that is marked ``test`` has labels.
    """
    plans: list[Plan] = []
    repeated: dict[tuple[str, str], str] = {}
    for seed in range(config.seeds):
        pools = {method: _pool(stores, trainings[method], seed) for method in config.methods}
        first: dict[tuple[str, int], str] = {}
        for size in config.sizes:
            for method, pool in pools.items():
                count = len(draw_labelled(pool.names, size, seed=seed, what=pool.unit))
                known = first.setdefault((method, count), size)
                if known == size:
                    lacks_unlabelled = pool.is_spent and count == len(pool.names)
                    plan = Plan(method=method, size=size, seed=seed, unit=pool.unit, lacks_unlabelled=lacks_unlabelled)
                    plans.append(plan)
                else:
                    repeated[size, known] = f"{count} {pool.unit}"
    for (size, known), drawn in repeated.items():
        progress.say(f"{size} labelled and {known} are the same here, {drawn}: trained as {known} only")
    return plans


def dealt(plans: Sequence[Plan], num_shards: int | None = None, shard_index: int | None = None) -> list[Plan]:
    """Return the trainings that fall to one job of several, in their order; see `which_shard`.

    They are dealt out method by method: one method may cost ten times what another does, and in the order in which
    they are made one job could get all of it.
    """
    by_method = sorted(plans, key=lambda plan: plan.method)
    mine = set(shard(by_method, num_shards, shard_index))
    return [plan for plan in plans if plan in mine]


def _pool(stores: Sequence[Path], config: TrainConfig, seed: int) -> _Pool:
    """Return the images to draw from, once it is clear that something can judge.

    Raises
    ------
    ConfigError, StoreError, DataError
        See `plans_of`.
    """
    drawing = config.model_copy(update={"labelled": _ALL, "split_seed": seed})
    method = get_method(config.method)
    takes_unlabelled = method.sees_unlabelled(load(method.options, options=config.options))
    if is_of_volumes(stores):
        volumes = volume_data(stores, drawing, takes_unlabelled=takes_unlabelled)
        _check_judges(volumes.stores, LAYER, where=stores[0])
        unit = unit_of_volumes(volumes.stores)
        return _Pool(names=volumes.chosen or [], unit=unit, is_spent=takes_unlabelled and not volumes.unlabelled)
    patches = [open_patches([path]) for path in stores]
    data = training_data(patches, None, drawing, takes_unlabelled=takes_unlabelled)
    _check_judges(patches, data.layer, where=stores[0])
    is_spent = takes_unlabelled and not data.unlabelled
    unit = unit_of_draws(patches, config, has_patients=data.has_patients)
    return _Pool(names=data.chosen or [], unit=unit, is_spent=is_spent)


def _check_judges(stores: Sequence[Divisible], layer: str, *, where: Path) -> None:
    known = [store for store in stores if layer in store.layers]
    if not any(np.any(store.is_labelled(layer) & (store.splits == "test")) for store in known):
        raise DataError(
            f"nothing that is marked test has labels ({layer}), so nothing can judge the trainings",
            where=where,
            mend="Make the store with wsiseg ingest --split, a table of image and split",
        )
