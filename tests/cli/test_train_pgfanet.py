"""``wsiseg train --method pgfanet`` learns from few labels with settings of its own, and keeps what finds objects."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from wsiseg.cli import app
from wsiseg.methods.predictor import load_predictor
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
