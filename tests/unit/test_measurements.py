"""Tables hold areas in physical units, counts per analysed area, and nothing where nothing is known."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest

from wsiseg.geometry import Canvas, Scale, Size
from wsiseg.grid import Grid
from wsiseg.inference.measurements import count_classes, summarise, write_measurements
from wsiseg.inference.settings import tissue_in_cells
from wsiseg.inference.walk import Walk
from wsiseg.labels import LabelMap
from wsiseg.objects import Objects
from wsiseg.tissue import TissueMask

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NUCLEI = LabelMap.from_names(("background", "nucleus"))


def _table(
    path: Path,
    classes: NDArray[np.uint8],
    labels: LabelMap,
    objects: Objects | None,
    *,
    mpp: float | None,
    analysed_px: int | None = None,
    tissue_px: float | None = None,
) -> dict[str, dict[str, str]]:
    canvas = Canvas(Size(classes.shape[1], classes.shape[0]), Scale(2.0), mpp)
    counts = count_classes(lambda window: classes[window.slices], canvas)
    rows = summarise(counts, labels, objects=objects, analysed_px=analysed_px)
    write_measurements(path, rows, canvas, tissue_px=tissue_px)
    with path.open(encoding="utf-8", newline="") as file:
        return {row["class"]: row for row in csv.DictReader(file)}


def test_areas_counts_and_densities_of_nuclei(tmp_path: Path) -> None:
    instances = np.zeros((1000, 2000), dtype=np.uint32)
    instances[0:10, 0:10] = 1
    instances[50:60, 50:80] = 2
    classes = (instances > 0).astype(np.uint8)
    classes[900:] = 255

    rows = _table(tmp_path / "m.csv", classes, NUCLEI, Objects.measured(instances), mpp=0.5)

    assert list(rows) == ["nucleus", "All", "Not analysed"]
    assert float(rows["nucleus"]["area_um2"]) == 400 * 0.25
    assert float(rows["All"]["area_mm2"]) == 900 * 2000 * 0.25 / 1e6
    assert float(rows["Not analysed"]["area_mm2"]) == 100 * 2000 * 0.25 / 1e6
    assert float(rows["nucleus"]["objects_per_mm2_analysed"]) == pytest.approx(2 / 0.45, abs=0.01)
    assert (rows["nucleus"]["mean_object_area_um2"], rows["nucleus"]["median_object_area_um2"]) == ("50.00", "50.00")
    assert rows["Not analysed"]["objects"] == ""
    assert (rows["All"]["tissue_mm2"], rows["All"]["objects_per_mm2_tissue"]) == ("", "")


def test_objects_are_counted_per_tissue_too(tmp_path: Path) -> None:
    instances = np.zeros((1000, 1000), dtype=np.uint32)
    instances[0:10, 0:10] = 1
    instances[50:60, 50:80] = 2
    classes = (instances > 0).astype(np.uint8)

    rows = _table(tmp_path / "m.csv", classes, NUCLEI, Objects.measured(instances), mpp=0.5, tissue_px=400_000.0)

    for name in ("nucleus", "All"):
        assert float(rows[name]["tissue_mm2"]) == 0.1
        assert float(rows[name]["objects_per_mm2_tissue"]) == 20
        assert float(rows[name]["objects_per_mm2_analysed"]) == 8
    assert rows["Not analysed"]["tissue_mm2"] == ""


def test_shares_are_of_the_analysed_tissue(tmp_path: Path) -> None:
    classes = np.zeros((100, 100), dtype=np.uint8)
    classes[:50] = 1
    labels = LabelMap.from_names(("tumour", "stroma"))

    of_all = _table(tmp_path / "a.csv", classes, labels, None, mpp=1.0)
    of_tissue = _table(tmp_path / "b.csv", classes, labels, None, mpp=1.0, analysed_px=8000)

    assert float(of_all["stroma"]["share_of_analysed"]) == 0.5
    assert float(of_tissue["stroma"]["share_of_analysed"]) == 0.625
    assert of_all["stroma"]["objects"] == ""


def test_what_belongs_to_no_class_is_in_the_area_of_none(tmp_path: Path) -> None:
    classes = np.full((100, 100), 254, dtype=np.uint8)
    classes[:50] = 1
    labels = LabelMap.from_names(("tumour", "stroma"))

    rows = _table(tmp_path / "a.csv", classes, labels, None, mpp=1.0)

    assert {name: float(row["area_um2"]) for name, row in rows.items()} == {
        "tumour": 0, "stroma": 5000, "All": 10_000, "Not analysed": 0,
    }  # fmt: skip


def test_without_a_physical_scale_areas_are_in_level_0_pixels(tmp_path: Path) -> None:
    rows = _table(tmp_path / "m.csv", np.ones((10, 10), dtype=np.uint8), NUCLEI, None, mpp=None)

    assert float(rows["nucleus"]["area_px"]) == 400
    assert "area_mm2" not in rows["nucleus"]


def test_nothing_analysed_and_nothing_found_leave_fields_empty(tmp_path: Path) -> None:
    classes = np.full((10, 10), 255, dtype=np.uint8)

    rows = _table(tmp_path / "m.csv", classes, NUCLEI, Objects.empty(), mpp=0.5)

    assert rows["nucleus"]["share_of_analysed"] == ""
    assert (rows["nucleus"]["objects"], rows["nucleus"]["mean_object_area_um2"]) == ("0", "")
    assert rows["All"]["objects_per_mm2_analysed"] == ""


def test_tissue_is_counted_cell_by_cell() -> None:
    mask = np.zeros((10, 20), dtype=np.bool_)
    mask[2:7, 3:18] = True
    tissue = TissueMask(mask, downsample=(10.0, 10.0), mpp=0.5, slide_size=Size(200, 100))
    canvas = Canvas(Size(100, 50), Scale(2.0), 1.0)
    walk = Walk(grid=Grid(canvas.size, Size(32, 32), 8), reach_px=0, margin_px=0, band_px=32)

    pixels = tissue_in_cells(tissue, canvas, walk)

    assert pixels.shape == (2, 4)
    assert pixels.sum() == pytest.approx(25 * 75)
    assert pixels[0, 1] == pytest.approx(32 * (32 - 10))
