"""Whatever the images: scores do not care about names, reward equality and punish its absence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tests import metric_references as slow
from wsiseg.metrics import (
    count_confusion,
    count_overlaps,
    hausdorff95,
    tally_boundaries,
    tally_hausdorff,
    tally_instances,
)

SHAPE = (7, 6)
Labels = NDArray[np.int64]
label_images = arrays(np.int64, SHAPE, elements=st.integers(0, 4))

QUALITIES = ("aji", "aji_plus", "dice", "f1", "f1_50_95", "pq", "object_f1", "object_dice")


def scores(pred: Labels, truth: Labels) -> dict[str, float]:
    overlaps = count_overlaps(pred, truth)
    found = {name: float(value) for name, value in tally_instances(overlaps).scores().items()}
    found["object_hausdorff"] = float(tally_hausdorff(pred, truth, overlaps).distance())
    found["boundary_f1"] = float(tally_boundaries(pred, truth, tolerance_px=1).f1())
    found["hd95"] = hausdorff95(pred > 0, truth > 0)
    return found


@given(label_images, label_images)
def test_fast_scores_equal_slow_ones(pred: Labels, truth: Labels) -> None:
    found = scores(pred, truth)

    assert found["aji"] == pytest.approx(slow.aji(pred, truth))
    assert found["pq"] == pytest.approx(slow.panoptic_quality(pred, truth))
    assert found["object_f1"] == pytest.approx(slow.object_f1(pred, truth))
    assert found["object_dice"] == pytest.approx(slow.object_dice(pred, truth))
    assert found["object_hausdorff"] == pytest.approx(slow.object_hausdorff(pred, truth))
    assert found["boundary_f1"] == pytest.approx(slow.boundary_f1(pred, truth, 1), nan_ok=True)


@given(label_images, label_images, st.permutations([3, 70, 65_535, 2**40]), st.permutations([1, 2, 8, 9]))
def test_scores_do_not_depend_on_the_labels(pred: Labels, truth: Labels, one: list[int], other: list[int]) -> None:
    renamed = [np.array([0, *names])[labels] for labels, names in ((pred, one), (truth, other))]

    assert scores(*renamed) == pytest.approx(scores(pred, truth), nan_ok=True)


@given(label_images)
def test_identical_images_score_one_and_lie_at_distance_zero(labels: Labels) -> None:
    assume(labels.any())

    found = scores(labels, labels)

    assert [found[name] for name in QUALITIES] == pytest.approx(np.ones(len(QUALITIES)))
    assert found["object_hausdorff"] == found["hd95"] == 0


@given(label_images, arrays(np.bool_, SHAPE))
def test_disjoint_images_score_zero(labels: Labels, kept: NDArray[np.bool_]) -> None:
    pred, truth = np.where(kept, labels, 0), np.where(kept, 0, labels)
    assume(pred.any() or truth.any())

    found = scores(pred, truth)

    assert [found[name] for name in QUALITIES] == [0] * len(QUALITIES)
    assert found["object_hausdorff"] > 0


@given(label_images, label_images)
def test_scores_that_have_no_sides_are_symmetric(pred: Labels, truth: Labels) -> None:
    here, there = scores(pred, truth), scores(truth, pred)

    for name in ("dice", "f1", "f1_50_95", "pq", "sq", "object_dice", "object_hausdorff", "boundary_f1", "hd95"):
        assert here[name] == pytest.approx(there[name], nan_ok=True)
    assert here["precision"] == pytest.approx(there["recall"], nan_ok=True)


@given(label_images, label_images)
def test_scores_stay_in_range(pred: Labels, truth: Labels) -> None:
    found = scores(pred, truth)

    assert all(0 <= found[name] <= 1 for name in QUALITIES)
    # A weighted mean of the longest distance there is may exceed it by its rounding.
    assert 0 <= found["object_hausdorff"] <= np.hypot(*SHAPE) * (1 + 1e-12)


@given(label_images, label_images)
def test_swapping_the_sides_transposes_the_confusion_matrix(pred: Labels, truth: Labels) -> None:
    here, there = (count_confusion(*pair, classes=5) for pair in ((pred, truth), (truth, pred)))

    np.testing.assert_array_equal(here.counts[:, :5], there.counts[:, :5].T)
    assert here.scores()["miou"] == pytest.approx(float(there.scores()["miou"]))
