"""What an instance head is, and the objects it finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from scipy.special import logit

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Instances:
    """Objects found in one array of maps; all in its pixels.

    Parameters
    ----------
    labels
        int32 (H, W): object i has id i + 1 in the columns below, 0 is background.
    scores
        float32 (n,): confidence, 0 … 1.
    classes
        uint8 (n,): class index of each object.
    area_px
        int64 (n,): number of pixels.
    bbox
        int64 (n, 4): x0, y0, x1, y1, half-open.
    cx, cy
        float64 (n,): centroid by the corner convention: a single pixel at (0, 0) has (0.5, 0.5).
    """

    labels: NDArray[np.int32]
    scores: NDArray[np.float32]
    classes: NDArray[np.uint8]
    area_px: NDArray[np.int64]
    bbox: NDArray[np.int64]
    cx: NDArray[np.float64]
    cy: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def from_labels(
        cls, labels: NDArray[np.int32], scores: NDArray[np.float32], *, classes: NDArray[np.uint8] | None = None
    ) -> Self:
        """Return the objects of a label map.

        Parameters
        ----------
        labels
            int32 (H, W), ids 1 … n without gaps, 0 background.
        scores
            float32 (n,).
        classes
            uint8 (n,); every object is of class 1 where None.

        Raises
        ------
        ValueError
            If an id up to the number of scores has no pixels, or one beyond it has.
        """
        count = len(scores)
        rows, columns = np.nonzero(labels)
        index = labels[rows, columns] - 1
        areas = np.bincount(index, minlength=count)
        if len(areas) != count or (areas == 0).any():
            raise ValueError(f"the ids of the labels are not 1 … {count}")
        bbox = np.empty((count, 4), dtype=np.int64)
        for axis, at in enumerate((columns, rows)):
            low, high = np.full(count, np.iinfo(np.int64).max), np.full(count, -1)
            np.minimum.at(low, index, at)
            np.maximum.at(high, index, at)
            bbox[:, axis], bbox[:, axis + 2] = low, high + 1
        return cls(
            labels=labels,
            scores=scores,
            classes=np.ones(count, dtype=np.uint8) if classes is None else classes,
            area_px=areas.astype(np.int64),
            bbox=bbox,
            cx=np.bincount(index, weights=columns, minlength=count) / areas + 0.5,
            cy=np.bincount(index, weights=rows, minlength=count) / areas + 0.5,
        )


def no_foreground(channels: int) -> tuple[float, ...]:
    """Return `InstanceHead.background` of heads whose first map is the logit of the foreground."""
    return (-20.0, *(0.0,) * (channels - 1))


def with_logit(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return maps (…, H, W) whose first, a probability, has become its logit, as far as that is finite."""
    return np.concatenate((logit(maps[:1].clip(1e-3, 1 - 1e-3)), maps[1:])).astype(np.float32)


def above(scores: NDArray[np.float32], least: float) -> NDArray[np.float32]:
    """Return scores (n,) counted from the least that pixels of objects have, so that chance has about 0, float32."""
    return ((scores - np.float32(least)) / np.float32(1 - least)).clip(0, 1)


class InstanceHead(Protocol):
    """The meaning of the dense maps of an instance model."""

    @property
    def kind(self) -> str:
        """Return the name in the table of heads."""
        ...

    @property
    def channels(self) -> int:
        """Return the number of maps."""
        ...

    @property
    def background(self) -> tuple[float, ...]:
        """Return a value for each of the maps that together say that a pixel belongs to no object."""
        ...

    @property
    def halo(self) -> int:
        """Return how many pixels around an object its decoding may look at."""
        ...

    def targets(self, label_map: NDArray[np.int32], valid: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        """Return what the loss compares with.

        Parameters
        ----------
        label_map
            int32 (H, W): object ids; 0 and less are background.
        valid
            bool (H, W): what may be learnt from. Objects keep their full shape beyond it.
        """
        ...

    def perfect(self, targets: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the raw maps, float32 (channels, H, W), of a network that has learnt `targets` by heart."""
        ...

    def loss(self, outputs: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return scalars; ``loss`` is the one to minimise, the others are parts of it, without gradient.

        All are 0, with a gradient of 0, where nothing is valid.

        Parameters
        ----------
        outputs
            float (B, channels, H, W), raw.
        targets
            What `targets` gives, stacked: (B, …) each.
        """
        ...

    def decode(self, outputs: NDArray[np.float32]) -> Instances:
        """Return the objects in raw maps, float32 (channels, H, W).

        Decoding is local: an object depends only on maps within `halo` pixels of it, and
        not on where it lies in the array.
        """
        ...

    def certainty(self, outputs: NDArray[np.float32], found: Instances) -> NDArray[np.float32]:
        """Return how sure it is that objects are there and have these shapes, float32 (n,), 0 … 1.

        Scores may be high by construction: pixels are gathered into objects where their probability is. This is not.

        Parameters
        ----------
        outputs
            Raw maps, float32 (channels, H, W).
        found
            What `decode` gives for them.
        """
        ...

    def foreground(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability, float32 (H, W), that a pixel belongs to any object."""
        ...

    def turned_back(self, outputs: Tensor, symmetry: int) -> Tensor:
        """Return the maps of a turned image as those of the image itself.

        Parameters
        ----------
        outputs
            float (B, channels, H, W): maps of ``symmetry.turned(image, symmetry)``.
        symmetry
            0 … 7.
        """
        ...
