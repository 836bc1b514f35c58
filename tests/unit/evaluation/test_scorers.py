"""Scorers hand every image and class to the metrics as it is, in the unit asked for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from wsiseg.evaluation.scorers import DISTANCES, InstanceScorer, SemanticScorer
from wsiseg.metrics import count_confusion

Labels = NDArray[np.uint8]


def squares(shift: int, value: int = 1) -> Labels:
    labels = np.zeros((40, 40), dtype=np.uint8)
    labels[10:25, 10 + shift : 25 + shift] = value
    return labels


def semantic(*, tolerance_px: float = 1.0, pixel_size: float = 0.5) -> SemanticScorer:
    return SemanticScorer(classes=2, ignore_index=255, pixel_size=pixel_size, tolerance_px=tolerance_px)


def test_distances_come_in_the_unit_of_the_pixel_size() -> None:
    instance, classes = InstanceScorer(pixel_size=0.5, tolerance_px=1), semantic()

    instance.add(squares(4), squares(0))
    classes.add(squares(4), squares(0))

    assert instance.image_scores()["hd95"] == 2
    assert instance.image_scores()["object_hausdorff"] == 2
    assert classes.image_class_scores()["hd95"][0, 1] == 2


def test_images_are_scored_apart_and_together() -> None:
    scorer = InstanceScorer(pixel_size=1, tolerance_px=1)
    scorer.add(squares(0), squares(0))
    scorer.add(squares(0) * 0, squares(0))

    np.testing.assert_allclose(scorer.image_scores()["aji"], [1, 0])
    assert scorer.pooled_scores(np.array([1, 1]))["aji"] == 0.5
    assert "hd95" not in scorer.pooled_scores(np.array([1, 1]))
    np.testing.assert_array_equal(scorer.object_counts(), [[1, 0], [1, 1]])


def test_class_maps_pool_their_confusion() -> None:
    scorer, pairs = semantic(), [(squares(0), squares(2)), (squares(7), squares(2))]
    for pair in pairs:
        scorer.add(*pair)
    joined = count_confusion(np.hstack([a for a, _ in pairs]), np.hstack([b for _, b in pairs]), classes=2)

    assert scorer.pooled_scores(np.array([1, 1]))["miou"] == pytest.approx(float(joined.scores()["miou"]))
    np.testing.assert_allclose(scorer.pooled_class_scores()["iou"], joined.class_scores()["iou"])
    np.testing.assert_allclose(scorer.pooled_scores(np.array([[2, 0]]))["miou"], scorer.image_scores()["miou"][:1])


def test_what_happens_where_the_truth_is_ignored_does_not_matter() -> None:
    truth = squares(0)
    truth[:, 20:] = 255
    scribbled = squares(0)
    scribbled[::3, 20:] = 1
    scorer = semantic(tolerance_px=0)

    scorer.add(scribbled, truth)

    scores = scorer.image_scores()
    assert scores["miou"] == scores["boundary_f1"] == 1
    assert scores["hd95"] == 0


def touching() -> NDArray[np.int64]:
    """Return a nucleus on its own, two that touch, and one that the image cuts."""
    labels = np.zeros((30, 40), dtype=np.int64)
    labels[3:9, 4:12], labels[14:20, 10:16], labels[14:20, 16:24], labels[24:, 30:] = 3, 1, 7, 9
    return labels


def test_a_perfect_prediction_has_the_best_scores_whatever_its_ids() -> None:
    truth = touching()
    scorer = InstanceScorer(pixel_size=0.5, tolerance_px=0)

    scorer.add(np.where(truth > 0, 20 - truth, 0), truth)

    for scores in (scorer.image_scores(), scorer.pooled_scores(np.ones(1, dtype=np.int64))):
        distances = {name: float(np.squeeze(scores.pop(name))) for name in DISTANCES if name in scores}
        assert set(distances.values()) == {0.0}
        assert {"f1", "f1_50_95", "dice", "aji", "aji_plus", "pq", "object_f1", "object_dice"} < set(scores)
        assert {name for name, value in scores.items() if float(np.squeeze(value)) != 1} == set()


def test_a_merged_pair_costs_and_a_lost_image_has_the_worst_scores() -> None:
    truth = touching()
    scorer = InstanceScorer(pixel_size=0.5, tolerance_px=0)

    scorer.add(np.where(truth == 7, 1, truth), truth)
    scorer.add(np.zeros_like(truth), truth)

    scores = scorer.image_scores()
    merged, lost = ({name: float(values[at]) for name, values in scores.items()} for at in (0, 1))
    assert 0 < merged["aji_plus"] < merged["aji"] < 1
    assert merged["dice"] == 1
    assert {lost[name] for name in ("f1", "dice", "aji", "pq", "object_f1", "object_dice")} == {0}
    assert lost["object_hausdorff"] == lost["hd95"] == 25
