"""However a job over many slides ends, its summary says what became of each of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from wsiseg.config import Config
from wsiseg.errors import SlideError, StoppedError
from wsiseg.manifest import SlideEntry
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.tasks.batch import BatchJob, Outcome, for_each

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def entries(tmp_path: Path) -> list[SlideEntry]:
    return [SlideEntry(slide_id=name, path=tmp_path / f"{name}.svs") for name in "abc"]


def job(tmp_path: Path, *, fail_fast: bool = False, dry_run: bool = False) -> BatchJob:
    return BatchJob(inputs=(), output=tmp_path / "out", settings=Config(), fail_fast=fail_fast, dry_run=dry_run)


def done(entry: SlideEntry) -> Outcome:
    return Outcome(slide_id=entry.slide_id, path=str(entry.path), status="done")


def statuses(tmp_path: Path) -> dict[str, str]:
    slides = json.loads((tmp_path / "out/summary.json").read_text())["slides"]
    return {slide["slide_id"]: slide["status"] for slide in slides}


def test_a_stop_between_slides_leaves_the_rest_not_begun(tmp_path: Path, entries: list[SlideEntry]) -> None:
    stop = Stop()

    def work(entry: SlideEntry) -> Outcome:
        stop.request("the test says so")
        return done(entry)

    with pytest.raises(StoppedError):
        for_each(entries, job(tmp_path), work, progress=SILENT, stop=stop)

    assert statuses(tmp_path) == {"a": "done", "b": "not begun", "c": "not begun"}


@pytest.mark.parametrize("error", [StoppedError("time is up"), KeyboardInterrupt(), ZeroDivisionError()])
def test_the_slide_in_hand_at_the_end_is_stopped(
    tmp_path: Path, entries: list[SlideEntry], error: BaseException
) -> None:
    def work(entry: SlideEntry) -> Outcome:
        if entry.slide_id == "b":
            raise error
        return done(entry)

    with pytest.raises(type(error)):
        for_each(entries, job(tmp_path), work, progress=SILENT, stop=Stop())

    assert statuses(tmp_path) == {"a": "done", "b": "stopped", "c": "not begun"}


def test_what_comes_after_the_first_failure_is_not_begun_if_that_is_asked_for(
    tmp_path: Path, entries: list[SlideEntry]
) -> None:
    def work(entry: SlideEntry) -> Outcome:
        return Outcome(slide_id=entry.slide_id, path="", status="failed", error=SlideError("torn"))

    outcomes = for_each(entries, job(tmp_path, fail_fast=True), work, progress=SILENT, stop=Stop())

    assert len(outcomes) == 1
    assert statuses(tmp_path) == {"a": "failed", "b": "not begun", "c": "not begun"}


def test_a_plan_and_a_shard_without_slides_write_nothing(tmp_path: Path, entries: list[SlideEntry]) -> None:
    for_each(entries, job(tmp_path, dry_run=True), done, progress=SILENT, stop=Stop())
    for_each([], job(tmp_path), done, progress=SILENT, stop=Stop())

    assert not (tmp_path / "out").exists()
