"""Strategies give groups of patches, and of these the best that may be chosen are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.selection_makers import stored, whole
from wsiseg.errors import MethodError
from wsiseg.selection.groups import Choice, Group, pick
from wsiseg.selection.patch_scores import ConsistencyOptions
from wsiseg.selection.strategies import STRATEGIES, Pool, get_strategy

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

OPTIONS = ConsistencyOptions(restarts=2)


def boxes(count: int) -> NDArray[np.int64]:
    """Return patches of 10 px side by side on one image."""
    left = 10 * np.arange(count)
    return np.column_stack((0 * left, left, 0 * left, left + 10, 0 * left + 10))


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """Return 40 patches on a line: features 0, 1, 2, … 39, quadrants alike, and an uncertainty that falls along it."""
    line = np.arange(40, dtype=np.float32)[:, None, None] * np.ones((1, 4, 2), np.float32)
    uncertainty = np.linspace(1, 0, 40, dtype=np.float32)
    return Pool(boxes=boxes(40), features=whole(stored(tmp_path / "f.zarr", line)), uncertainty=uncertainty)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@pytest.mark.parametrize("count", [1, 3, 40])
def test_every_strategy_gives_different_patches_and_the_same_again(pool: Pool, name: str, count: int) -> None:
    first, again = (get_strategy(name).choose(pool, count, OPTIONS, seed=7) for _ in range(2))

    best = [int(group.places[0]) for group in first.groups]
    assert len(set(best)) == count == len(first.groups)
    assert all(0 <= place < pool.size for place in best)
    for one, other in zip(first.groups, again.groups, strict=True):
        np.testing.assert_array_equal(one.places, other.places)
        assert all(len(values) == len(one.places) for values in one.scores.values())
    for group in first.groups:
        if (first.cluster >= 0).all():
            assert group.members == np.count_nonzero(first.cluster == group.number)


def test_the_seed_decides_what_is_random(pool: Pool) -> None:
    drawn = {
        tuple(int(group.places[0]) for group in get_strategy("random").choose(pool, 4, OPTIONS, seed=seed).groups)
        for seed in range(6)
    }

    assert len(drawn) > 1


def test_random_patches_need_no_features() -> None:
    choice = get_strategy("random").choose(Pool(boxes=boxes(9)), 3, OPTIONS, seed=0)

    assert sorted(place for group in choice.groups for place in group.places.tolist()) == list(range(9))


def test_patches_far_apart_cover_the_line(pool: Pool) -> None:
    choice = get_strategy("kcenter").choose(pool, 4, OPTIONS, seed=0)

    chosen = [int(group.places[0]) for group in choice.groups]
    for number in range(1, len(chosen)):
        # Of all patches none lies farther from those chosen before.
        distances = [min(abs(place - before) for before in chosen[:number]) for place in range(40)]
        assert distances[chosen[number]] == max(distances)
    for group in choice.groups:
        # What stands by is nearer to its own chosen patch than to any other.
        for place in group.places.tolist():
            own = abs(place - group.places[0])
            assert all(own <= abs(place - other.places[0]) for other in choice.groups)


def test_unknown_strategies_are_refused() -> None:
    with pytest.raises(MethodError, match=r"no strategy 'best'.*cps"):
        get_strategy("best")


def groups(*places: list[int]) -> Choice:
    return Choice(
        groups=tuple(
            Group(number=number, members=9, places=np.array(own), scores={"score": np.array(own, dtype=float)})
            for number, own in enumerate(places)
        ),
        cluster=np.zeros(8, np.int32),
    )


# Patches of 10 px every 5 px on one image, so that neighbours overlap; the last two lie on another one.
BOXES = np.array([[image, 5 * x, 0, 5 * x + 10, 10] for image, x in [(0, x) for x in range(6)] + [(1, 0), (1, 1)]])


def test_the_first_of_each_group_come_first_and_others_stand_by() -> None:
    picks = pick(groups([1, 3, 5], [2, 6]), BOXES, runners_up=1)

    assert [(one.place, one.group, one.rank) for one in picks] == [(1, 0, 1), (2, 1, 1), (3, 0, 2), (6, 1, 2)]
    assert picks[0].scores == {"score": 1.0}


def test_what_stands_by_shares_no_pixel_with_what_it_may_replace() -> None:
    picks = pick(groups([1, 2, 0, 3, 4, 5, 6]), BOXES, runners_up=2)

    assert [one.place for one in picks] == [1, 3, 5]


def test_without_overlap_no_two_chosen_patches_nor_annotated_ones_share_a_pixel() -> None:
    choice = groups([1, 0], [2, 0, 4], [4, 6])

    picks = pick(choice, BOXES, runners_up=0, taken=BOXES[:0])
    beside = pick(choice, BOXES, runners_up=0, taken=BOXES[5:6])

    assert [one.place for one in picks] == [1, 4, 6]
    assert [one.place for one in beside] == [1, 6]
    # A group of which nothing is left gives none.
    assert [one.group for one in beside] == [0, 2]
