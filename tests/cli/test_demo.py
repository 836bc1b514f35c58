"""The demo runs with what the package ships and shows what it found."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from wsiseg.tasks import demo as task

if TYPE_CHECKING:
    from pathlib import Path


def test_a_small_demo_ends_with_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "SIDE_PX", 1280)
    monkeypatch.setattr(task, "TISSUE", 1.0)

    report = task.demo(tmp_path)

    page = report.page.read_text(encoding="utf-8")
    assert report.nuclei > 50
    assert f"{report.nuclei:,}" in page
    assert len(re.findall(r'src="data:image/png;base64,[A-Za-z0-9+/=]{1000,}"', page)) == 3
    assert "http" not in re.sub(r"data:[^\"]*", "", page)
    for told in re.findall(r"<td><code>([^<]+)</code>", page):
        assert (tmp_path / told).exists(), told
    features = json.loads((tmp_path / "predictions" / task.SLIDE_ID / "polygons.geojson").read_bytes())["features"]
    assert len(features) == report.nuclei
    folder = tmp_path / "predictions" / task.SLIDE_ID
    with (folder / "measurements.csv").open(encoding="utf-8", newline="") as file:
        whole = next(row for row in csv.DictReader(file) if row["class"] == "All")
    tissue_mm2 = json.loads((folder / "summary.json").read_bytes())["tissue_mm2"]
    assert float(whole["tissue_mm2"]) == pytest.approx(tissue_mm2, abs=1e-5)
    assert float(whole["objects_per_mm2_tissue"]) == pytest.approx(report.nuclei / tissue_mm2, rel=1e-4)
    assert f"{float(whole['objects_per_mm2_tissue']):,.0f}</b><span>nuclei per mm² of tissue" in page


@pytest.mark.slow
def test_the_demo_takes_less_than_two_minutes(tmp_path: Path) -> None:
    begun = time.monotonic()

    result = subprocess.run(
        [sys.executable, "-m", "wsiseg.cli.app", "demo", "-o", str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    assert "report.html" in result.stdout
    assert time.monotonic() - begun < 120
