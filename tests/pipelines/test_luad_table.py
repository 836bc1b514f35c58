"""The table of an experiment compares rows on the same images, and bears with what is not done yet."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path


@pytest.fixture(scope="module")
def script(scripts: Callable[..., AbstractContextManager[dict[str, Any]]]) -> Iterator[Any]:
    """Return the script."""
    with scripts("experiments", "luad_table") as found:
        yield found["luad_table"]


def score(folder: Path, pair: str, row: str, miou: float) -> None:
    """Write what ``wsiseg evaluate`` would."""
    (folder / pair).mkdir(parents=True, exist_ok=True)
    report = {
        "pooled": {"miou": {"value": miou}, "fw_iou": {"value": miou + 0.1}},
        "classes": {"tumour": {"iou": miou}, "stroma": {"iou": None}},
    }
    (folder / pair / f"{row}.json").write_text(json.dumps(report))


def cells(script: Any, folder: Path) -> dict[str, list[str]]:  # noqa: ANN401 - a script
    """Return the table's cells by the title of their row."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in script.table(script.read(folder))]
    assert {len(line) for line in lines} == {len(lines[0])}
    return {line[0]: line[1:] for line in lines[2:]}


def test_rows_are_compared_on_the_same_images(tmp_path: Path, script: Any) -> None:  # noqa: ANN401 - a script
    for pair, base, method, full in (("fold0-seed0", 0.3, 0.4, 0.5), ("fold1-seed1", 0.5, 0.7, 0.7)):
        score(tmp_path, pair, "mlps-cam", base)
        score(tmp_path, pair, "mlps", method)
        score(tmp_path, pair, "full", full)
    score(tmp_path, "fold2-seed2", "mlps", 0.9)

    found = cells(script, tmp_path)

    assert found["MLPS: CAM alone"] == ["40.0 ± 14.1", "50.0 ± 14.1", "40.0 ± 14.1", "–", "0.0 ± 0.0", "66 %", "2"]
    assert found["+ gate = **MLPS**"][0] == "66.7 ± 25.2"
    assert found["+ gate = **MLPS**"][-3:] == ["15.0 ± 7.1", "90 %", "3"]
    assert found["CRAANet: CAM alone"][-1] == "0"
    assert found["full masks"][-3:] == ["–", "100 %", "2"]


def test_every_measurement_is_written(tmp_path: Path, script: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401 - a script
    score(tmp_path, "fold0-seed0", "mlps", 0.4)
    score(tmp_path, "fold1-seed1", "full", 0.5)
    monkeypatch.setattr(sys, "argv", ["luad_table.py", str(tmp_path), "--csv", str(tmp_path / "all.csv")])

    script.main()

    assert (tmp_path / "all.csv").read_text().splitlines() == [
        "row,pair,miou,fw_iou,iou_tumour,iou_stroma",
        "mlps,fold0-seed0,0.4000,0.5000,0.4000,",
        "full,fold1-seed1,0.5000,0.6000,0.5000,",
    ]


def test_a_folder_without_scores_is_told(tmp_path: Path, script: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401 - a script
    monkeypatch.setattr(sys, "argv", ["luad_table.py", str(tmp_path)])

    with pytest.raises(SystemExit):
        script.main()
