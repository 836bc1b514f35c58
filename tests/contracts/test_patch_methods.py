"""What every method promises that knows patches by their classes, whatever it does inside."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch

from tests.patch_makers import write_patches
from tests.training_logs import repeatable
from wsiseg.checkpoint import CARD, WEIGHTS
from wsiseg.config import load, merged
from wsiseg.errors import ConfigError, DataError, MethodError, StoppedError
from wsiseg.ingestion import IngestSettings
from wsiseg.methods import registry
from wsiseg.methods.base import Batch, Clock
from wsiseg.methods.predictor import load_predictor
from wsiseg.methods.registry import get_patch_method
from wsiseg.methods.stages import LabelStage
from wsiseg.progress import Silent
from wsiseg.stopping import Stop
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks.ingest import ingest
from wsiseg.tasks.patch_data import patch_data
from wsiseg.tasks.stage_options import OPTIONS
from wsiseg.tasks.train import train
from wsiseg.tasks.train_job import CONFIG, TrainConfig, TrainJob
from wsiseg.tiling.reading import open_patches
from wsiseg.training.log import read_table
from wsiseg.training.training_run import LAST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wsiseg.methods.base import Learner
    from wsiseg.methods.stages import PatchMethod, PatchStage
    from wsiseg.progress import Advance
    from wsiseg.tasks.train_job import TrainReport

START = Clock(step=0, steps=10)
EPOCHS = 4
# Options with which a method is small, by its name.
SMALL: dict[str, dict[str, Any]] = {
    "craanet": {"backbone": "mobilenetv3_small_050", "gate": True},
    # Its attention acts from the second epoch on, so that it falls before an interruption and after.
    "mlps": {"backbone": "mobilenetv3_small_050", "numbers": {"attention": {"warmup_epochs": 1}}},
}


@dataclass(frozen=True)
class Run:
    """A finished training."""

    method: PatchMethod
    store: Path
    folder: Path

    @property
    def stages(self) -> list[PatchStage]:
        """Return the stages that train."""
        options = load(self.method.options, options=SMALL[self.method.name])
        return [stage for stage in self.method.stages(options) if not isinstance(stage, LabelStage)]

    def learner(self, stage: PatchStage, seed: int = 0) -> Learner:
        """Return an untrained learner of a stage, made of the models of the run."""
        store = open_patches([self.store])
        data = patch_data(store, name="toy", layer=None, training_data={"toy": "1"})
        torch.manual_seed(seed)
        done = {other.name: self.folder / other.name / LAST for other in self.stages}
        return stage.build(data.facts, done, self.layers)

    @property
    def layers(self) -> tuple[str, ...]:
        """Return the layers that were labelled."""
        names = sorted(name for name in PatchStore.open(self.store).layers if name != "labels")
        return tuple(names)

    def batch(self) -> Batch:
        """Return four training patches with all that is known of them."""
        store = open_patches([self.store])
        rows = np.arange(4)
        images = torch.from_numpy(store.read_images(rows)).permute(0, 3, 1, 2)
        present = torch.from_numpy(store.read_image_labels("labels", rows).astype(np.float32))
        masks = {name: torch.from_numpy(store.read_labels(name, rows).astype(np.int64)) for name in self.layers}
        known = {"present": present, "index": torch.arange(4), "symmetry": torch.zeros(4, dtype=torch.int64)}
        return Batch(images=images, targets=known | masks)


def job(method: str, store: Path, folder: Path, *, overwrite: bool = False, **settings: Any) -> TrainJob:  # noqa: ANN401
    config = {
        "method": method,
        "name": "toy",
        "options": SMALL[method],
        "epochs": EPOCHS,
        "batch_size": 3,
        "fit": {"log_every": 1, "num_workers": 0},
        **settings,
    }
    return TrainJob(
        stores=(store,), output=folder, config=load(TrainConfig, options=config), device="cpu", overwrite=overwrite
    )


class Impatient:
    """Somebody who asks for a stop after so many steps of the training that he counts."""

    def __init__(self, stop: Stop, *, training: int, steps: int) -> None:
        self.stop, self.training, self.steps = stop, training, steps

    @contextmanager
    def task(self, what: str, *, total: int | None, unit: str = "") -> Iterator[Advance]:  # noqa: ARG002 - protocol
        self.training -= what == "training"
        is_counted = what == "training" and self.training == 0

        def advance(steps: int = 1, *, status: str = "") -> None:  # noqa: ARG001 - protocol
            self.steps -= steps * is_counted
            if self.steps <= 0:
                self.stop.request("of impatience")

        yield advance

    def say(self, message: str) -> None:
        """Listen to nothing."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patches")
    settings = IngestSettings.model_validate({"layout": "wsss4luad"})
    ingest(write_patches(folder / "source"), folder / "patches.zarr", settings)
    return folder / "patches.zarr"


