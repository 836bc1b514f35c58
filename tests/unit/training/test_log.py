"""The picture of a training is legible however short the training was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from wsiseg.labels import Label, LabelMap
from wsiseg.training.log import CURVES, TRAINING, VALIDATION, Table, draw_curves, of_classes_last, read_table

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


def test_the_same_score_of_something_else_is_drawn_beside_it(tmp_path: Path) -> None:
    losses, scores = Table(tmp_path / TRAINING, step=0), Table(tmp_path / VALIDATION, step=0)
    for step in (1, 2):
        losses.append({"step": step, "loss": 1 / step})
        scores.append({"step": step, "miou": 0.3, "fw_iou": 0.5, "label_miou": 0.7})

    draw_curves(tmp_path, metric="miou")

    for colour, is_drawn in (((255, 127, 14), True), ((44, 160, 44), True), ((148, 103, 189), False)):
        assert (_pixels_of(tmp_path / CURVES, colour) > 100) == is_drawn


@pytest.mark.parametrize("prefixes", [["iou_"], ["iou_", "attention_"]])
def test_each_class_is_drawn_in_its_colour_below(tmp_path: Path, prefixes: list[str]) -> None:
    colours = [(230, 0, 230), (0, 200, 230), (120, 60, 0), (255, 255, 255)]
    labels = LabelMap(
        labels=tuple(Label(index=index, name=f"c{index}", colour=colour) for index, colour in enumerate(colours))
    )
    losses, scores = Table(tmp_path / TRAINING, step=0), Table(tmp_path / VALIDATION, step=0)
    for step in (1, 2):
        losses.append({"step": step, "loss": 1 / step})
        # Of c1 nothing is known at first.
        known = [0.2, np.nan if step == 1 else 0.4, 0.6, 0.8]
        each = {f"{prefix}c{index}": value for prefix in prefixes for index, value in enumerate(known)}
        scores.append({"step": step, "miou": 0.3, **each})
    draw_curves(tmp_path, metric="miou")
    with Image.open(tmp_path / CURVES) as picture:
        alone = picture.height
    assert not any(_pixels_of(tmp_path / CURVES, colour) for colour in colours[:3])

    draw_curves(tmp_path, metric="miou", labels=labels)

    with Image.open(tmp_path / CURVES) as picture:
        assert picture.height == alone + len(prefixes) * 288
    # What would be white on white is gray.
    for colour in (*colours[:3], (127, 127, 127)):
        assert _pixels_of(tmp_path / CURVES, colour) > 20 * len(prefixes)


def test_columns_of_classes_come_last() -> None:
    metrics = {"miou": 0.5, "iou_a": 0.5, "attention_a": 0.1, "label_miou": 0.4, "fw_iou": 0.3}

    assert list(of_classes_last(metrics)) == ["miou", "label_miou", "fw_iou", "iou_a", "attention_a"]


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
