"""``wsiseg evaluate`` prints scores on stdout, writes what it is asked for and exits with the promised code."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from wsiseg.cli.app import app
from wsiseg.errors import ConfigError, DataError, NothingMatchedError, WsisegError
from wsiseg.evaluation.config import EvaluateConfig
from wsiseg.rasters import read_labels, write_labels
from wsiseg.tasks.evaluate import evaluate

if TYPE_CHECKING:
    from pathlib import Path


def nuclei(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    labels = np.zeros((60, 60), dtype=np.uint16)
    for label, (y, x) in enumerate(np.random.default_rng(seed).integers(0, 52, (9, 2)), start=300):
        labels[y : y + 7, x : x + 7] = label
    return labels


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for index in range(3):
        write_labels(tmp_path / "truth" / f"im{index}.png", nuclei(index))
        write_labels(tmp_path / "pred" / f"im{index}" / "labels.png", np.roll(nuclei(index), 1, axis=1))
    return tmp_path / "pred", tmp_path / "truth"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["--progress", "none", "evaluate", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def fails(*arguments: object) -> WsisegError:
    with pytest.raises(WsisegError) as caught:
        CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)
    return caught.value


def test_objects_are_scored_into_a_table_a_json_and_a_csv(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out, table = tmp_path / "out" / "metrics.json", tmp_path / "out" / "images.csv"

    shown = run(*folders, "--task", "instance", "--mpp", 0.5, "-o", out, "--csv", table)

    report = json.loads(out.read_text(encoding="utf-8"))
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert "hd95 (µm)" in shown
    assert f"{report['mean']['aji']['value']:.3f}" in shown
    assert report["schema_version"] == 1
    assert report["units"]["hd95"] == "µm"
    assert report["mean"]["aji"]["low"] <= report["mean"]["aji"]["value"] <= report["mean"]["aji"]["high"]
    assert [row["name"] for row in rows] == ["im0", "im1", "im2"]
    assert float(rows[1]["aji"]) == report["images"][1]["scores"]["aji"]
    assert int(rows[0]["truth_objects"]) == len(np.unique(nuclei(0))) - 1
    assert "hd95" not in report["pooled"]


def test_predictions_bring_their_own_pixel_size(folders: tuple[Path, Path]) -> None:
    for folder in folders[0].iterdir():
        (folder / "summary.json").write_text(json.dumps({"canvas": {"mpp": 0.5}}))

    arguments = (*folders, "--task", "instance", "--json")
    told, given = run(*arguments), run(*arguments, "--mpp", 0.5)
    other = json.loads(run(*arguments, "--mpp", 0.25))

    assert told == given
    assert json.loads(told)["units"]["hd95"] == "µm"
    assert other["settings"]["mpp"] == 0.25


@pytest.mark.parametrize("last", [0.25, None])
def test_predictions_of_several_pixel_sizes_are_measured_in_pixels(
    folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture, last: float | None
) -> None:
    for mpp, folder in zip((0.5, 0.5, last), sorted(folders[0].iterdir()), strict=True):
        (folder / "summary.json").write_text(json.dumps({"canvas": {"mpp": mpp}}))

    report = evaluate(*folders, EvaluateConfig(task="instance"))

    assert report.units["hd95"] == "px"
    assert "do not all say the same" in caplog.text


@pytest.mark.parametrize("mpp", ["-1", "0", "NaN"])
def test_an_impossible_pixel_size_is_refused(folders: tuple[Path, Path], mpp: str) -> None:
    (folders[0] / "im1" / "summary.json").write_text(f'{{"canvas": {{"mpp": {mpp}}}}}')

    error = fails(*folders, "--task", "instance")

    assert isinstance(error, DataError)
    assert "a pixel size cannot be" in str(error)


def test_a_damaged_summary_is_said(folders: tuple[Path, Path]) -> None:
    (folders[0] / "im1" / "summary.json").write_text("{")

    error = fails(*folders, "--task", "instance")

    assert isinstance(error, DataError)
    assert "summary is damaged" in str(error)


def test_json_on_stdout_is_the_report_and_nothing_else(folders: tuple[Path, Path], tmp_path: Path) -> None:
    shown = run(*folders, "--task", "instance", "--json", "-o", tmp_path / "m.json", "--bootstrap", 50)

    assert json.loads(shown) == json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert json.loads(shown)["units"]["hd95"] == "px"


def test_equal_seeds_give_equal_reports(folders: tuple[Path, Path]) -> None:
    first, again, other = (
        run(*folders, "--task", "instance", "--json", "--bootstrap", 40, "--seed", seed) for seed in (1, 1, 2)
    )

    assert first == again
    assert json.loads(first)["mean"]["aji"] != json.loads(other)["mean"]["aji"]


def test_class_maps_are_scored_by_name_with_ignored_pixels(tmp_path: Path) -> None:
    truth = np.array([[0, 1, 1, 255], [0, 0, 1, 255]], dtype=np.uint8)
    write_labels(tmp_path / "t.png", truth)
    write_labels(tmp_path / "p.png", np.array([[0, 1, 0, 1], [0, 0, 1, 0]], dtype=np.uint8))

    shown = run(tmp_path / "p.png", tmp_path / "t.png", "--task", "semantic", "--classes", "stroma, tumour")
    report = json.loads(run(tmp_path / "p.png", tmp_path / "t.png", "--task", "semantic", "--json"))

    assert "tumour" in shown
    assert report["classes"]["1"]["iou"] == pytest.approx(2 / 3)
    assert report["pooled"]["miou"]["value"] == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert report["mean"]["miou"]["low"] is None


@pytest.mark.parametrize("ignored", [255, 3, 300])
@pytest.mark.parametrize("classes", [None, 2])
def test_predicted_pixels_of_no_class_have_no_answer(tmp_path: Path, ignored: int, classes: int | None) -> None:
    write_labels(tmp_path / "t.png", np.array([[0, 1, 1, 0, ignored, ignored]], dtype=np.uint16))
    write_labels(tmp_path / "p.png", np.array([[0, 1, 254, 255, 254, 1]], dtype=np.uint8))
    config = EvaluateConfig(task="semantic", num_classes=classes, ignore_index=ignored)

    report = evaluate(tmp_path / "p.png", tmp_path / "t.png", config)

    assert {name: scores["iou"] for name, scores in report.classes.items()} == {"0": 0.5, "1": 0.5}
    assert report.pooled["pixel_accuracy"].value == 0.5


def test_a_class_that_is_nowhere_has_no_score_in_any_output(tmp_path: Path) -> None:
    write_labels(tmp_path / "t.png", np.zeros((4, 4), dtype=np.uint8))

    report = evaluate(
        tmp_path / "t.png",
        tmp_path / "t.png",
        EvaluateConfig(task="semantic", num_classes=2),
        table=tmp_path / "t.csv",
    )

    (row,) = csv.DictReader((tmp_path / "t.csv").read_text(encoding="utf-8").splitlines())
    assert report.classes["1"]["iou"] is None
    assert row["iou: 1"] == ""
    assert row["miou"] == "1.0"


def test_the_command_ends_with_one_line_and_its_code(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write_labels(tmp_path / "other" / "x.png", nuclei(0))

    result = subprocess.run(
        [sys.executable, "-m", "wsiseg.cli.app", "evaluate", folders[0], tmp_path / "other", "--task", "instance"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 4
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1


def test_what_is_wrong_is_said_by_name(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pred, truth = folders
    (tmp_path / "other").mkdir()
    write_labels(tmp_path / "other" / "x.png", nuclei(0))
    write_labels(truth / "im9.png", nuclei(9))

    unmatched = fails(pred, truth, "--task", "instance")
    nothing = fails(pred, tmp_path / "other", "--task", "instance")
    untold = fails(pred, truth)

    assert isinstance(unmatched, DataError)
    assert "im9" in str(unmatched)
    assert isinstance(nothing, NothingMatchedError)
    assert isinstance(untold, ConfigError)
    assert "task" in str(untold)


def test_object_ids_taken_for_classes_are_noticed(folders: tuple[Path, Path]) -> None:
    assert "--task instance" in str(fails(*folders, "--task", "semantic"))


def test_a_class_beyond_the_given_ones_names_the_file(tmp_path: Path) -> None:
    write_labels(tmp_path / "t.png", np.full((4, 4), 1, dtype=np.uint8))
    write_labels(tmp_path / "p.png", np.full((4, 4), 5, dtype=np.uint8))

    error = fails(tmp_path / "p.png", tmp_path / "t.png", "--task", "semantic", "--num-classes", 3)

    assert "p.png: holds class 5" in str(error)


@pytest.mark.parametrize(
    "options", [("--mpp", 0), ("--bootstrap", -1), ("--classes", "a,b", "--num-classes", 3), ("--classes", "a,a")]
)
def test_settings_that_make_no_sense_are_refused(folders: tuple[Path, Path], options: tuple[object, ...]) -> None:
    assert isinstance(fails(*folders, "--task", "semantic", *options), ConfigError)


def test_an_output_that_cannot_be_written_is_said_in_one_line(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert "cannot be written" in str(fails(*folders, "--task", "instance", "-o", tmp_path / "file" / "m.json"))


def test_real_masks_agree_with_themselves(data_dir: Path) -> None:
    masks = data_dir / "tissue_luad" / "masks"
    path = min(masks.iterdir(), key=lambda file: file.stat().st_size)

    report = evaluate(path, path, EvaluateConfig(task="semantic", bootstrap=0))

    assert len(report.classes) == int(read_labels(path).max()) + 1
    assert report.mean["miou"].value == 1