@pytest.fixture(scope="module", params=sorted(registry.PATCH_METHODS))
def run(request: pytest.FixtureRequest, patches: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    name = cast("str", request.param)
    folder = tmp_path_factory.mktemp(name)
    shutil.copytree(patches, folder / "store.zarr")
    train(job(name, folder / "store.zarr", folder / "run"))
    method = get_patch_method(name)
    assert method is not None
    return Run(method=method, store=folder / "store.zarr", folder=folder / "run")


def files(folder: Path) -> dict[str, bytes]:
    """Return what lies in a folder, but for the states, which know the time that they were written."""
    found = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.suffix not in (".pt", ".png")]
    return {file.relative_to(folder).as_posix(): repeatable(file) for file in found}


def test_every_method_has_small_options() -> None:
    assert set(SMALL) == set(registry.PATCH_METHODS)


def test_options_and_numbers_of_each_stage_survive_a_round_trip(run: Run) -> None:
    numbers = {stage.name: {"epochs": 7} for stage in run.stages}
    options = load(run.method.options, options={**SMALL[run.method.name], "numbers": numbers})

    assert load(run.method.options, options=options.model_dump(mode="json")) == options
    stages = [stage for stage in run.method.stages(options) if not isinstance(stage, LabelStage)]
    assert [stage.settings.epochs for stage in stages] == [7] * len(numbers)


def test_the_loss_is_a_finite_scalar_and_its_gradient_reaches_all_that_learns(run: Run) -> None:
    for stage in run.stages:
        learner = run.learner(stage)
        learner.module.train()

        losses = learner.training_step(run.batch(), START)
        torch.autograd.backward(losses["loss"])

        assert all(value.shape == () and torch.isfinite(value) for value in losses.values())
        learning = {name: value for name, value in learner.module.named_parameters() if value.requires_grad}
        assert [name for name, value in learning.items() if value.grad is None] == []
        assert all(learner.rate_of(name) > 0 for name in learning)


def test_a_batch_of_which_nothing_is_known_is_refused(run: Run) -> None:
    nothing = Batch(images=run.batch().images, targets={})
    for stage in run.stages:
        with pytest.raises(MethodError):
            run.learner(stage).training_step(nothing, START)


def test_the_same_seed_gives_the_same_loss(run: Run) -> None:
    for stage in run.stages:
        losses = []
        for seed in (3, 3, 4):
            learner = run.learner(stage, seed)
            learner.module.eval()
            losses.append(learner.training_step(run.batch(), START)["loss"].item())

        assert losses[0] == losses[1] != losses[2]


def test_a_saved_model_predicts_the_same(run: Run, tmp_path: Path) -> None:
    for stage in run.stages:
        learner = run.learner(stage)
        predictor = learner.predictor(learner.module)
        predictor.save(tmp_path / stage.name, metrics={"miou": 0.5})
        # What is kept of a stage may do more than what it is judged by: it is loaded twice.
        first, second = (load_predictor(tmp_path / stage.name) for _ in range(2))
        first.save(tmp_path / "again", metrics={"miou": 0.5})

        assert first.spec == predictor.spec
        again = files(tmp_path / "again")
        assert {CARD, WEIGHTS} == set(again)
        # Beside a model may lie what a later stage needs.
        assert again.items() <= files(tmp_path / stage.name).items()
        with torch.inference_mode():
            prob = first.forward(run.batch().images)
            torch.testing.assert_close(second.forward(run.batch().images), prob)
            torch.testing.assert_close(prob.sum(dim=1), torch.ones_like(prob[:, 0]))


