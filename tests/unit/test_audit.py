"""An audit counts what layers of labels have in common, and finds the patches that have least."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.listeners import Listener
from wsiseg.errors import ConfigError, DataError
from wsiseg.labels import IGNORE, LabelMap
from wsiseg.stores.patches import confidence_layer
from wsiseg.tasks.audit import FIGURES, AuditJob, audit

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.conftest import MakePatchStore
    from wsiseg.stores.patch_store import PatchStore

NAMES = ("tumour", "stroma")
SIDE = 8


@pytest.fixture
def truth() -> NDArray[np.uint8]:
    """Return masks (4, 8, 8) whose halves are of one class each, and a row of no class."""
    masks = np.zeros((4, SIDE, SIDE), np.uint8)
    masks[:, :, SIDE // 2 :] = 1
    masks[:, 0] = IGNORE
    return masks


@pytest.fixture
def store(tmp_path: Path, make_patch_store: MakePatchStore, truth: NDArray[np.uint8]) -> PatchStore:
    """Return a store with a layer that is true, and one that is wrong in the whole of patch 2."""
    images = np.full((4, SIDE, SIDE, 3), 150, np.uint8)
    made = make_patch_store(tmp_path / "s.zarr", images, truth, layer="good", names=NAMES)
    bad = truth.copy()
    bad[2] = np.where(bad[2] == IGNORE, IGNORE, 1 - bad[2])
    made.add_layer("bad", "classes", LabelMap.from_names(NAMES))
    made.write_labels("bad", range(4), list(bad))
    return made


def test_layers_are_compared_with_one_another(store: PatchStore, tmp_path: Path) -> None:
    report = audit(AuditJob(store=store.path, output=tmp_path / "out"))

    assert report.figures == json.loads((tmp_path / "out" / FIGURES).read_text())
    (pair,) = report.figures["agreement"]
    assert pair["layers"] == ["bad", "good"]
    assert pair["pixels"] == pytest.approx(3 / 4)
    assert pair["iou"] == pytest.approx({"tumour": 3 / 5, "stroma": 3 / 5})
    assert report.figures["truth"] is None
    for layer in report.figures["layers"].values():
        assert layer["patches"] == 4
        assert layer["coverage"] == pytest.approx(7 / 8)
        assert layer["shares"] == pytest.approx({"tumour": 1 / 2, "stroma": 1 / 2})
    page = report.page.read_text(encoding="utf-8")
    # The worst comes first.
    assert page.index("image2: 0.0%") < page.index("image0: 100.0%")
    assert "://" not in page


def test_layers_are_compared_with_the_truth(store: PatchStore, tmp_path: Path) -> None:
    report = audit(AuditJob(store=store.path, output=tmp_path / "out", layers=("bad",), truth="good"))

    found = report.figures["layers"]["bad"]["truth"]
    assert found["patches"] == 4
    assert found["accuracy"] == pytest.approx(3 / 4)
    assert found["miou"] == pytest.approx(3 / 5)
    assert found["recall"] == pytest.approx({"tumour": 3 / 4, "stroma": 3 / 4})
    assert "mIoU 0.600" in str(report)
    assert "image2: 0.0%" in report.page.read_text(encoding="utf-8")


def test_a_layer_of_nothing_has_no_numbers(store: PatchStore, tmp_path: Path) -> None:
    store.add_layer("empty", "classes", LabelMap.from_names(NAMES))
    store.write_labels("empty", range(4), [np.full((SIDE, SIDE), IGNORE, np.uint8)] * 4)

    report = audit(AuditJob(store=store.path, output=tmp_path / "out", layers=("empty", "good")))

    assert report.figures["layers"]["empty"]["coverage"] == 0
    assert report.figures["agreement"][0]["pixels"] is None


def test_only_patches_that_all_layers_label_are_counted(
    store: PatchStore, truth: NDArray[np.uint8], tmp_path: Path
) -> None:
    store.add_layer("few", "classes", LabelMap.from_names(NAMES))
    store.write_labels("few", [1, 3], list(truth[[1, 3]]))

    report = audit(AuditJob(store=store.path, output=tmp_path / "out"))

    assert {one["patches"] for one in report.figures["layers"].values()} == {2}
    assert "good: 87.5% of 2 patches" in str(report)


def add_confidence(store: PatchStore, layer: str, percent: NDArray[np.uint8]) -> None:
    name = confidence_layer(layer)
    store.add_layer(name, "confidence", LabelMap.from_names(NAMES))
    store.write_labels(name, range(len(percent)), list(percent))


def test_confidence_is_judged_where_masks_are_true(store: PatchStore, truth: NDArray[np.uint8], tmp_path: Path) -> None:
    # Right of three patches out of four, and surer there.
    percent = np.full_like(truth, 90)
    percent[2] = 60
    add_confidence(store, "bad", percent)

    report = audit(AuditJob(store=store.path, output=tmp_path / "out", truth="good"))

    assert list(report.figures["layers"]) == ["bad"]
    found = report.figures["layers"]["bad"]["confidence"]
    assert found["accuracy"] == pytest.approx(3 / 4)
    assert found["ece"] == pytest.approx(3 / 4 * 0.1 + 1 / 4 * 0.6)
    assert found["bins"][6] == pytest.approx({"share": 1 / 4, "confidence": 0.6, "accuracy": 0})
    assert found["bins"][9] == pytest.approx({"share": 3 / 4, "confidence": 0.9, "accuracy": 1})
    assert found["bins"][0] == {"share": 0, "confidence": None, "accuracy": None}
    assert [row["accuracy"] for row in found["surest"]] == pytest.approx([1] * 15 + [15 / n for n in range(16, 21)])
    assert "accuracy of the surest half 1.000, calibration error 0.225" in str(report)
    assert "Reliability of labels" in report.page.read_text(encoding="utf-8")


def test_confidence_of_nothing_that_is_known_is_not_judged(store: PatchStore, tmp_path: Path) -> None:
    add_confidence(store, "bad", np.full((1, SIDE, SIDE), 90, np.uint8))
    one_true = np.full((4, SIDE, SIDE), IGNORE, np.uint8)
    store.add_layer("true", "classes", LabelMap.from_names(NAMES))
    store.write_labels("true", [3], [np.zeros_like(one_true[3])])

    for truth in (None, "true"):
        report = audit(AuditJob(store=store.path, output=tmp_path / "out", layers=("bad",), truth=truth))

        assert report.figures["layers"]["bad"]["confidence"] is None
        assert "Reliability" not in report.page.read_text(encoding="utf-8")


def test_a_part_is_compared_with_the_rest(store: PatchStore, tmp_path: Path) -> None:
    bad = store.read_labels("bad", range(4))
    part = np.where((np.arange(4) == 2)[:, None, None] | (np.arange(SIDE) % 4 == 0), IGNORE, bad).astype(np.uint8)
    store.add_layer("a part", "classes", LabelMap.from_names(NAMES))
    store.write_labels("a part", range(4), list(part))

    report = audit(AuditJob(store=store.path, output=tmp_path / "out", truth="good"))

    assert report.figures["agreement"] == []
    (found,) = report.figures["parts"]
    assert (found["layer"], found["of"]) == ("a part", "bad")
    assert found["coverage"] == pytest.approx(9 / 16)
    assert found["shares"] == pytest.approx({"tumour": 9 / 16, "stroma": 9 / 16})
    assert found["truth"]["part"]["accuracy"] == 1
    # Of three patches a quarter is in the rest, and the whole of the patch that is wrong.
    assert found["truth"]["rest"]["accuracy"] == pytest.approx(3 / 7)
    assert found["truth"]["rest"]["precision"] == pytest.approx({"tumour": 3 / 7, "stroma": 3 / 7})
    assert "a part is 56.2% of bad: accuracy 1.000, of the rest 0.429" in str(report)
    assert "a part, a part of bad" in report.page.read_text(encoding="utf-8")
    # Without truth the patches come first of which least is kept.
    blind = audit(AuditJob(store=store.path, output=tmp_path / "out", layers=("bad", "a part")))
    assert blind.figures["parts"][0]["truth"] is None
    page = blind.page.read_text(encoding="utf-8")
    assert page.index("image2: 0.0%") < page.index("image0: 75.0%")


def test_what_lies_beyond_a_patch_does_not_count(
    tmp_path: Path, make_patch_store: MakePatchStore, truth: NDArray[np.uint8]
) -> None:
    images, extents = np.zeros((4, SIDE, SIDE, 3), np.uint8), np.full((4, 2), (SIDE, SIDE), np.int32)
    # Of the first, the left half is a patch.
    extents[0] = SIDE // 2, SIDE
    made = make_patch_store(tmp_path / "s.zarr", images, truth, layer="mask", names=NAMES, extents=extents)

    report = audit(AuditJob(store=made.path, output=tmp_path / "out"))

    found = report.figures["layers"]["mask"]
    assert found["shares"] == pytest.approx({"tumour": 4 / 7, "stroma": 3 / 7})
    assert found["coverage"] == pytest.approx(7 / 8)


def test_what_cannot_be_audited_is_told(store: PatchStore, tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    store.add_layer("unused", "classes", LabelMap.from_names(NAMES))
    store.add_layer("other", "classes", LabelMap.from_names(("fat", "stroma")))
    bare = make_patch_store(tmp_path / "bare.zarr", np.zeros((1, SIDE, SIDE, 3), np.uint8))
    cases: list[tuple[PatchStore, tuple[str, ...] | None, str | None, type[Exception], str]] = [
        (store, ("gone",), None, ConfigError, "--layer: there is no layer 'gone'"),
        (store, ("good",), "gone", ConfigError, "--truth: there is no layer 'gone'"),
        (store, ("good", "unused"), None, DataError, "no patch has labels in all"),
        (store, ("good", "other"), None, DataError, "different classes"),
        (bare, None, None, DataError, "no layer to look at"),
    ]
    for made, layers, truth, kind, message in cases:
        with pytest.raises(kind, match=message):
            audit(AuditJob(store=made.path, output=tmp_path / "out", layers=layers, truth=truth))
    assert not (tmp_path / "out").exists()


def test_of_pseudo_labels_the_newest_are_looked_at(store: PatchStore, truth: NDArray[np.uint8], tmp_path: Path) -> None:
    for age, name in enumerate(("run-b-b4", "run-a-b4", "run-a-b5")):
        store.add_layer(name, "classes", LabelMap.from_names(NAMES), made_by=name[:5])
        store.write_labels(name, range(4), list(truth))
        # The times of files say nothing where stores are copied.
        os.utime(store.path / "labels" / name / "zarr.json", (time.time() - age, time.time() - age))
    told = Listener()

    report = audit(AuditJob(store=store.path, output=tmp_path / "out"), told)
    named = audit(AuditJob(store=store.path, output=tmp_path / "out", layers=("run-b-b4", "good")))

    assert {*report.figures["layers"]} == {"good", "bad", "run-a-b4", "run-a-b5"}
    assert told.heard[0].startswith("older pseudo-labels are left out: run-b-b4. Choose them with --layer")
    assert {*named.figures["layers"]} == {"run-b-b4", "good"}
