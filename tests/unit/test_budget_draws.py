"""Trainings of a study know what they draw, and are dealt out evenly to the jobs of an array."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.cli import console
from wsiseg.errors import ConfigError
from wsiseg.progress import SILENT
from wsiseg.stores.patch_meta import SlideOrigin
from wsiseg.tasks.budget_draws import Plan, dealt, plans_of
from wsiseg.tasks.budget_settings import BudgetConfig
from wsiseg.tasks.train_data import training_data
from wsiseg.tasks.train_job import TrainConfig
from wsiseg.tiling.reading import open_patches

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePatchStore


@given(methods=st.integers(1, 6), sizes=st.integers(1, 5), seeds=st.integers(1, 4), jobs=st.integers(1, 9))
def test_each_job_gets_as_many_trainings_of_each_method(methods: int, sizes: int, seeds: int, jobs: int) -> None:
    plans = [
        Plan(method=f"method{method}", size=f"{size}", seed=seed)
        for seed in range(seeds)
        for size in range(sizes)
        for method in range(methods)
    ]

    shares = [dealt(plans, jobs, index) for index in range(jobs)]

    assert sorted(plans.index(plan) for share in shares for plan in share) == list(range(len(plans)))
    assert all(share == sorted(share, key=plans.index) for share in shares)
    for method in range(methods):
        counts = [Counter(plan.method for plan in share)[f"method{method}"] for share in shares]
        assert max(counts) - min(counts) <= 1


def test_what_is_left_out_is_said_once_for_all_trainings(
    tmp_path: Path, make_patch_store: MakePatchStore, capsys: pytest.CaptureFixture[str]
) -> None:
    parents, splits = ["p", "p", "q", "r", "s"], ["train", "test", "train", "train", "val"]
    pixels = np.zeros((5, 32, 32, 3), np.uint8)
    make_patch_store(tmp_path / "s.zarr", pixels, pixels[..., 0], parents=parents, splits=splits)
    config = BudgetConfig(methods=("supervised", "mean-teacher"), counts=(1, 2), seeds=2)
    console.configure(console.ProgressStyle.PLAIN, 0)

    plans_of([tmp_path / "s.zarr"], config, {name: TrainConfig(method=name) for name in config.methods}, SILENT)

    assert " ".join(capsys.readouterr().err.split()).count("1 labelled patches are left out") == 1


def test_patches_of_slides_are_drawn_by_slides(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    stores = [tmp_path / f"slide{number}.zarr" for number in range(4)]
    for path, split in zip(stores, ("train", "train", "val", "test"), strict=True):
        pixels = np.zeros((2, 32, 32, 3), np.uint8)
        make_patch_store(path, pixels, pixels[..., 0], parents=[path.stem] * 2, splits=[split] * 2)
        origin = SlideOrigin(path="", slide_id=path.stem, fingerprint="", size=(64, 64), mpp=0.5, reader="")
        meta = json.loads((path / "zarr.json").read_text())
        meta["attributes"]["wsiseg"]["slide"] = origin.model_dump(mode="json")
        (path / "zarr.json").write_text(json.dumps(meta))
    config = BudgetConfig(methods=("supervised", "mean-teacher"), counts=(1, 2), seeds=1)

    plans = plans_of(stores, config, {name: TrainConfig(method=name) for name in config.methods}, SILENT)

    assert {plan.unit for plan in plans} == {"slides"}
    with pytest.raises(ConfigError, match="99 of 2 labelled slides cannot be drawn"):
        training_data(
            [open_patches([path]) for path in stores], None, TrainConfig(labelled="99"), takes_unlabelled=False
        )
    # Only a method that learns from slides without labels can lack them, and only where all have labels.
    assert [(plan.method, plan.size) for plan in plans if plan.lacks_unlabelled] == [("mean-teacher", "2")]
