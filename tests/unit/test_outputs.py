"""Tests of making several outputs at once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

import pytest

from wsiseg.errors import StoppedError
from wsiseg.inference.outputs import Outputs, _Leash
from wsiseg.inference.settings import OutputSettings
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop

if TYPE_CHECKING:
    from pathlib import Path

    from wsiseg.inference.outputs import Step
    from wsiseg.slides.base import Slide
    from wsiseg.stores.mask_store import MaskStore


def outputs(folder: Path, noted: list[str], done: tuple[str, ...] = ()) -> Outputs:
    """Return outputs of nothing, whose steps the tests give."""
    return Outputs(
        slide=cast("Slide", None),
        store=cast("MaskStore", None),
        objects=None,
        folder=folder,
        slide_id="slide",
        settings=OutputSettings(),
        workers=1,
        done=done,
        note=noted.append,
    )


def test_two_things_are_made_at_once_and_noted_in_order(tmp_path: Path) -> None:
    noted: list[str] = []
    met = threading.Barrier(2, timeout=20)
    steps: list[Step] = [("first", met.wait), ("second", met.wait), ("there", lambda: pytest.fail("made twice"))]

    outputs(tmp_path, noted, done=("there",))._make(steps, Stop())

    assert noted == ["first", "second"]


def test_what_fails_leaves_those_before_it_noted_and_raises(tmp_path: Path) -> None:
    noted: list[str] = []

    def fail() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        outputs(tmp_path, noted)._make([("first", int), ("broken", fail), ("third", int)], Stop())

    assert noted == ["first"]


def test_a_stop_lets_what_is_being_made_be_finished_and_begins_nothing_more(tmp_path: Path) -> None:
    noted: list[str] = []
    stop = Stop()
    met = threading.Barrier(2, timeout=20)

    def request() -> None:
        met.wait()
        stop.request("a test")
        met.wait()

    def follow() -> None:
        met.wait()
        met.wait()

    steps: list[Step] = [
        ("first", request),
        ("second", follow),
        ("third", lambda: pytest.fail("begun after the stop")),
    ]
    with pytest.raises(StoppedError):
        outputs(tmp_path, noted)._make(steps, stop)

    assert noted == ["first", "second"]


def test_a_second_interruption_ends_long_steps_too(tmp_path: Path) -> None:
    noted: list[str] = []
    stop = Stop()
    leash = _Leash(SILENT, stop)
    steps_made = 0

    def long() -> None:
        nonlocal steps_made
        with leash.task("long", total=None) as advance:
            while steps_made < 10_000:
                stop.request("a test")
                advance()
                steps_made += 1
                if steps_made == 3:
                    stop.insist()

    with pytest.raises(StoppedError):
        outputs(tmp_path, noted)._make([("long", long)], stop)

    assert steps_made == 3
    assert noted == []
