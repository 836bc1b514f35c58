"""A prediction says what memory it needs, gives up speed before it gives up, and reads amounts as people write them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
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
SEMANTIC = replace(SPEC, task="semantic", channels=4, labels=LabelMap.from_names(tuple("abcd")))

estimated = partial(estimate, on_cpu=True, with_probs=False)
fitted = partial(fit, on_cpu=True, with_probs=False)


def walk(side: int) -> Walk:
    return walk_over(Canvas(Size(side, side), Scale(1.0), 0.5), SPEC, PredictSettings())


def test_height_costs_nothing_and_width_little() -> None:
    low = walk_over(Canvas(Size(40_000, 10_000), Scale(1.0), 0.5), SPEC, PredictSettings())
    one = Load(batch_size=1, readers=1, finders=1)

    assert estimated(one, low, SPEC) == estimated(one, walk(40_000), SPEC)
    assert estimated(one, walk(40_000), SPEC) < 3000 * MIB


@pytest.mark.parametrize(("spec", "planes"), [(SPEC, 1), (SEMANTIC, 4)])
def test_probabilities_cost_two_bands_of_each_plane_and_no_height(spec: PredictorSpec, planes: int) -> None:
    one = Load(batch_size=1, readers=0, finders=1)
    more = []
    for height in (5_000, 80_000):
        canvas = Canvas(Size(80_000, height), Scale(1.0), 0.5)
        geometry = walk_over(canvas, spec, PredictSettings())
        more.append(estimated(one, geometry, spec, with_probs=True) - estimated(one, geometry, spec))

    assert more[0] == more[1]
    assert more[0] == pytest.approx(2 * planes * 512 * 80_000, rel=0.1)
    # What each thread holds when coarser resolutions are made is more than that at last.
    many = replace(one, finders=32)
    assert estimated(many, geometry, spec, with_probs=True) - estimated(many, geometry, spec) > 10 * more[0]


def test_batches_shrink_first_then_threads() -> None:
    roomy = fitted(WANTED, walk(20_000), SPEC, limit=64 << 30)
    need = estimated(replace(WANTED, batch_size=2), walk(20_000), SPEC)
    tight = fitted(WANTED, walk(20_000), SPEC, limit=int(need / 0.9) + 1)

    assert roomy == WANTED
    assert tight == replace(WANTED, batch_size=2)


def test_too_little_memory_is_said_with_what_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"needs about \d\.\d GiB of memory and may take 0\.5 GiB"):
        fitted(WANTED, walk(20_000), SPEC, limit=512 * MIB)


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
