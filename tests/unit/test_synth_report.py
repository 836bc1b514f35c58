"""What is told of GANs on the console is short, and names those that are not to be trusted."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.synthesis_makers import USUAL
from wsiseg.tasks.synth_report import told, warn_of

if TYPE_CHECKING:
    import pytest

PAGE = Path("gan", "quality.html")
GOOD = replace(USUAL, copies=0)
BAD = replace(GOOD, colour_error_nuclei=80, contrast=0.5)
UNKNOWN = replace(GOOD, contrast=math.nan)


def test_each_of_a_few_gans_has_a_line() -> None:
    assert told({"a": GOOD, "b": BAD}) == [f"a: {GOOD}", f"b: {BAD}"]
    assert told({}) == []


def test_of_many_gans_the_medians_and_the_worst_are_told() -> None:
    found = {f"s-{at}": replace(GOOD, copies=at / 100) for at in range(11)}

    medians, worst = told({**found, "b": BAD, "c": UNKNOWN})

    assert medians == f"medians: {replace(GOOD, copies=0.04)}"
    assert worst == f"the worst, b: {BAD}"
    assert "contrast –" in told(dict.fromkeys(map(str, range(11)), UNKNOWN))[0]


def test_gans_that_paint_unlike_their_patches_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    warn_of({"a": GOOD, "b": UNKNOWN}, PAGE)
    assert caplog.messages == []

    warn_of({"a": GOOD, "b": replace(GOOD, copies=0.3), "c": BAD}, PAGE)

    (message,) = caplog.messages
    assert message == (
        "2 of 3 GANs paint unlike their patches: c (nuclei are 80 grey levels off, contrast is 0.50 of the patch's); b "
        f"(30% of the windows are copies). Look at {PAGE}; train them longer (--set steps or another --preset, with "
        "--overwrite), or remove their folders"
    )


def test_a_warning_of_many_gans_is_not_endless(caplog: pytest.LogCaptureFixture) -> None:
    warn_of({f"s-{at}": replace(BAD, colour_error_nuclei=80 + at) for at in range(12)}, PAGE)

    (message,) = caplog.messages
    assert message.startswith("12 of 12 GANs")
    assert "; s-2 (nuclei are 82 grey levels off, contrast is 0.50 of the patch's); 2 more. Look" in message
    assert "s-1 " not in message
