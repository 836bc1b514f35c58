"""Sums that add up over images, so that one formula serves an image, a pool and a resample."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tally:
    """Base of the sums behind scores; every field is float64 of shape S or (*S, …).

    S is () for one image or a pool, (N,) for a stack of images, (R,) for resamples.
    """

    @classmethod
    def stack(cls, tallies: Sequence[Self]) -> Self:
        """Return tallies of single images as one tally of shape (N,)."""
        return cls(**{field.name: np.stack([getattr(tally, field.name) for tally in tallies]) for field in fields(cls)})

    def pool(self, weights: NDArray[np.int64]) -> Self:
        """Return sums over the images of a stack.

        Parameters
        ----------
        weights
            (N,) or (R, N), how often each image counts.
        """
        summed = {
            field.name: np.tensordot(weights.astype(np.float64), getattr(self, field.name), axes=(-1, 0))
            for field in fields(self)
        }
        return type(self)(**summed)


def quotient(numerator: NDArray[np.float64], denominator: NDArray[np.float64], *, empty: float) -> NDArray[np.float64]:
    """Return the quotient, and `empty` where the denominator is zero."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    out = np.full(denominator.shape, empty, dtype=np.float64)
    return np.divide(numerator, denominator, out=out, where=denominator != 0)
