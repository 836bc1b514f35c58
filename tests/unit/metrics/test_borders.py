"""Distances between borders and between objects equal their definitions, scipy and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import directed_hausdorff
from skimage.metrics import hausdorff_distance

from tests import metric_references as slow
from wsiseg.metrics import BoundaryTally, count_overlaps, hausdorff95, tally_boundaries, tally_hausdorff

Labels = NDArray[np.int64]


def blobs(seed: int, *, objects: int = 4, size: int = 22) -> Labels:
    generator = np.random.default_rng(seed)
    labels = np.zeros((size, size), dtype=np.int64)
    for label in range(1, objects + 1):
        y, x = generator.integers(0, size - 3, 2)
        height, width = generator.integers(2, 8, 2)
        labels[y : y + height, x : x + width] = label
    return labels


def object_hausdorff(pred: Labels, truth: Labels) -> float:
    return float(tally_hausdorff(pred, truth, count_overlaps(pred, truth)).distance())


@pytest.mark.parametrize("seed", range(12))
def test_object_hausdorff_equals_the_slow_definition(seed: int) -> None:
    pred, truth = blobs(seed), blobs(seed + 100, objects=3)

    assert object_hausdorff(pred, truth) == pytest.approx(slow.object_hausdorff(pred, truth))


@pytest.mark.parametrize("seed", range(5))
def test_object_hausdorff_of_single_objects_is_that_of_scikit_image_and_scipy(seed: int) -> None:
    pred, truth = (blobs(seed) > 0).astype(np.int64), (blobs(seed + 50) > 0).astype(np.int64)
    points = [np.argwhere(side) for side in (pred, truth)]

    found = object_hausdorff(pred, truth)

    assert found == pytest.approx(hausdorff_distance(pred > 0, truth > 0))  # type: ignore[no-untyped-call]
    assert found == pytest.approx(max(directed_hausdorff(*points)[0], directed_hausdorff(*points[::-1])[0]))


def test_an_object_without_counterpart_is_compared_with_the_nearest() -> None:
    truth = np.zeros((1, 40), dtype=np.int64)
    truth[0, [0, 10]] = 1, 2
    pred = np.zeros_like(truth)
    pred[0, [0, 14, 39]] = 1, 2, 3

    tally = tally_hausdorff(pred, truth, count_overlaps(pred, truth))

    assert tally.pred_distance == 0 + 4 + 29
    assert tally.truth_distance == 0 + 4


def test_where_a_side_is_empty_the_diagonal_stands_in() -> None:
    nothing, something = np.zeros((30, 40), dtype=np.int64), np.zeros((30, 40), dtype=np.int64)
    something[3:6, 4:9] = 7

    assert object_hausdorff(nothing, something) == 50
    assert object_hausdorff(something, nothing) == 50
    assert object_hausdorff(nothing, nothing) == 0
    assert hausdorff95(something > 0, nothing > 0) == 50
    assert np.isnan(hausdorff95(nothing > 0, nothing > 0))


@pytest.mark.parametrize("seed", range(8))
def test_hausdorff95_equals_the_slow_definition(seed: int) -> None:
    pred, truth = blobs(seed) > 0, blobs(seed + 30) > 0

    assert hausdorff95(pred, truth) == pytest.approx(slow.hausdorff95(pred, truth))


def test_hausdorff95_is_the_shift_of_a_shifted_square() -> None:
    square = np.zeros((40, 40), dtype=bool)
    square[5:30, 5:30] = True

    assert hausdorff95(np.roll(square, 3, axis=1), square) == 3


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.5])
def test_boundary_f1_equals_the_slow_definition(seed: int, tolerance: float) -> None:
    pred, truth = blobs(seed), blobs(seed + 70)
    pred[:3, :4] = truth[:3, :4] = -1

    found = tally_boundaries(pred, truth, tolerance_px=tolerance).f1()

    assert found == pytest.approx(slow.boundary_f1(pred, truth, tolerance), nan_ok=True)


def test_boundary_f1_forgives_up_to_the_tolerance_and_no_further() -> None:
    square = np.zeros((40, 40), dtype=np.int64)
    square[5:30, 5:30] = 1
    shifted = np.roll(square, 2, axis=1)

    assert tally_boundaries(shifted, square, tolerance_px=2).f1() == 1
    assert tally_boundaries(shifted, square, tolerance_px=1.9).f1() < 1


def test_the_end_of_the_image_is_no_boundary() -> None:
    full = np.ones((6, 6), dtype=np.int64)

    assert np.isnan(tally_boundaries(full, full, tolerance_px=1).f1())


def test_boundaries_between_touching_objects_count() -> None:
    halves = np.ones((6, 6), dtype=np.int64)
    halves[:, 3:] = 2

    assert tally_boundaries(np.ones_like(halves), halves, tolerance_px=1).f1() == 0
    assert tally_boundaries(halves, halves, tolerance_px=1).f1() == 1


def test_boundary_sums_pool() -> None:
    pairs = [(blobs(seed), blobs(seed + 5)) for seed in range(3)]
    stack = BoundaryTally.stack([tally_boundaries(*pair, tolerance_px=1) for pair in pairs])

    pooled = stack.pool(np.ones(3, dtype=np.int64))

    assert pooled.truth == sum(len(slow.edges(truth)) for _, truth in pairs)
    assert 0 <= pooled.f1() <= 1
