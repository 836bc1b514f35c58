"""Instance scores equal their definitions, and their values by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from tests import metric_references as slow
from wsiseg.metrics import InstanceTally, count_overlaps, match_one_to_one, tally_instances

Labels = NDArray[np.int64]


def scores(pred: Labels, truth: Labels) -> dict[str, float]:
    found = tally_instances(count_overlaps(pred, truth)).scores()
    return {name: float(value) for name, value in found.items()}


def blobs(seed: int, *, size: int = 24, objects: int = 6) -> Labels:
    """Return rectangles that partly cover each other, so that objects may be broken or gone."""
    generator = np.random.default_rng(seed)
    labels = np.zeros((size, size), dtype=np.int64)
    for label in generator.permutation(objects) + 1:
        y, x = generator.integers(0, size - 3, 2)
        height, width = generator.integers(2, 9, 2)
        labels[y : y + height, x : x + width] = label
    return labels


@pytest.mark.parametrize("seed", range(25))
def test_scores_equal_the_slow_definitions(seed: int) -> None:
    pred, truth = blobs(2 * seed), blobs(2 * seed + 1, objects=5)

    found = scores(pred, truth)

    assert found["aji"] == pytest.approx(slow.aji(pred, truth))
    assert found["dice"] == pytest.approx(slow.dice(pred > 0, truth > 0))
    assert found["f1"] == pytest.approx(slow.f1(pred, truth, 0.5))
    assert found["f1_50_95"] == pytest.approx(
        np.mean([slow.f1(pred, truth, round(0.5 + 0.05 * step, 2)) for step in range(10)])
    )
    assert found["pq"] == pytest.approx(slow.panoptic_quality(pred, truth))
    assert found["pq"] == pytest.approx(np.nan_to_num(found["sq"]) * found["dq"])
    assert found["object_f1"] == pytest.approx(slow.object_f1(pred, truth))
    assert found["object_dice"] == pytest.approx(slow.object_dice(pred, truth))


@pytest.mark.parametrize("seed", range(15))
def test_one_to_one_matching_is_the_best_of_all_matchings(seed: int) -> None:
    pred, truth = blobs(3 * seed), blobs(3 * seed + 1, objects=5)
    overlaps = count_overlaps(pred, truth)

    rows = match_one_to_one(overlaps)

    assert len(set(overlaps.pred_index[rows])) == len(set(overlaps.truth_index[rows])) == len(rows)
    assert overlaps.ious[rows].sum() == pytest.approx(slow.best_iou_sum(pred, truth))


def test_one_object_split_in_equal_halves() -> None:
    """The intersection is half an object; the union is the object and the unused half."""
    truth = np.zeros((8, 8), dtype=np.int64)
    truth[2:6, 2:6] = 1
    pred = truth.copy()
    pred[2:6, 4:6] = 2

    found = scores(pred, truth)

    assert found["f1"] == 0
    assert found["pq"] == 0
    assert found["dice"] == 1
    assert found["aji"] == pytest.approx(1 / 3)
    assert found["aji_plus"] == pytest.approx(1 / 3)
    # Both halves detect the object, which counts once: one hit, one false alarm.
    assert found["object_f1"] == pytest.approx(2 / 3)


def test_a_merged_pair_costs_more_in_aji_plus_than_in_aji() -> None:
    """AJI uses the merged object twice, AJI+ once."""
    truth = np.zeros((4, 8), dtype=np.int64)
    truth[:, :4], truth[:, 4:] = 1, 2

    found = scores(np.ones_like(truth), truth)

    assert found["aji"] == pytest.approx((16 + 16) / (32 + 32))
    assert found["aji_plus"] == pytest.approx(16 / (32 + 16))


def test_where_neither_side_holds_an_object_all_is_well() -> None:
    nothing = np.zeros((5, 5), dtype=np.int64)

    found = scores(nothing, nothing)

    assert {found[name] for name in ("aji", "aji_plus", "dice", "f1", "pq", "sq", "object_f1", "object_dice")} == {1.0}
    assert np.isnan(found["recall"])


@pytest.mark.parametrize("swapped", [False, True])
def test_where_one_side_is_empty_all_is_lost(swapped: bool) -> None:  # noqa: FBT001 - a parameter of the test
    sides = [np.zeros((9, 9), dtype=np.int64), blobs(0, size=9)]

    found = scores(*(sides[::-1] if swapped else sides))

    assert {found[name] for name in ("aji", "aji_plus", "dice", "f1", "pq", "object_f1", "object_dice")} == {0.0}
    assert np.isnan(found["sq"])


def test_a_pool_of_images_scores_like_one_large_image() -> None:
    """Images pasted side by side share no object, so the sums are the same."""
    pairs = [(blobs(seed), blobs(seed + 50)) for seed in range(4)]
    offset = [100 * index for index in range(4)]
    joined = [
        np.hstack([np.where(pair[side] > 0, pair[side] + offset[index], 0) for index, pair in enumerate(pairs)])
        for side in (0, 1)
    ]
    stack = InstanceTally.stack([tally_instances(count_overlaps(*pair)) for pair in pairs])

    pooled = stack.pool(np.ones(4, dtype=np.int64)).scores()

    expected = scores(joined[0], joined[1])
    assert {name: float(value) for name, value in pooled.items()} == pytest.approx(expected, nan_ok=True)


def test_resampling_gives_a_score_for_every_row_of_weights() -> None:
    stack = InstanceTally.stack([tally_instances(count_overlaps(blobs(seed), blobs(seed + 9))) for seed in range(3)])
    single = stack.scores()["pq"]

    resampled = stack.pool(np.array([[3, 0, 0], [0, 0, 3]])).scores()["pq"]

    np.testing.assert_allclose(resampled, single[[0, 2]])


def test_labels_may_be_large_and_sparse() -> None:
    truth = blobs(1)
    pred = np.where(truth > 0, truth * 1_000_003_000, 0)

    assert scores(pred, truth)["aji"] == 1


def test_different_shapes_and_negative_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="different shapes"):
        count_overlaps(np.zeros((2, 3), dtype=np.int64), np.zeros((3, 2), dtype=np.int64))
    with pytest.raises(ValueError, match="negative"):
        count_overlaps(np.full((2, 2), -1), np.zeros((2, 2), dtype=np.int64))


def test_images_without_pixels_hold_no_objects() -> None:
    assert scores(np.zeros((0, 5), dtype=np.int64), np.zeros((0, 5), dtype=np.int64))["aji"] == 1


def test_a_thousand_nuclei_take_well_under_a_second() -> None:
    rows, columns = np.indices((1000, 1000))
    truth = (rows // 31 * 33 + columns // 31 + 1) * ((rows % 31 < 24) & (columns % 31 < 24))
    pred = np.roll(truth, (3, 4), axis=(0, 1))

    begun = time.perf_counter()
    found = scores(pred, truth)
    took_s = time.perf_counter() - begun

    assert 0 < found["aji"] < 1
    assert took_s < 0.6
