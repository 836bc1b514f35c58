"""Tables of few masks compare a method with learning from the same labels alone, and test images are drawn once."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.pipelines.conftest import check_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.pipelines.conftest import Ran


@pytest.fixture(scope="module")
def found(scripts: Callable[..., AbstractContextManager[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Return the scripts by name."""
    with scripts("experiments", "few_masks_table", "held_out") as modules:
        yield modules


def score(study: Path, method: str, size: str, seed: int, **scores: float | None) -> None:
    """Write what ``wsiseg budget`` would."""
    folder = study / "cells" / method / size.replace("%", "pc") / f"seed{seed}"
    folder.mkdir(parents=True)
    cell = {"method": method, "size": size, "images": 5 if size == "10%" else 50, "seed": seed, "scores": scores}
    (folder / "scores.json").write_text(json.dumps(cell))


def rows(script: Any, study: Path) -> list[dict[str, str]]:  # noqa: ANN401 - a script
    """Return the table of a study."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in script.table(script.read(study))]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_a_gain_is_that_over_the_same_labels(found: dict[str, Any], tmp_path: Path) -> None:
    for seed, (alone, taught) in enumerate([(0.5, 0.6), (0.7, 0.82)]):
        score(tmp_path, "ugmcl-alone", "10%", seed, dice=alone)
        score(tmp_path, "ugmcl", "10%", seed, dice=taught)
    score(tmp_path, "supervised", "10%", 1, dice=0.4)
    score(tmp_path, "mean-teacher", "10%", 0, dice=0.6)
    score(tmp_path, "mean-teacher", "10%", 1, dice=0.5)

    gains = {row["method"]: row["Dice over labels alone"] for row in rows(found["few_masks_table"], tmp_path)}

    # Where a seed is not done on one side there is no gain.
    assert gains == {"supervised": "–", "mean-teacher": "10.0", "ugmcl": "11.0 ± 1.4", "ugmcl-alone": "–"}


def test_in_short_each_method_follows_its_labels_alone(found: dict[str, Any], tmp_path: Path) -> None:
    for seed, (alone, taught) in enumerate([(0.5, 0.6), (0.7, 0.82)]):
        score(tmp_path, "ugmcl-alone", "10%", seed, dice=alone)
        score(tmp_path, "ugmcl", "10%", seed, dice=taught)
    score(tmp_path, "supervised", "100%", 0, dice=0.9)
    script = found["few_masks_table"]

    assert script.in_short(script.read(tmp_path)) == [
        "| method | 5 (10 %) | 50 (100 %) |",
        "| --- | --- | --- |",
        "| supervised | – | 90.0 |",
        "| ugmcl-alone | 60.0 ± 14.1 | – |",
        "| ugmcl | 71.0 ± 15.6 (+11.0) | – |",
    ]


def test_lengths_are_no_points_and_what_is_unknown_does_not_count(found: dict[str, Any], tmp_path: Path) -> None:
    score(tmp_path, "supervised", "100%", 0, dice=0.9, hd95=2.5)
    score(tmp_path, "supervised", "100%", 1, dice=0.9, hd95=None)
    score(tmp_path, "supervised", "10%", 0, dice=0.5, hd95=None)

    few, many = rows(found["few_masks_table"], tmp_path)

    assert (few["labelled"], few["95HD, mm"], few["n"]) == ("5 (10 %)", "–", "1")
    assert (many["labelled"], many["Dice"], many["95HD, mm"], many["n"]) == ("50 (100 %)", "90.0 ± 0.0", "2.5", "2")


def test_every_measurement_is_written(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    score(tmp_path / "glands", "supervised", "10%", 0, dice=0.51234567, aji=None)
    command = ["few_masks_table.py", tmp_path / "glands", "--csv", tmp_path / "all.csv"]
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in command])

    found["few_masks_table"].main()

    (line,) = csv.DictReader(io.StringIO((tmp_path / "all.csv").read_text()))
    assert (line["study"], line["score"], line["value"]) == ("glands", "dice", "0.512346")
    assert "#### glands" in capsys.readouterr().out


def test_test_images_are_drawn_by_seed(found: dict[str, Any], tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"image{number}.nii.gz").touch()
    names = found["held_out"].names_in(tmp_path)

    tables = [found["held_out"].table(names, test=3, seed=seed) for seed in (0, 0, 1)]

    assert tables[0] == tables[1] != tables[2]
    lines = list(csv.DictReader(io.StringIO(tables[0])))
    assert [line["image"] for line in lines] == [f"image{number}" for number in range(10)]
    assert [line["split"] for line in lines].count("test") == 3


@pytest.mark.parametrize("test", [0, 10])
def test_some_images_are_for_tests_and_some_to_train_on(
    test: int, found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        (tmp_path / f"image{number}.png").touch()
    command = ["held_out.py", tmp_path, "--test", test, "-o", tmp_path / "split.csv"]
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in command])

    with pytest.raises(SystemExit):
        found["held_out"].main()
    assert not (tmp_path / "split.csv").exists()


@pytest.mark.parametrize("further", [(), ("--methods", "supervised", "--counts", "1")], ids=["all", "some"])
def test_every_command_is_one_that_there_is_and_takes_further_options(
    further: tuple[str, ...], tmp_path: Path, shell: Callable[..., Ran]
) -> None:
    if shutil.which("flock") is None:
        pytest.skip("there is no flock")
    (tmp_path / "labelled/images").mkdir(parents=True)
    for number in range(8):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / f"labelled/images/{number}.png")

    ran = shell("experiments/few_masks.sh", "nuclei", *further, SRC="labelled", MORE="more")

    assert ran.code == 0, ran.err
    check_calls(ran.calls)
    assert [call[0] for call in ran.calls] == ["ingest", "ingest", "budget"]
    assert tuple(ran.calls[-1][len(ran.calls[-1]) - len(further) :]) == further
