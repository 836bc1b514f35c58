"""``wsiseg evaluate --task volumes`` scores each structure of each case, and tells what could not be scored."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.volume_makers import make_case, write_nifti
from wsiseg.cli.app import app
from wsiseg.errors import ConfigError, DataError, NothingMatchedError, WsisegError
from wsiseg.metrics import surface_scores

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

AFFINE = np.diag([0.5, 1.0, 2.0, 1.0])
SPACING = (2.0, 1.0, 0.5)
TRUTHS = [make_case(number)[1] for number in range(3)]
PREDS = [np.roll(labels, 1, axis=2) for labels in TRUTHS]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Return predictions as `wsiseg predict` leaves them, and truths; the last prediction lacks a structure."""
    for number, (pred, truth) in enumerate(zip(PREDS, TRUTHS, strict=True)):
        found = np.where(pred == 2, 0, pred).astype(np.uint8) if number == 2 else pred
        write_nifti(tmp_path / "pred" / f"case{number}" / "labels.nii.gz", found, AFFINE)
        write_nifti(tmp_path / "truth" / f"case{number}.nii.gz", truth, AFFINE)
    return tmp_path / "pred", tmp_path / "truth"


def run(*arguments: object) -> str:
    options = ["--progress", "none", "evaluate", *map(str, arguments), "--task", "volumes"]
    result = CliRunner().invoke(app, options, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def fails(*arguments: object) -> WsisegError:
    with pytest.raises(WsisegError) as caught:
        run(*arguments)
    return caught.value


def expected(number: int, label: int) -> dict[str, float]:
    return surface_scores(PREDS[number] == label, TRUTHS[number] == label, spacing=SPACING)


def test_structures_are_scored_in_millimetres_case_by_case(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out, table = tmp_path / "out.json", tmp_path / "out.csv"

    shown = run(*folders, "--classes", "background,head,tail", "-o", out, "--csv", table)

    report = json.loads(out.read_text(encoding="utf-8"))
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    heads = [expected(number, 1)["hd95"] for number in range(3)]
    first = report["cases"][0]
    assert report["units"]["hd95"] == "mm"
    assert first["classes"]["head"] == pytest.approx(expected(0, 1))
    assert first["scores"]["dice"] == pytest.approx(np.mean([expected(0, label)["dice"] for label in (1, 2)]))
    assert report["classes"]["head"]["hd95"]["mean"] == pytest.approx(np.mean(heads))
    assert report["classes"]["head"]["hd95"]["std"] == pytest.approx(np.std(heads))
    assert [row["name"] for row in rows] == ["case0", "case1", "case2"]
    assert float(rows[1]["assd: tail"]) == pytest.approx(expected(1, 2)["assd"])
    assert "hd95 (mm)" in shown
    assert "background" not in shown


def test_a_structure_on_one_side_only_has_no_distances_and_is_counted(folders: tuple[Path, Path]) -> None:
    report = json.loads(run(*folders, "--json"))

    assert report["cases"][2]["classes"]["2"] == {"dice": 0, "jaccard": 0, "hd95": None, "asd": None, "assd": None}
    assert report["classes"]["2"]["dice"]["cases"] == 3
    assert (report["classes"]["2"]["hd95"]["cases"], report["classes"]["2"]["hd95"]["missing"]) == (2, 1)
    told = [line.split("│")[2:6] for line in run(*folders).splitlines() if "hd95" in line]
    assert [cells[-1].strip() for cells in told] == ["", "1", ""]


def test_ignored_voxels_do_not_count(tmp_path: Path) -> None:
    def scored(truth: NDArray[np.uint8], pred: NDArray[np.uint8]) -> dict[str, object]:
        paths = write_nifti(tmp_path / "pred.nii.gz", pred), write_nifti(tmp_path / "truth.nii.gz", truth)
        report: dict[str, dict[str, object]] = json.loads(run(*paths, "--num-classes", 3, "--json"))
        return report["classes"]

    ignored = TRUTHS[0].copy()
    ignored[:, :, :8] = 255
    wrong = TRUTHS[0].copy()
    wrong[:, :, :8] = 2

    assert scored(ignored, wrong) == scored(ignored, np.where(ignored == 255, 0, TRUTHS[0]).astype(np.uint8))


def test_the_order_of_axes_in_files_does_not_matter(tmp_path: Path) -> None:
    truth = write_nifti(tmp_path / "truth.nii.gz", TRUTHS[0], AFFINE)
    other = nibabel.load(truth).as_reoriented(np.array([[1, -1], [2, 1], [0, -1]]))
    pred = tmp_path / "pred.nii.gz"
    nibabel.save(other, pred)
    assert other.shape != nibabel.load(truth).shape

    report = json.loads(run(pred, truth, "--json"))

    assert report["mean"]["dice"] == {"mean": 1.0, "std": 0.0, "cases": 1, "missing": 0}
    assert report["cases"][0]["spacing_mm"] == [2.0, 1.0, 0.5]


def test_what_does_not_fit_is_told_in_one_line(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pred, truth = folders
    unlike = write_nifti(tmp_path / "unlike.nii.gz", PREDS[0])
    small = write_nifti(tmp_path / "small.nii.gz", PREDS[0][1:], AFFINE)

    assert "it has another affine" in str(fails(unlike, truth / "case0.nii.gz"))
    assert "has 16 x 14 x 11 voxels, the truth 16 x 14 x 12" in str(fails(small, truth / "case0.nii.gz"))
    assert "holds class 2, but the classes are 0 to 1" in str(fails(pred, truth, "--num-classes", 2))
    assert isinstance(fails(pred, truth, "--mpp", 0.5), ConfigError)
    assert isinstance(fails(pred, tmp_path / "out"), DataError)
    (tmp_path / "empty").mkdir()
    assert isinstance(fails(pred, tmp_path / "empty"), NothingMatchedError)
    (truth / "case0.nii.gz").unlink()
    assert "no truth for case0" in str(fails(pred, truth))
