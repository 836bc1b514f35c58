"""Clusters do not depend on whether points fit into memory, nor on how they are cut into blocks."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.selection.kmeans import compete, nearest, refine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from wsiseg.selection.kmeans import Block


def blobs(count: int, *, kinds: int = 5, dimensions: int = 8, apart: float = 2.0, seed: int = 0) -> NDArray[np.float32]:
    """Return points around some centres, which overlap a little."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, apart, (kinds, dimensions))
    points = centres[rng.integers(kinds, size=count)] + rng.normal(0, 1, (count, dimensions))
    around: NDArray[np.float32] = (points - points.mean(axis=0)).astype(np.float32)
    return around


def in_blocks(points: NDArray[np.float32], size: int) -> Callable[[], Iterator[Block]]:
    def read() -> Iterator[Block]:
        for first in range(0, len(points), size):
            block = points[first : first + size]
            yield block, np.zeros(len(block), dtype=np.intp)

    return read


def lloyd(points: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the centres of the slow and obvious algorithm, when no point changes its cluster any more."""
    exact, before = centres.astype(np.float64), None
    while True:
        index = np.linalg.norm(points[:, None] - exact[None], axis=2).argmin(axis=1)
        if before is not None and (index == before).all():
            return exact
        exact = np.stack([points[index == one].mean(axis=0, dtype=np.float64) for one in range(len(exact))])
        before = index


def inertia(points: NDArray[np.float32], centres: NDArray[np.floating]) -> float:
    return float(nearest(points, centres.astype(np.float32))[1].sum(dtype=np.float64))


def test_reading_in_blocks_reproduces_the_slow_algorithm() -> None:
    points = blobs(3000, apart=4)
    begin = points[np.random.default_rng(1).choice(3000, 5, replace=False)]

    (found,) = refine(in_blocks(points, 400), begin[None])

    expected = lloyd(points, begin).astype(np.float32)
    assert np.mean(nearest(points, found)[0] == nearest(points, expected)[0]) >= 0.999


@settings(max_examples=15)
@given(st.integers(1, 500))
def test_the_size_of_blocks_changes_nothing(size: int) -> None:
    points = blobs(500)
    begin = points[:4][None]

    np.testing.assert_allclose(refine(in_blocks(points, size), begin), refine(in_blocks(points, 500), begin), atol=1e-5)


def test_a_beginning_on_a_sample_ends_as_well_as_one_on_all_points() -> None:
    points = blobs(20_000, kinds=6, apart=1.5)
    rng = np.random.default_rng(0)
    of_all = compete(points, 6, restarts=10, rng=rng)

    sample = points[rng.choice(len(points), 1500, replace=False)]
    (found,) = refine(in_blocks(points, 1024), compete(sample, 6, restarts=10, rng=rng)[None])

    assert inertia(points, found) <= 1.02 * inertia(points, of_all)


def test_more_beginnings_are_no_worse_and_the_seed_decides() -> None:
    points = blobs(800, kinds=8, apart=6)

    one, many, again = (compete(points, 8, restarts=restarts, rng=np.random.default_rng(3)) for restarts in (1, 10, 10))

    assert inertia(points, many) <= inertia(points, one) * (1 + 1e-6)
    np.testing.assert_array_equal(many, again)


def test_sets_that_share_the_reading_are_clustered_as_if_alone() -> None:
    points = blobs(900)
    sets = np.random.default_rng(5).integers(3, size=900)

    def read() -> Iterator[Block]:
        for first in range(0, 900, 250):
            yield points[first : first + 250], sets[first : first + 250]

    begin = np.stack([points[sets == one][:4] for one in range(3)])
    together = refine(read, begin)

    for one in range(3):
        own = points[sets == one]
        (alone,) = refine(in_blocks(own, 100), begin[one : one + 1])
        assert inertia(own, together[one]) <= inertia(own, alone) * 1.001


def test_an_empty_cluster_gets_the_farthest_point() -> None:
    points = np.array([[0, 0], [0.1, 0], [9, 0], [9.1, 0]], dtype=np.float32)
    # Nothing is nearest to the third.
    begin = np.array([[[0, 0], [5, 0], [100, 0]]], dtype=np.float32)

    (found,) = refine(in_blocks(points, 3), begin)

    assert len(np.unique(nearest(points, found)[0])) == 3


def test_equal_points_end_in_one_cluster_without_end() -> None:
    points = np.zeros((10, 3), dtype=np.float32)

    centres = compete(points, 3, restarts=2, rng=np.random.default_rng(0))
    (found,) = refine(in_blocks(points, 4), centres[None])

    assert np.isfinite(found).all()
    assert (nearest(points, found)[0] == 0).all()


def test_more_centres_than_points_are_refused() -> None:
    with pytest.raises(ValueError, match="2 points for 3 centres"):
        compete(np.zeros((2, 4), np.float32), 3, restarts=1, rng=np.random.default_rng(0))


def test_memory_does_not_grow_with_the_number_of_points() -> None:
    begin = blobs(4)[None]

    def peak(count: int) -> int:
        def read() -> Iterator[Block]:
            for number in range(count // 500):
                yield blobs(500, seed=number), np.zeros(500, dtype=np.intp)

        tracemalloc.start()
        refine(read, begin)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    # The first run makes what stays.
    peak(500)
    assert peak(10_000) <= 1.2 * peak(2000)
