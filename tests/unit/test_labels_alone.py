"""Without consistency, methods that take images without labels learn nothing from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from wsiseg.config import load
from wsiseg.labels import LabelMap
from wsiseg.methods.base import Batch, Clock, TrainingFacts
from wsiseg.methods.registry import get_method
from wsiseg.methods.teachers import Pair
from wsiseg.progress import SILENT
from wsiseg.tasks.budget_draws import plans_of
from wsiseg.tasks.budget_settings import BudgetConfig
from wsiseg.tasks.train import prepared
from wsiseg.tasks.train_job import TrainConfig, TrainJob
from wsiseg.training.ranks import Ranks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePatchStore
    from wsiseg.methods.base import DenseLearner

SIDE = 32
CASES: list[tuple[str, dict[str, Any]]] = [
    ("ugmcl", {"arch": "dual-unet", "net": {"widths": [4, 8], "dropouts": [0.1, 0.5]}}),
    ("mean-teacher", {"arch": "unet", "encoder": "tu-mobilenetv3_small_050"}),
    ("pgfanet", {"net": {"encoder": "resnet18", "width": 8, "features": 8}}),
    ("hce", {"net": {"encoder": "resnet18", "width": 8, "features": 8, "decoders": 2}}),
]


def learner_of(name: str, options: dict[str, Any]) -> DenseLearner:
    method = get_method(name)
    facts = TrainingFacts(
        name="toy",
        kind="classes",
        labels=LabelMap.from_names(("background", "gland")),
        mpp=0.5,
        crop_px=SIDE,
        training_data={},
    )
    torch.manual_seed(0)
    return method.stages(load(method.options, options=options))[0].build(facts)


def batch_of(learner: DenseLearner, unlabelled: int) -> Batch:
    """Return two images with labels, and two without that have one brightness all over."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (2, SIDE, SIDE), dtype=np.int32)
    images = np.full((4, 3, SIDE, SIDE), unlabelled, np.uint8)
    images[:2] = labels[:, None] * 90 + rng.integers(0, 60, (2, 3, SIDE, SIDE))
    items = [learner.encode(one, np.ones(one.shape, bool)) for one in labels]
    targets = {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}
    return Batch(images=torch.from_numpy(images), targets=targets)


def learnt(name: str, options: dict[str, Any], unlabelled: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss of one step, and what the student knows after it, running statistics included."""
    learner = learner_of(name, options)
    learner.module.train()
    torch.manual_seed(1)
    loss = learner.training_step(batch_of(learner, unlabelled), Clock(step=5, steps=10))["loss"]
    known = {key: value for key, value in learner.module.state_dict().items() if key.startswith("student.")}
    return loss.item(), known


@pytest.mark.parametrize(("name", "options"), CASES, ids=[name for name, _ in CASES])
def test_without_consistency_only_labelled_images_are_seen(name: str, options: dict[str, Any]) -> None:
    (dark, after_dark), (bright, after_bright) = (
        learnt(name, {**options, "consistency": 0}, brightness) for brightness in (20, 250)
    )

    assert dark == bright
    assert all(torch.equal(value, after_bright[key]) for key, value in after_dark.items())


@pytest.mark.parametrize(("name", "options"), CASES, ids=[name for name, _ in CASES])
def test_with_consistency_the_others_are_seen(name: str, options: dict[str, Any]) -> None:
    assert learnt(name, options, 20)[0] != learnt(name, options, 250)[0]


@pytest.mark.parametrize(("name", "options"), CASES, ids=[name for name, _ in CASES])
def test_without_consistency_no_teacher_is_asked(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = learner_of(name, {**options, "consistency": 0})
    assert isinstance(learner.module, Pair)
    asked: list[torch.nn.Module] = []
    monkeypatch.setattr(learner.module.teacher, "forward", asked.append)

    losses = learner.training_step(batch_of(learner, 20), Clock(step=5, steps=10))

    assert torch.isfinite(losses["loss"])
    assert asked == []


@pytest.fixture
def stores(tmp_path: Path, make_patch_store: MakePatchStore) -> tuple[Path, ...]:
    """Return a store of which some images have labels, and one of images without."""
    pixels = np.zeros((6, SIDE, SIDE, 3), np.uint8)
    splits = ["train"] * 3 + ["val", "test", "unlabelled"]
    make_patch_store(tmp_path / "known.zarr", pixels, pixels[..., 0], splits=splits)
    make_patch_store(tmp_path / "more.zarr", pixels, parents=list("abcdef"))
    return tmp_path / "known.zarr", tmp_path / "more.zarr"


@pytest.mark.parametrize(("name", "options"), CASES, ids=[name for name, _ in CASES])
@pytest.mark.parametrize("consistency", [0, 0.1])
def test_without_consistency_no_others_are_drawn_or_told_of(
    stores: tuple[Path, ...], tmp_path: Path, name: str, options: dict[str, Any], consistency: float
) -> None:
    asked = {"method": name, "crop_px": SIDE, "batch_size": 2, "labelled": "2", "fit": {"amp": "off"}}
    config = TrainConfig.model_validate({**asked, "options": {**options, "consistency": consistency}})

    work = prepared(TrainJob(stores=stores, output=tmp_path / "run", config=config), Ranks())

    is_seen = consistency > 0
    assert work.batches.images_per_batch == (4 if is_seen else 2)
    assert ("without labels" in work.data) == is_seen
    assert ("train-unlabelled" in work.roles) == is_seen
    assert set(work.facts.training_data) == ({"known.zarr", "more.zarr"} if is_seen else {"known.zarr"})


def test_a_study_does_not_miss_images_that_nobody_would_see(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    pixels = np.zeros((4, SIDE, SIDE, 3), np.uint8)
    make_patch_store(tmp_path / "s.zarr", pixels, pixels[..., 0], splits=["train", "train", "val", "test"])
    config = BudgetConfig(methods=("ugmcl", "alone"), counts=(1, 2), seeds=1)
    trainings = {
        name: TrainConfig(method="ugmcl", options={"consistency": consistency})
        for name, consistency in zip(config.methods, (0.1, 0), strict=True)
    }

    plans = plans_of([tmp_path / "s.zarr"], config, trainings, SILENT)

    assert [(plan.method, plan.size) for plan in plans if plan.lacks_unlabelled] == [("ugmcl", "2")]
