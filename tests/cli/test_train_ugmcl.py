"""``wsiseg train --method ugmcl`` learns classes and objects from few labels, with settings of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from wsiseg.cli import app
from wsiseg.methods.predictor import load_predictor
from wsiseg.training.log import read_table

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePatchStore
    from wsiseg.stores.patches import LayerKind

SMALL = (
    "--method=ugmcl",
    "--labelled=1",
    "--crop-px=32",
    "--batch-size=2",
    "--steps=4",
    "--device=cpu",
    "--num-workers=1",
    "--set=options.net.widths=[4, 8]",
    "--set=options.net.dropouts=[0.1, 0.3]",
    "--set=options.mc_passes=2",
    "--set=fit.log_every=2",
    "--set=fit.validate_every=2",
)


@pytest.mark.parametrize(("kind", "channels"), [("instances", 3), ("classes", 2)])
def test_few_labels_and_many_images(
    tmp_path: Path, make_patch_store: MakePatchStore, kind: LayerKind, channels: int
) -> None:
    labels = np.zeros((8, 40, 40), np.int32 if kind == "instances" else np.uint8)
    for number, (row, column) in enumerate([(4, 4), (4, 24), (24, 4), (24, 24)], start=1):
        labels[:, row : row + 10, column : column + 10] = number if kind == "instances" else 1
    images = np.where(labels[..., None] > 0, 90, 200).repeat(3, axis=3).astype(np.uint8)
    make_patch_store(
        tmp_path / "toy.zarr", images, labels, kind=kind, parents=[f"image{n // 2}" for n in range(8)], mpp=0.5
    )
    arguments = ("train", tmp_path / "toy.zarr", "-o", tmp_path / "run", *SMALL)

    app.app([str(argument) for argument in arguments], standalone_mode=False)

    log = read_table(tmp_path / "run" / "log.csv")
    told = {"cross_entropy", "dice", "distance", "intra_task", "cross_task", "weight", "coverage", "entropy", "balance"}
    assert told <= set(log[0])
    assert log[0]["weight"] < log[-1]["weight"] < 0.1
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["fit"]["optimiser"], config["fit"]["schedule"], config["fit"]["lr"]) == ("sgd", "poly", 0.01)
    assert config["options"]["sdf"]["longest"] == 8
    predictor = load_predictor(tmp_path / "run" / "best")
    assert predictor.spec.channels == channels
    assert predictor.forward(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, channels, 32, 32)
