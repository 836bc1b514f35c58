"""What of a teacher's objects is believed, and where its student is told nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nuclei_makers import ellipses
from wsiseg.errors import MethodError
from wsiseg.heads.base import Instances
from wsiseg.labels import LabelMap
from wsiseg.methods.pseudo_objects import PseudoRules, believed

HALF = (0.5, 0.5)
SURE = PseudoRules(margin_px=0, unsure=(0.5, 0.5))


def nuclei(seed: int) -> Instances:
    """Return touching ellipses, numbered without gaps, with scores."""
    labels = np.unique(ellipses(12, 48, seed=seed), return_inverse=True)[1].reshape(48, 48).astype(np.int32)
    return Instances.from_labels(labels, np.random.default_rng(seed).random(labels.max(), dtype=np.float32))


@settings(max_examples=25)
@given(st.integers(0, 1000), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_keeps_some_of_the_same_objects(seed: int, one: float, other: float) -> None:
    found, certain = nuclei(seed), np.ones((48, 48), np.float32)
    lower, higher = (believed(found, certain, PseudoRules(), min_scores=(0, value)) for value in sorted((one, other)))

    many, few = (set(np.unique(found.labels[part.labels > 0]).tolist()) for part in (lower, higher))
    assert few <= many
    assert (len(few), len(many)) == (len(higher.scores), len(lower.scores))
    assert higher.scores.min(initial=1) >= max(one, other) or not few
    # Whoever is believed is whole, and nobody else is there.
    for part, ids in ((lower, many), (higher, few)):
        np.testing.assert_array_equal(part.labels > 0, np.isin(found.labels, sorted(ids)))
        assert set(np.unique(part.labels[part.labels > 0]).tolist()) == set(range(1, len(ids) + 1))
        assert part.rejected == len(found) - len(ids)


def test_nothing_is_learnt_of_objects_that_are_not_believed_nor_beside_them() -> None:
    labels = np.zeros((16, 16), np.int32)
    labels[2:6, 2:8], labels[2:6, 8:14] = 1, 2
    found = Instances.from_labels(labels, np.array([0.9, 0.4], np.float32))

    told = believed(found, (labels > 0).astype(np.float32), PseudoRules(), min_scores=HALF).labels

    # The neighbour keeps all of its pixels, though they lie within the margin.
    np.testing.assert_array_equal(told[2:6, 2:8], 1)
    np.testing.assert_array_equal(told[2:6, 8:16], -1)
    np.testing.assert_array_equal(told[6:8, 8:14], -1)
    assert (told[8:] == 0).all()
    assert (told[6:, :6] == 0).all()


def test_nothing_is_learnt_where_the_teacher_is_unsure() -> None:
    labels = np.zeros((8, 8), np.int32)
    labels[:6, :6] = 1
    foreground = np.zeros((8, 8), np.float32)
    foreground[:, 3], foreground[:, 7] = 0.5, 0.8

    rules = PseudoRules(max_area_share=0.9)
    told = believed(Instances.from_labels(labels, np.ones(1, np.float32)), foreground, rules, min_scores=HALF).labels

    np.testing.assert_array_equal(told > 0, labels > 0)
    assert np.argwhere(told == -1).tolist() == [[6, 3], [7, 3]]


@pytest.mark.parametrize(("side", "is_kept"), [(4, False), (5, True), (10, True), (11, False)])
def test_objects_that_are_too_small_or_too_large_are_not_believed(side: int, is_kept: bool) -> None:  # noqa: FBT001 - a case
    labels = np.zeros((16, 16), np.int32)
    labels[:side, :side] = 1
    found = Instances.from_labels(labels, np.ones(1, np.float32))

    told = believed(found, np.ones((16, 16), np.float32), SURE, min_scores=HALF)

    assert (len(told.scores), told.rejected) == (is_kept, not is_kept)


def test_an_empty_patch_is_background() -> None:
    nothing = Instances.from_labels(np.zeros((8, 8), np.int32), np.empty(0, np.float32))

    told = believed(nothing, np.zeros((8, 8), np.float32), PseudoRules(), min_scores=HALF)

    assert (told.labels == 0).all()
    assert told.rejected == 0


def test_each_class_may_have_a_score_of_its_own() -> None:
    labels = np.repeat(np.arange(1, 5, dtype=np.int32), 25).reshape(4, 25)
    scores = np.array([0.6, 0.6, 0.85, 0.4], np.float32)
    found = Instances.from_labels(labels, scores, classes=np.array([1, 2, 2, 3], np.uint8))

    told = believed(found, np.ones((4, 25), np.float32), PseudoRules(), min_scores=(0.5, 0.5, 0.8, 0.3))

    assert [np.unique(told.labels[row]).tolist() for row in range(4)] == [[1], [-1], [2], [3]]


def test_the_score_of_the_class_of_objects_takes_the_place_of_all_others() -> None:
    classes, rules = LabelMap.from_names(("background", "nucleus")), PseudoRules(class_min_score={"nucleus": 0.6})

    assert [rules.min_scores(classes, is_first=is_first)[1] for is_first in (True, False)] == [0.6, 0.6]


@pytest.mark.parametrize("name", ["nucleos", "background", "lymphocyte"])
def test_scores_of_what_no_object_is_are_refused(name: str) -> None:
    rules = PseudoRules(class_min_score={"nucleus": 0.6, name: 0.8})

    with pytest.raises(MethodError) as caught:
        rules.min_scores(LabelMap.from_names(("background", "nucleus", "lymphocyte")), is_first=True)

    assert str(caught.value) == (
        f"options.pseudo.class_min_score: no objects are of a class {name!r}. There are: nucleus"
    )
