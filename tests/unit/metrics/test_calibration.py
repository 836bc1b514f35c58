"""Labels are calibrated that are right as often as they say, and the surest of them are looked at first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.metrics import CalibrationTally, count_calibration
from wsiseg.metrics.calibration import LEVELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARES = np.array([0.1, 0.25, 0.5, 1.0])


def pixels(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Return labels, truth and confidence (13, 17), some of them without a class."""
    rng = np.random.default_rng(seed)
    labels, truth = (rng.choice([0, 1, 2, 255], (13, 17), p=[0.4, 0.3, 0.2, 0.1]).astype(np.uint8) for _ in range(2))
    confidence = rng.integers(0, LEVELS, (13, 17)).astype(np.uint8)
    confidence[labels == 255] = 255
    return labels, truth, confidence


@given(st.integers(0, 99))
def test_bins_and_error_equal_their_definitions(seed: int) -> None:
    labels, truth, confidence = pixels(seed)
    counted = (labels != 255) & (truth != 255)
    sure, right = confidence[counted] / 100, labels[counted] == truth[counted]

    tally = count_calibration(labels, truth, confidence)

    bins, error = tally.bins(), 0.0
    for place in range(10):
        low, high = place / 10, (place + 1) / 10
        inside = (sure >= low - 1e-9) & ((sure < high - 1e-9) | (place == 9))
        assert bins["share"][place] == pytest.approx(inside.mean())
        if inside.any():
            assert bins["accuracy"][place] == pytest.approx(right[inside].mean())
            assert bins["confidence"][place] == pytest.approx(sure[inside].mean())
            error += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert tally.scores()["ece"] == pytest.approx(error)
    assert tally.scores()["accuracy"] == pytest.approx(right.mean())


@given(st.integers(0, 99))
def test_the_surest_are_the_first_in_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # All different, so that there is one order.
    confidence = rng.permutation(LEVELS)[:40].astype(np.uint8)
    truth, labels = rng.integers(0, 2, (2, 40)).astype(np.uint8)

    found = count_calibration(labels, truth, confidence).surest(SHARES)

    right = (labels == truth)[np.argsort(-confidence.astype(np.int64))]
    np.testing.assert_allclose(found, [right[: round(40 * share)].mean() for share in SHARES])


def test_of_labels_that_are_equally_sure_any_part_is_as_right() -> None:
    counts = np.zeros((LEVELS, 2))
    counts[70] = 30, 70

    np.testing.assert_allclose(CalibrationTally(counts=counts).surest(SHARES), 0.7)
    assert CalibrationTally(counts=counts).scores()["ece"] == pytest.approx(0)


def test_labels_that_are_as_right_as_sure_have_no_error_and_the_others_all_of_it() -> None:
    levels = np.arange(LEVELS)
    honest = CalibrationTally(counts=np.stack([100 - levels, levels], axis=1).astype(np.float64))
    boastful = CalibrationTally(counts=np.stack([levels == 100, np.zeros(LEVELS)], axis=1).astype(np.float64))

    assert honest.scores()["ece"] == pytest.approx(0)
    assert boastful.scores()["ece"] == pytest.approx(1)
    surest = honest.surest(SHARES)
    assert (np.diff(surest) < 0).all()


def test_images_add_up() -> None:
    images = [pixels(seed) for seed in range(3)]

    whole = count_calibration(*(np.concatenate(arrays) for arrays in zip(*images, strict=True)))
    stacked = CalibrationTally.stack([count_calibration(*image) for image in images])

    np.testing.assert_array_equal(stacked.pool(np.ones(3, np.int64)).counts, whole.counts)
    assert stacked.bins()["accuracy"].shape == (3, 10)
    assert stacked.scores()["ece"].shape == (3,)


def test_nothing_has_no_scores() -> None:
    nothing = CalibrationTally(counts=np.zeros((LEVELS, 2)))

    assert all(np.isnan(value) for value in nothing.scores().values())
    assert np.isnan(nothing.surest(SHARES)).all()


def test_what_does_not_fit_is_refused() -> None:
    mask = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match="different shapes"):
        count_calibration(mask, mask[:1], mask)
    with pytest.raises(ValueError, match="255 percent"):
        count_calibration(mask, mask, mask + 255)
