"""A prediction says what memory it needs, gives up speed before it gives up, and reads amounts as people write them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from wsiseg.errors import ConfigError
from wsiseg.geometry import Canvas, Scale, Size
from wsiseg.inference.memory import MIB, Load, estimate, fit, parse_bytes
from wsiseg.inference.settings import PredictSettings, walk_over
from wsiseg.labels import LabelMap
from wsiseg.methods.base import PredictorSpec

if TYPE_CHECKING:
    from wsiseg.inference.walk import Walk

SPEC = PredictorSpec(
    task="instance", labels=LabelMap.from_names(("a", "b")), mpp=0.5, tile_px=576, halo_px=32, channels=3
)
WANTED = Load(batch_size=8, readers=4, finders=4)


def walk(side: int) -> Walk:
    return walk_over(Canvas(Size(side, side), Scale(1.0), 0.5), SPEC, PredictSettings())


def test_height_costs_nothing_and_width_little() -> None:
    low = walk_over(Canvas(Size(40_000, 10_000), Scale(1.0), 0.5), SPEC, PredictSettings())
    one = Load(batch_size=1, readers=1, finders=1)

    assert estimate(one, low, SPEC, on_cpu=True) == estimate(one, walk(40_000), SPEC, on_cpu=True)
    assert estimate(one, walk(40_000), SPEC, on_cpu=True) < 3000 * MIB


def test_batches_shrink_first_then_threads() -> None:
    roomy = fit(WANTED, walk(20_000), SPEC, on_cpu=True, limit=64 << 30)
    need = estimate(replace(WANTED, batch_size=2), walk(20_000), SPEC, on_cpu=True)
    tight = fit(WANTED, walk(20_000), SPEC, on_cpu=True, limit=int(need / 0.9) + 1)

    assert roomy == WANTED
    assert tight == replace(WANTED, batch_size=2)


def test_too_little_memory_is_said_with_what_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"needs about \d\.\d GiB of memory and may take 0\.5 GiB"):
        fit(WANTED, walk(20_000), SPEC, on_cpu=True, limit=512 * MIB)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8GB", 8 * 10**9), ("8GiB", 8 << 30), ("8g", 8 * 10**9), ("900MB", 900 * 10**6), ("1.5 GB", 1.5e9), ("12", 12)],
)
def test_amounts_of_memory_are_read_as_people_write_them(text: str, expected: float) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "lots", "-3GB", "0", "GB"])
def test_what_is_no_amount_of_memory_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no amount of memory"):
        parse_bytes(text)


def test_tiles_overlap_by_what_is_asked_for_and_at_least_by_the_halo() -> None:
    canvas = Canvas(Size(5000, 5000), Scale(1.0), 0.5)

    cores = [walk_over(canvas, SPEC, PredictSettings(overlap=overlap)).core_px for overlap in (0, 32, 128, 0.5)]

    assert cores == [512, 512, 448, 288]
    with pytest.raises(ConfigError, match="cannot share"):
        walk_over(canvas, SPEC, PredictSettings(overlap=0.7))
