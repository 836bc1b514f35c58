"""A training that is stopped or killed and goes on ends as one that was not."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.listeners import Listener
from tests.training_logs import repeatable
from wsiseg import checkpoint
from wsiseg.checkpoint import ModelCard
from wsiseg.errors import DataError, MethodError, StoppedError
from wsiseg.labels import LabelMap
from wsiseg.losses.semantic import combo
from wsiseg.methods.base import Batch, Clock, PredictorSpec
from wsiseg.stopping import Stop
from wsiseg.training.augmentation import Augmentation
from wsiseg.training.batches import Batches, Crops
from wsiseg.training.fit import FitReport, fit
from wsiseg.training.log import read_table
from wsiseg.training.ranks import Ranks
from wsiseg.training.settings import FitSettings
from wsiseg.training.sources import Source
from wsiseg.training.state import Remedy
from wsiseg.training.validation import Validation

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.conftest import MakePatchStore
    from wsiseg.heads.base import Instances

LABELS = LabelMap.from_names(("background", "gland"))


class Pixelwise:
    """The smallest predictor that learns."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval()
        self.spec = PredictorSpec(task="semantic", labels=LABELS, mpp=0.5, tile_px=32, halo_px=4, channels=2)

    def to(self, device: torch.device) -> None:
        self.module.to(device)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        probabilities: torch.Tensor = self.module(batch.float() / 255).softmax(dim=1)
        return probabilities

    def transformed(self, batch: torch.Tensor, symmetry: int) -> torch.Tensor:
        raise NotImplementedError

    def decode(self, maps: NDArray[np.float32]) -> Instances:
        raise NotImplementedError

    def foreground(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        raise NotImplementedError

    def save(self, folder: Path, *, metrics: Mapping[str, float], half: bool = False) -> None:
        card = ModelCard(
            name="toy", task="semantic", labels=LABELS, tile_px=32, halo_px=4, net={}, metrics=dict(metrics)
        )
        checkpoint.save(folder, card, self.module.state_dict(), half=half)


class ToyLearner:
    """Learns glands from colour, with dropout so that random states matter."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module: nn.Module = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(8, 2, 1)
        )
        self.updates = 0

    @property
    def encode(self) -> Any:  # noqa: ANN401 - a plain function
        return encode_classes

    def training_step(self, batch: Batch, clock: Clock) -> dict[str, torch.Tensor]:
        assert 0 <= clock.progress < 1
        return combo(self.module(batch.images.float() / 255), batch.targets["classes"].long(), dice_weight=1.0)

    def rate_of(self, name: str) -> float:  # noqa: ARG002 - all learn alike
        return 1.0

    def after_update(self, clock: Clock) -> None:
        assert self.updates in {clock.step, 0}
        self.updates = clock.step + 1

    def predictor(self, module: nn.Module) -> Pixelwise:
        return Pixelwise(module)


def encode_classes(labels: NDArray[np.int32], valid: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    return {"classes": np.where(valid, labels, 255).astype(np.uint8)}


@pytest.fixture
def source(tmp_path: Path, make_patch_store: MakePatchStore) -> Source:
    """Return glands that are dark on a light ground."""
    rng = np.random.default_rng(0)
    labels = (rng.random((6, 5, 5)) < 0.4).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
    images = np.where(labels[..., None] == 1, 90, 200) + rng.integers(-30, 30, (*labels.shape, 3))
    store = make_patch_store(tmp_path / "glands.zarr", images.astype(np.uint8), labels)
    return Source(patches=store, layer="truth", indices=np.arange(6))


SETTINGS = FitSettings(steps=12, log_every=3, validate_every=4, ema=0.9, lr=0.01, num_workers=2, save_interval_s=0)


def run(source: Source, folder: Path, settings: FitSettings = SETTINGS, **others: Any) -> FitReport:  # noqa: ANN401
    learner = ToyLearner()
    batches = Batches(
        [source], learner.encode, batch_size=2, crop_px=24, augmentation=Augmentation(), seed=settings.seed
    )
    validation = Validation([source], learner.predictor(learner.module).spec)
    return fit(learner, batches, settings, folder, **{"validation": validation, **others})


class StopAfter(Stop):
    """Asks for a stop at one look."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    @property
    def is_requested(self) -> bool:
        self.looks -= 1
        if self.looks <= 0:
            self.request("the test says so")
        return super().is_requested


def outcome(folder: Path) -> dict[str, bytes]:
    names = ("log.csv", "validation.csv", "best/model.safetensors", "best/model.json", "last/model.safetensors")
    return {name: repeatable(folder / name) for name in names}


def test_it_learns_and_tells(source: Source, tmp_path: Path) -> None:
    report = run(source, tmp_path / "run", SETTINGS.model_copy(update={"steps": 60, "validate_every": 20}))

    log, validation = read_table(tmp_path / "run" / "log.csv"), read_table(tmp_path / "run" / "validation.csv")
    assert [row["step"] for row in validation] == [20, 40, 60]
    assert list(log[0]) == ["step", "epoch", "lr", "loss", "cross_entropy", "dice", "wait"]
    assert log[-1]["loss"] < log[0]["loss"]
    assert report.metric == "miou"
    assert report.best == pytest.approx(max(row["miou"] for row in validation))
    assert report.best > 0.7
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000
    assert checkpoint.read_card(tmp_path / "run").metrics["miou"] == report.best


def test_what_a_probe_tells_stands_beside_each_validation(source: Source, tmp_path: Path) -> None:
    probe = SimpleNamespace(measure=lambda clock, _: {"label_miou": clock.step / 100})
    run(source, tmp_path / "run", probe=probe)

    rows = read_table(tmp_path / "run" / "validation.csv")
    assert [(row["step"], row["label_miou"]) for row in rows] == [(4, 0.03), (8, 0.07), (12, 0.11)]
    means = ["miou", "fw_iou", "pixel_accuracy", "mean_dice", "label_miou"]
    assert list(rows[0]) == ["step", *means, "iou_background", "iou_gland"]
    assert checkpoint.read_card(tmp_path / "run" / "last").metrics["label_miou"] == 0.11


def test_processes_that_do_not_probe_wait_for_the_one_that_does(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def measure(*_: object) -> dict[str, float]:
        seen.append("probe")
        return {"label_miou": 0.5}

    monkeypatch.setattr(Ranks, "wait", lambda _: seen.append("wait"))

    run(source, tmp_path / "run", probe=SimpleNamespace(measure=measure))

    assert seen == ["probe", "wait"] * 3 + ["wait"]


@pytest.mark.parametrize("looks", [1, 5, 8])
def test_a_stopped_training_goes_on_to_the_same_end(source: Source, tmp_path: Path, looks: int) -> None:
    run(source, tmp_path / "whole")
    with pytest.raises(StoppedError):
        run(source, tmp_path / "parts", stop=StopAfter(looks))

    report = run(source, tmp_path / "parts", SETTINGS.model_copy(update={"num_workers": 0}))

    assert report.steps_before == looks
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_rows_written_after_the_state_are_written_anew(source: Source, tmp_path: Path) -> None:
    run(source, tmp_path / "whole")
    with pytest.raises(StoppedError):
        run(source, tmp_path / "parts", stop=StopAfter(5))
    with (tmp_path / "parts" / "log.csv").open("a") as file:
        file.write("6,1,1,1,1,1,1\n9,1,1,1")

    run(source, tmp_path / "parts")

    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_a_finished_training_is_left_alone(source: Source, tmp_path: Path) -> None:
    run(source, tmp_path)
    before, log = outcome(tmp_path), (tmp_path / "log.csv").read_bytes()

    report = run(source, tmp_path)

    assert report.steps_before == report.steps == 12
    assert math.isnan(report.wait)
    assert outcome(tmp_path) == before
    assert (tmp_path / "log.csv").read_bytes() == log


class Hand:
    """A clock that somebody turns by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        monkeypatch.setattr("wsiseg.training.batches.time", self)

    def perf_counter(self) -> float:
        return self.seconds


class SlowBatches:
    """Batches of which each takes its time, the first ones most of it."""

    images_per_batch = images_per_epoch = 2

    def __init__(self, clock: Hand) -> None:
        self.clock = clock
        self.is_closed = False

    def stream(self, start: int, stop: int, *, workers: int) -> Generator[Crops]:  # noqa: ARG002 - a stream's signature
        try:
            for number in range(start, stop):
                self.clock.seconds += 3.0 if number < 6 else 1.0
                images = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
                yield Crops(images=images, targets={"classes": images[:, 0] > 127}, look={}, seed=number)
        finally:
            self.is_closed = True


class TimedLearner(ToyLearner):
    """Learns for a second."""

    def __init__(self, clock: Hand) -> None:
        super().__init__()
        self.clock = clock

    def training_step(self, batch: Batch, clock: Clock) -> dict[str, torch.Tensor]:
        self.clock.seconds += 1.0
        return super().training_step(batch, clock)


def test_the_share_of_time_that_batches_let_wait_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Hand(monkeypatch)
    settings = SETTINGS.model_copy(update={"log_every": 6})

    listener = Listener()

    report = fit(TimedLearner(clock), SlowBatches(clock), settings, tmp_path, progress=listener)

    told = {int(row["step"]): row["wait"] for row in read_table(tmp_path / "log.csv")}
    assert told == {1: 0.75, 6: 0.75, 12: 0.5}
    assert report.wait == pytest.approx((6 * 3 + 6 * 1) / (12 + 6 * 3 + 6 * 1))
    assert any(message.startswith("67% of the time was spent waiting for batches") for message in listener.heard)


def test_a_training_that_is_stopped_closes_its_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Hand(monkeypatch)
    batches = SlowBatches(clock)

    with pytest.raises(StoppedError):
        fit(TimedLearner(clock), batches, SETTINGS, tmp_path, stop=StopAfter(2))

    assert batches.is_closed


def test_gradients_of_several_batches_add_up(source: Source, tmp_path: Path) -> None:
    report = run(source, tmp_path, SETTINGS.model_copy(update={"accumulate": 3}))

    assert report.steps == 12
    assert read_table(tmp_path / "log.csv")[-1]["epoch"] == pytest.approx(12 * 3 * 2 / 18)


def test_going_on_with_another_plan_is_refused(source: Source, tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        run(source, tmp_path, stop=StopAfter(2), plan={"lr": 1, "seed": 0})

    with pytest.raises(DataError, match=r"other settings or data \(lr was 1 and is 2\).* --overwrite to train from"):
        run(source, tmp_path, plan={"lr": 2, "seed": 0})


def test_a_finished_model_is_written_again_only_where_it_is_gone(source: Source, tmp_path: Path) -> None:
    run(source, tmp_path)
    card = tmp_path / "last" / "model.json"
    card.write_text(card.read_text().replace("toy", "of an older version"))

    run(source, tmp_path)
    assert "of an older version" in card.read_text()
    # A kill between the state and the model.
    card.unlink()
    run(source, tmp_path)
    assert "toy" in card.read_text()


def test_a_best_model_that_nobody_wants_is_not_kept(source: Source, tmp_path: Path) -> None:
    report = run(source, tmp_path, is_best_kept=False)

    assert report.best > 0
    assert not (tmp_path / "best").exists()
    assert checkpoint.locate(tmp_path) == tmp_path / "last"


def test_a_damaged_state_is_one_line(source: Source, tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        run(source, tmp_path, stop=StopAfter(2))
    (tmp_path / "last.pt").write_bytes(b"rubbish")

    with pytest.raises(DataError, match="no state of a training, or a damaged one"):
        run(source, tmp_path)


def test_a_loss_that_is_no_number_ends_the_training(source: Source, tmp_path: Path) -> None:
    wild = SETTINGS.model_copy(update={"lr": 1e30, "clip_norm": 1e30, "weight_decay": 1e6})

    with pytest.raises(MethodError, match=r"no longer finite at step 3.* --overwrite with a lower --lr, or"):
        run(source, tmp_path / "whole", wild)
    with pytest.raises(
        MethodError, match=r"no longer finite at step 3.* --stages segment --overwrite with --set lr=1, or"
    ):
        run(source, tmp_path / "stage", wild, remedy=Remedy(anew="--stages segment --overwrite", slower="--set lr=1"))


def test_without_validation_the_last_model_counts(source: Source, tmp_path: Path) -> None:
    report = run(source, tmp_path, validation=None)

    assert math.isnan(report.best)
    assert checkpoint.locate(tmp_path) == tmp_path / "last"


def test_batches_do_not_depend_on_the_number_of_ranks(source: Source) -> None:
    def batches(size: int, rank: int, world: int) -> Batches:
        options = {"batch_size": size, "crop_px": 24, "augmentation": Augmentation(), "seed": 5}
        return Batches([source], encode_classes, rank=rank, world=world, **options)  # type: ignore[arg-type]

    whole = batches(4, 0, 1).make(7)
    parts = [batches(2, rank, 2).make(7) for rank in range(2)]

    assert torch.equal(whole.images, torch.cat([part.images for part in parts]))
    assert torch.equal(whole.targets["classes"], torch.cat([part.targets["classes"] for part in parts]))


def test_sources_with_and_without_weight_do_not_mix(source: Source) -> None:
    heavy = Source(patches=source.patches, layer="truth", indices=source.indices, weight=2.0)

    with pytest.raises(DataError, match="some sources have a weight"):
        Batches([source, heavy], encode_classes, batch_size=1, crop_px=8, augmentation=Augmentation(), seed=0)
    empty = Source(patches=source.patches, layer="truth", indices=source.indices[:0])
    with pytest.raises(DataError, match="no patch to train on"):
        Batches([empty], encode_classes, batch_size=1, crop_px=8, augmentation=Augmentation(), seed=0)
