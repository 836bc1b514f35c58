"""However often a prediction is killed, its files end up the same to the last byte."""

from __future__ import annotations

import json
import multiprocessing
import time
from random import Random
from typing import TYPE_CHECKING, Literal

import pytest

from tests.slide_makers import Layout, write_slide
from tests.tiny_models import save_tiny_model
from wsiseg.geometry import Size
from wsiseg.inference.settings import OutputSettings, PredictSettings
from wsiseg.tasks.predict import PredictJob, predict

if TYPE_CHECKING:
    from pathlib import Path


def work(slide: Path, model: Path, output: Path) -> None:
    """Predict in a process of its own."""
    import torch

    torch.set_num_threads(1)
    outputs = OutputSettings(polygons="geojson.gz", label_png=True)
    settings = PredictSettings(model=str(model), blend="gaussian", outputs=outputs)
    predict(PredictJob(inputs=(str(slide),), output=output, settings=settings))


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files, without what a run tells about itself."""
    contents = {}
    for file in sorted(folder.rglob("*")):
        if not file.is_file():
            continue
        contents[str(file.relative_to(folder))] = file.read_bytes()
    summary = json.loads(contents["slide/summary.json"])
    del summary["run"]
    contents["slide/summary.json"] = json.dumps(summary).encode()
    del contents["summary.json"]
    return contents


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("task", ["semantic", "instance"])
def test_killed_work_ends_in_the_same_bytes(tmp_path: Path, task: Literal["semantic", "instance"]) -> None:
    slide = tmp_path / "slide.svs"
    write_slide(slide, Layout(size=Size(1100, 1900), family="aperio", mpp=0.5))
    model = save_tiny_model(tmp_path / "model", task=task)
    # Processes that have everything imported, so that most of their time is work.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["wsiseg.inference.prediction", "wsiseg.methods.predictor", "wsiseg.tasks.predict"])
    whole = context.Process(target=work, args=(slide, model, tmp_path / "whole"))
    whole.start()
    whole.join()
    begun = time.monotonic()
    work(slide, model, tmp_path / "timed")
    duration = time.monotonic() - begun
    random = Random(7)

    kills = 0
    while True:
        process = context.Process(target=work, args=(slide, model, tmp_path / "killed"))
        process.start()
        process.join(duration * random.uniform(0.1, 0.4 + 0.1 * kills))
        if process.exitcode is not None:
            assert process.exitcode == 0
            break
        process.kill()
        process.join()
        kills += 1

    assert kills >= 2
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob("*.partial"))
    assert not (tmp_path / "killed/slide/.work").exists()
