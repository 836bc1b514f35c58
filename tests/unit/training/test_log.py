"""The picture of a training is legible however short the training was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from wsiseg.training.log import CURVES, TRAINING, VALIDATION, Table, draw_curves, read_table

if TYPE_CHECKING:
    from pathlib import Path


def _pixels_of(path: Path, colour: tuple[int, int, int]) -> int:
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(np.int64)
    return int((np.abs(pixels - colour).max(axis=2) < 30).sum())


@pytest.mark.parametrize("steps", [[1], [1, 3], list(range(1, 200))])
def test_losses_and_scores_can_be_seen(tmp_path: Path, steps: list[int]) -> None:
    losses, scores = Table(tmp_path / TRAINING, step=0), Table(tmp_path / VALIDATION, step=0)
    for step in steps:
        losses.append({"step": step, "loss": 1 / step})
    scores.append({"step": steps[-1], "miou": 0.5})

    draw_curves(tmp_path, metric="miou")

    # More than the short line in the legend takes.
    assert _pixels_of(tmp_path / CURVES, (31, 119, 180)) > 100
    assert _pixels_of(tmp_path / CURVES, (255, 127, 14)) > 60


def test_nothing_logged_draws_nothing(tmp_path: Path) -> None:
    draw_curves(tmp_path, metric="miou")

    assert not (tmp_path / CURVES).exists()


def test_rows_are_the_same_whether_just_written_or_read_again(tmp_path: Path) -> None:
    table = Table(tmp_path / TRAINING, step=0)
    table.append({"step": 1, "loss": 1 / 3})

    assert Table(tmp_path / TRAINING, step=1).rows == table.rows


def test_rows_that_lack_a_new_column_are_kept(tmp_path: Path) -> None:
    Table(tmp_path / TRAINING, step=0).append({"step": 1, "loss": 0.5})
    table = Table(tmp_path / TRAINING, step=1)

    table.append({"step": 2, "loss": 0.25, "wait": 0.125})

    before, after = read_table(tmp_path / TRAINING)
    assert (before["step"], before["loss"], after["wait"]) == (1, 0.5, 0.125)
    assert np.isnan(before["wait"])
    assert table.rows[-1] == after