def test_every_model_knows_what_its_patches_call_white(run: Run) -> None:
    white = PatchStore.open(run.store).image_layers["labels"].white

    assert white is not None
    for stage in run.stages:
        assert load_predictor(run.folder / stage.name / LAST).spec.white == white


def test_a_second_run_does_nothing(run: Run) -> None:
    before, labels = files(run.folder), files(run.store)

    report = train(job(run.method.name, run.store, run.folder))

    assert report.fit.steps_before == report.fit.steps
    assert str(report).startswith("nothing to do")
    assert files(run.folder) == before
    assert files(run.store) == labels


def test_a_stage_that_is_finished_is_not_made_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a finished stage was made again")

    for stage in run.stages:
        monkeypatch.setattr(type(stage), "build", refuse)

    report = train(job(run.method.name, run.store, run.folder))

    scores = read_table(run.folder / run.stages[-1].name / "validation.csv")
    assert report.fit.best == pytest.approx(max(row["miou"] for row in scores))
    assert report.fit.metric == "miou"


def test_a_changed_number_of_a_stage_concerns_that_stage_alone(run: Run) -> None:
    before, labels, last = files(run.folder), files(run.store), run.stages[-1].name
    options = merged(SMALL[run.method.name], {"numbers": {last: {"lr": 0.0123}}})

    with pytest.raises(DataError) as caught:
        train(job(run.method.name, run.store, run.folder, options=options))

    assert str(caught.value).startswith(f"{run.folder / last}: ")
    assert f"(options.numbers.{last}.lr was " in str(caught.value)
    assert f"and is 0.0123). Use the same settings or another output folder, or pass --stages {last} --over" in str(
        caught.value
    )
    # The page and the settings wait for a training that is finished.
    assert files(run.folder) == before
    assert files(run.store) == labels


