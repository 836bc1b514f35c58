"""``wsiseg train --method pgfanet`` learns from few labels with settings of its own, and keeps what finds objects."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.training_logs import repeatable
from wsiseg.cli import app
from wsiseg.config import load
from wsiseg.errors import StoppedError
from wsiseg.methods.predictor import load_predictor
from wsiseg.stopping import Stop
from wsiseg.tasks.train import train
from wsiseg.tasks.train_job import TrainConfig, TrainJob
from wsiseg.training.log import read_table

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePatchStore

SMALL = (
    "--crop-px=32",
    "--batch-size=2",
    "--steps=4",
    "--device=cpu",
    "--num-workers=1",
    "--encoder=resnet18",
    "--set=options.net.width=8",
    "--set=options.net.features=8",
    "--set=fit.accumulate=1",
    "--set=fit.log_every=2",
    "--set=fit.validate_every=2",
)


@pytest.fixture
def store(tmp_path: Path, make_patch_store: MakePatchStore) -> Path:
    """Return dark squares, each an object, on four images."""
    labels = np.zeros((8, 40, 40), np.int32)
    for number, (row, column) in enumerate([(4, 4), (4, 24), (24, 4), (24, 24)], start=1):
        labels[:, row : row + 10, column : column + 10] = number
    images = np.where(labels[..., None] > 0, 90, 200).repeat(3, axis=3).astype(np.uint8)
    path = tmp_path / "nuclei.zarr"
    make_patch_store(path, images, labels, kind="instances", parents=[f"image{n // 2}" for n in range(8)], mpp=0.25)
    return path


class StopAfter(Stop):
    """Asks for a stop at one look."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    @property
    def is_requested(self) -> bool:
        """Count the look."""
        self._looks -= 1
        if self._looks == 0:
            self.request("enough")
        return super().is_requested


def test_few_labels_and_many_images(store: Path, tmp_path: Path) -> None:
    arguments = ("train", store, "-o", tmp_path / "run", "--method=pgfanet", "--labelled=1", *SMALL)

    app.app([str(argument) for argument in arguments], standalone_mode=False)

    log = read_table(tmp_path / "run" / "log.csv")
    assert {"cross_entropy", "dice", "aux", "variance", "consistency", "weight", "agreement", "balance"} <= set(log[0])
    rows = read_table(tmp_path / "run" / "validation.csv")
    assert {"aji", "teacher_aji"} <= set(rows[0])
    fit = json.loads((tmp_path / "run" / "config.json").read_text())["fit"]
    assert (fit["optimiser"], fit["schedule"], fit["clip_norm"], fit["steps"]) == ("adam", "poly", 4.0, 4)
    predictor = load_predictor(tmp_path / "run" / "best")
    assert predictor.spec.channels == 3
    assert predictor.spec.halo_px == 8


def test_where_all_have_labels_nothing_is_agreed_about_and_rounds_are_theirs(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [argument for argument in SMALL if not argument.startswith(("--steps", "--crop", "--batch"))]
    arguments = ("train", store, "-o", tmp_path / "run", "--method=pgfanet", "--labelled=100%", *settings)

    app.app(
        [str(one) for one in (*arguments, "--epochs=2.5", "--batch-size=6", "--crop-px=40", "--val-fraction=0")],
        standalone_mode=False,
    )

    log = read_table(tmp_path / "run" / "log.csv")
    assert {"cross_entropy", "dice", "aux", "variance"} <= set(log[0])
    assert not {"consistency", "weight", "agreement"} & set(log[0])
    assert log[-1]["step"] == math.ceil(2.5 * 8 / 6)
    said = " ".join(capsys.readouterr().err.split())
    assert "8 patches of 4 images to train on, none held out, 6 images per step" in said
    assert "100% of 32 objects can come back from the head ternary" in said


def test_a_training_that_was_stopped_goes_on_with_the_same_losses(store: Path, tmp_path: Path) -> None:
    config = load(
        TrainConfig,
        options={
            "method": "pgfanet",
            "labelled": "1",
            "crop_px": 32,
            "batch_size": 2,
            "name": "toy",
            "options": {"encoder": "resnet18", "net": {"width": 8, "features": 8}},
            "fit": {"steps": 6, "accumulate": 2, "log_every": 1, "validate_every": 6, "num_workers": 1},
        },
    )
    whole, parts = (
        TrainJob(stores=(store,), output=tmp_path / name, config=config, device="cpu") for name in ("whole", "parts")
    )

    train(whole)
    with pytest.raises(StoppedError):
        train(parts, stop=StopAfter(3))
    assert len(read_table(tmp_path / "parts" / "log.csv")) == 3
    train(parts)

    for name in ("log.csv", "validation.csv", "last/model.safetensors"):
        assert repeatable(tmp_path / "parts" / name) == repeatable(tmp_path / "whole" / name)
