"""Say how far a score might have been off with other images from the same source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wsiseg.metrics.tally import quotient

if TYPE_CHECKING:
    from numpy.typing import NDArray


def resample_images(images: int, *, repeats: int, seed: int) -> NDArray[np.int64]:
    """Return how often each image is drawn in each resample with replacement.

    Returns
    -------
    NDArray[np.int64]
        (repeats, images); every row adds up to `images`. Equal seeds give
        equal draws on every machine.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(images, np.full(images, 1 / images), size=repeats)


def resampled_means(values: NDArray[np.float64], weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean of an (N,) score in each (R, N) resample, over images that have the score."""
    known = ~np.isnan(values)
    drawn = weights.astype(np.float64)
    return quotient(drawn @ np.where(known, values, 0.0), drawn @ known.astype(np.float64), empty=np.nan)


def percentile_interval(values: NDArray[np.float64], *, level: float = 0.95) -> tuple[float, float]:
    """Return the central interval that holds `level` of the resampled values; NaN if there are none."""
    known = values[~np.isnan(values)]
    if known.size == 0:
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)