def test_a_stop_is_seen_after_the_last_training_too(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    page, stop = tmp_path / "run" / "report.html", Stop()
    page.unlink()
    work = job(run.method.name, run.store, tmp_path / "run")

    class Hasty(Silent):
        def say(self, message: str) -> None:
            if message.startswith(f"{run.stages[-1].name}: finished before"):
                stop.request("of haste")

    with pytest.raises(StoppedError):
        train(work, Hasty(), stop)
    assert not page.exists()
    train(work)
    assert page.exists()


@pytest.mark.slow
def test_several_runs_share_a_classifier(run: Run, tmp_path: Path) -> None:
    first, *_, last = run.stages
    shutil.copytree(run.store, tmp_path / "store.zarr")
    shutil.copytree(run.folder / first.name, tmp_path / "run" / first.name)
    before = files(tmp_path / "run" / first.name)

    report = train(
        job(
            run.method.name,
            tmp_path / "store.zarr",
            tmp_path / "run",
            stages=["pseudo-label", last.name],
            epochs=1,
            options={"gate": False, "numbers": {last.name: {"lr": 0.0123}}},
        )
    )

    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert report.fit.steps_before == 0
    assert config["options"]["backbone"] == SMALL[run.method.name]["backbone"]
    assert config["options"]["numbers"][first.name]["epochs"] == EPOCHS
    assert files(tmp_path / "run" / first.name) == before


@pytest.mark.slow
def test_a_stopped_stage_goes_on_with_epoch_rate_and_schedule(run: Run, tmp_path: Path) -> None:
    for number, stage in enumerate(run.stages, start=1):
        shutil.copytree(run.store, tmp_path / stage.name / "store.zarr")
        work = job(run.method.name, tmp_path / stage.name / "store.zarr", tmp_path / stage.name / "run")
        stop = Stop()
        steps = read_table(run.folder / stage.name / "log.csv")[-1]["step"]
        with pytest.raises(StoppedError):
            train(work, Impatient(stop, training=number, steps=int(steps) // 2), stop)
        assert not (tmp_path / stage.name / "run" / stage.name / LAST).exists()

        train(work)

        assert files(work.output) == files(run.folder)
        rows = read_table(work.output / stage.name / "log.csv")
        assert [row["step"] for row in rows] == list(range(1, int(steps) + 1))
        assert all(later["lr"] < earlier["lr"] for earlier, later in pairwise(rows))


def test_a_stage_that_is_left_out_must_have_been_run(run: Run, tmp_path: Path, patches: Path) -> None:
    last = run.stages[-1].name
    with pytest.raises(DataError, match="has not been run"):
        train(job(run.method.name, patches, tmp_path / "empty", stages=[last]))
    with pytest.raises(ConfigError, match="there is no stage 'nonsense'"):
        train(job(run.method.name, patches, tmp_path / "empty", stages=["nonsense"]))
    with pytest.raises(ConfigError, match="no stage is named"):
        train(job(run.method.name, patches, tmp_path / "empty", stages=[]))


@pytest.mark.slow
def test_stages_run_one_by_one_make_what_one_run_makes(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.store, tmp_path / "store.zarr")
    reports: list[TrainReport] = [
        train(job(run.method.name, tmp_path / "store.zarr", tmp_path / "run", stages=[stage.name, *labelled]))
        for stage, labelled in zip(run.stages, [["pseudo-label"], []], strict=True)
    ]

    assert [report.checkpoint for report in reports] == [tmp_path / "run" / "best"] * len(reports)
    assert [report.is_best for report in reports] == [stage.is_best_kept for stage in run.stages]
    assert all(("the best miou was" in str(report)) is not report.is_best for report in reports)
    made, whole = files(tmp_path / "run"), files(run.folder)
    # Settings tell more of what was trained before.
    same = [name for name in whole if not name.endswith((CONFIG, OPTIONS))]
    assert {name: made[name] for name in same} == {name: whole[name] for name in same}


@pytest.mark.slow
def test_starting_a_stage_anew_keeps_those_before_it(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    first, *_, last = run.stages
    before = files(tmp_path / "run" / first.name)

    with pytest.raises(DataError, match="other settings or data"):
        train(job(run.method.name, run.store, tmp_path / "run", stages=[last.name], fit={"log_every": 2}))
    report = train(
        job(run.method.name, run.store, tmp_path / "run", stages=[last.name], fit={"log_every": 2}, overwrite=True)
    )

    assert report.fit.steps_before == 0
    assert files(tmp_path / "run" / first.name) == before


def test_other_labels_of_the_patches_make_masks_of_their_own(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.store, tmp_path / "store.zarr")
    store = PatchStore.open(tmp_path / "store.zarr")
    values = store.read_image_labels("labels", range(len(store)))
    values[0] = 1
    store.add_image_layer("labels", store.image_layers["labels"], values, overwrite=True)

    with pytest.raises(
        DataError,
        match=r"\(labels differ\)\. Use the same settings or another output folder, or pass --overwrite to train all",
    ):
        train(job(run.method.name, tmp_path / "store.zarr", run.folder))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_px": 32}, "--crop-px: {method} learns from whole patches"),
        ({"val_fraction": 0.5, "mpp": 1.0}, "--mpp, --val-fraction: {method} learns"),
        ({"fit": {"accumulate": 2}}, "--accumulate: the stages of {method} have numbers of their own"),
        ({"fit": {"lr": 0.1, "clip_norm": 1.0}}, "--lr, fit.clip_norm: the stages"),
        ({"options": {"arch": "unet", "head": "flow"}}, "--arch, --head: {method} has networks of its own"),
    ],
)
@pytest.mark.parametrize("method", sorted(registry.PATCH_METHODS))
def test_what_means_nothing_to_the_method_is_refused(
    tmp_path: Path, patches: Path, method: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        train(job(method, patches, tmp_path / "run", **settings))

    assert str(caught.value).startswith(message.format(method=method))
