"""Intervals come from resampled images, are repeatable, and cover what they should."""

from __future__ import annotations

import numpy as np
import pytest

from wsiseg.metrics import percentile_interval, resample_images, resampled_means


def test_every_resample_draws_as_many_images_as_there_are() -> None:
    weights = resample_images(7, repeats=50, seed=3)

    assert weights.shape == (50, 7)
    assert set(weights.sum(axis=1)) == {7}


def test_equal_seeds_give_equal_draws() -> None:
    first, again, other = (resample_images(5, repeats=20, seed=seed) for seed in (1, 1, 2))

    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_resampled_means_are_those_of_the_repeated_values() -> None:
    values = np.array([0.1, np.nan, 0.7])
    weights = np.array([[2, 1, 0], [1, 0, 2], [0, 3, 0]])

    means = resampled_means(values, weights)

    np.testing.assert_allclose(means, [0.1, (0.1 + 1.4) / 3, np.nan])


def test_the_interval_of_a_mean_is_about_two_standard_errors_wide() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 400)

    low, high = percentile_interval(resampled_means(values, resample_images(400, repeats=2000, seed=0)))

    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / 20, rel=0.15)


def test_without_values_there_is_no_interval() -> None:
    assert np.isnan(percentile_interval(np.full(4, np.nan))).all()
