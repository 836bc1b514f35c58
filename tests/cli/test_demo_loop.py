"""`wsiseg demo --loop` goes the whole way from a few annotated patches to nuclei, and shows each stage."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from wsiseg.annotations import read_features
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks import demo_loop as task
from wsiseg.tasks.demo_loop_page import ANNOTATIONS, LAYER, SLIDE_ID, SYNTHETIC, TILES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Result
    from wsiseg.tasks.demo_loop import LoopReport


def written(folder: Path) -> dict[str, int]:
    """Return when each file was written that takes long to make."""
    files = [
        *folder.rglob("*.safetensors"),
        *folder.rglob("prediction.zarr/zarr.json"),
        *folder.glob("*.zarr/zarr.json"),
    ]
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in files}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LoopReport]:
    """Return the folder and the report of a loop that is smaller still."""
    folder = tmp_path_factory.mktemp("loop")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "SIDE_PX", 1280)
        patch.setattr(task, "PATCHES", 3)
        patch.setattr(task, "SAMPLES", 2)
        patch.setattr(task, "ENCODER", {"encoder": "test_resnet", "init": "none"})
        patch.setattr(task, "GAN", {**task.GAN, "smallest_px": 32, "widths": [4, 4], "steps": 2})
        patch.setattr(task, "TRAINING", {**task.TRAINING, "fit": {"steps": 3, "log_every": 1}})
        report = task.demo_loop(folder)
        before = written(folder)
        again = task.demo_loop(folder)
    # A second run makes nothing anew.
    assert written(folder) == before
    assert again.nuclei == report.nuclei
    return folder, report


def test_the_command_goes_the_whole_way_if_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Result]
) -> None:
    asked: list[Path] = []

    def loop(output: Path, **_: object) -> LoopReport:
        asked.append(output)
        return task.LoopReport(page=output / "report.html", patches=6, nuclei=1234, seconds=56.7)

    monkeypatch.setattr(task, "demo_loop", loop)

    ended = run("demo", "--loop", "-o", tmp_path / "demo")

    assert asked == [tmp_path / "demo"]
    assert ended.code == 0
    assert ended.out == (
        "6 annotated patches made a model that found 1,234 nuclei, in 57 s.\n"
        f"Report: {(tmp_path / 'demo' / 'report.html').resolve()}\n"
    )


@pytest.mark.slow
def test_the_page_shows_each_stage(done: tuple[Path, LoopReport]) -> None:
    folder, report = done
    page = report.page.read_text(encoding="utf-8")

    pictures = re.findall(r'src="data:image/png;base64,[A-Za-z0-9+/=]{1000,}"', page)
    assert len(pictures) == page.count("<img") == 9 + task.GANS_FITTED
    assert [int(number) for number in re.findall(r"<h2>(\d)\.", page)] == [1, 2, 3, 4, 5, 6]
    assert "Nobody annotated this slide." in page
    assert f"<b>{report.nuclei:,}</b>" in page
    assert "http" not in re.sub(r"data:[^\"]*", "", page)
    for told in re.findall(r"<td><code>([^<]+)</code>", page):
        assert (folder / told).exists(), told


@pytest.mark.slow
def test_only_the_chosen_patches_are_annotated(done: tuple[Path, LoopReport]) -> None:
    folder, _ = done
    features = read_features(folder / ANNOTATIONS).features

    boxes = [feature.area for feature in features if feature.is_region and feature.area is not None]
    nuclei = [feature.area for feature in features if not feature.is_region]
    assert len(boxes) == 3
    assert nuclei
    assert all(any(box.intersects(nucleus) for box in boxes) for nucleus in nuclei)
    store = PatchStore.open(folder / TILES / f"{SLIDE_ID}.zarr")
    annotated = np.flatnonzero(store.is_labelled(LAYER))
    assert len(annotated) == 3
    assert (store.read_labels(LAYER, annotated) >= 0).all()
    made = PatchStore.open(folder / SYNTHETIC)
    assert (len(made), made.meta.origin) == (2 * task.GANS_FITTED, "synthetic")
