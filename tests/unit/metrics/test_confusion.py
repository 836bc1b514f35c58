"""Scores of class maps equal their definitions, a loop over pixels, and scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, jaccard_score

from tests import metric_references as slow
from wsiseg.metrics import ConfusionMatrix, count_confusion

if TYPE_CHECKING:
    from numpy.typing import NDArray


def maps(seed: int, *, classes: int = 4, ignored: bool = False) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, (13, 17)).astype(np.uint8)
    pred = np.where(generator.random(truth.shape) < 0.6, truth, generator.integers(0, classes, truth.shape))
    if ignored:
        truth[generator.random(truth.shape) < 0.2] = 255
    return pred.astype(np.uint8), truth


@pytest.mark.parametrize("seed", range(5))
def test_counts_equal_a_loop_over_pixels(seed: int) -> None:
    pred, truth = maps(seed, ignored=True)
    pred[0, :5] = 255

    found = count_confusion(pred, truth, classes=4)

    np.testing.assert_array_equal(found.counts, slow.confusion(pred.astype(np.int64), truth.astype(np.int64), 4, 255))


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_those_of_scikit_learn(seed: int) -> None:
    pred, truth = maps(seed, ignored=True)
    counted = truth != 255
    true, given = truth[counted], pred[counted]

    matrix = count_confusion(pred, truth, classes=4)
    found = matrix.scores()
    share = np.bincount(true, minlength=4) / true.size

    np.testing.assert_array_equal(matrix.counts[:, :4], confusion_matrix(true, given))
    ious = jaccard_score(true, given, average=None)
    np.testing.assert_allclose(matrix.class_scores()["iou"], ious)
    np.testing.assert_allclose(matrix.class_scores()["dice"], f1_score(true, given, average=None))
    assert found["miou"] == pytest.approx(ious.mean())
    assert found["fw_iou"] == pytest.approx(ious @ share)
    assert found["pixel_accuracy"] == pytest.approx(accuracy_score(true, given))
    assert found["mean_accuracy"] == pytest.approx(balanced_accuracy_score(true, given))
    assert found["mean_dice"] == pytest.approx(f1_score(true, given, average="macro"))


def test_pieces_add_up_to_the_whole() -> None:
    pred, truth = maps(3, ignored=True)
    pieces = [count_confusion(pred[rows], truth[rows], classes=4) for rows in (np.s_[:5], np.s_[5:6], np.s_[6:])]

    pooled = ConfusionMatrix.stack(pieces).pool(np.ones(3, dtype=np.int64))

    np.testing.assert_array_equal(pooled.counts, count_confusion(pred, truth, classes=4).counts)


def test_a_class_on_neither_side_has_no_score_and_no_weight() -> None:
    truth = np.array([[0, 1], [1, 1]])

    matrix = count_confusion(truth, truth, classes=3)

    assert np.isnan(matrix.class_scores()["iou"][2])
    assert matrix.scores()["miou"] == 1


def test_scores_of_a_small_case_are_those_of_paper_and_pencil() -> None:
    truth = np.array([[0, 0, 0, 1]])
    pred = np.array([[0, 0, 1, 1]])

    scores = count_confusion(pred, truth, classes=2).scores()

    assert scores["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["fw_iou"] == pytest.approx(3 / 4 * 2 / 3 + 1 / 4 * 1 / 2)
    assert scores["pixel_accuracy"] == 3 / 4
    assert scores["mean_accuracy"] == pytest.approx((2 / 3 + 1) / 2)


def test_scores_of_four_classes_are_those_of_paper_and_pencil() -> None:
    truth = np.repeat([0, 0, 1, 2, 2, 2, 3, 3, 4, 4], [3, 1, 2, 1, 4, 1, 2, 2, 5, 7])
    pred = np.repeat([0, 1, 1, 0, 2, 3, 2, 3, 0, 3], [3, 1, 2, 1, 4, 1, 2, 2, 5, 7])

    # White, 4, does not count, whatever is found there.
    matrix = count_confusion(pred, truth, classes=4, ignore_index=4)

    assert matrix.counts[:, :4].tolist() == [[3, 1, 0, 0], [0, 2, 0, 0], [1, 0, 4, 1], [0, 0, 2, 2]]
    assert matrix.class_scores()["iou"].tolist() == pytest.approx([3 / 5, 2 / 3, 4 / 8, 2 / 5])
    assert matrix.class_scores()["dice"].tolist() == pytest.approx([6 / 8, 4 / 5, 8 / 12, 4 / 7])
    scores = matrix.scores()
    assert scores["miou"] == pytest.approx((3 / 5 + 2 / 3 + 4 / 8 + 2 / 5) / 4)
    assert scores["fw_iou"] == pytest.approx((4 * 3 / 5 + 2 * 2 / 3 + 6 * 4 / 8 + 4 * 2 / 5) / 16)
    assert scores["pixel_accuracy"] == 11 / 16
    assert scores["mean_accuracy"] == pytest.approx((3 / 4 + 1 + 4 / 6 + 2 / 4) / 4)


def test_where_one_class_is_all_there_is_its_iou_is_the_weighted_one() -> None:
    matrix = count_confusion(np.array([[0, 0, 1, 1]]), np.zeros((1, 4), dtype=np.int64), classes=2)

    assert matrix.scores()["fw_iou"] == matrix.class_scores()["iou"][0] == 0.5


def test_pixels_without_an_answer_count_as_wrong() -> None:
    truth = np.array([[1, 1, 0, 0]])
    pred = np.array([[1, 255, 0, 0]])

    matrix = count_confusion(pred, truth, classes=2)

    assert matrix.class_scores()["recall"][1] == 0.5
    assert matrix.class_scores()["iou"][1] == 0.5
    assert matrix.scores()["pixel_accuracy"] == 0.75


def test_any_class_can_be_the_ignored_one() -> None:
    truth = np.array([[0, 3, 3, 1]])
    pred = np.array([[0, 0, 1, 1]])

    assert count_confusion(pred, truth, classes=3, ignore_index=3).scores()["miou"] == 1


def test_where_all_is_ignored_there_is_no_score() -> None:
    truth = np.full((2, 2), 255)

    assert np.isnan(list(count_confusion(truth, truth, classes=2).scores().values())).all()


@pytest.mark.parametrize(("pred", "truth"), [(2, 0), (0, 2), (-1, 0), (0, -1)])
def test_indices_beyond_the_classes_are_refused(pred: int, truth: int) -> None:
    with pytest.raises(ValueError, match="there are 2 classes"):
        count_confusion(np.full((2, 2), pred), np.full((2, 2), truth), classes=2)


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="different shapes"):
        count_confusion(np.zeros((2, 3), dtype=np.uint8), np.zeros((3, 2), dtype=np.uint8), classes=2)
