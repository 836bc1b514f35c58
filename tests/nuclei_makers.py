"""Label maps that look like nuclei, and maps that a perfect network would give for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wsiseg.metrics.instances import tally_instances
from wsiseg.metrics.overlaps import count_overlaps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.heads.base import InstanceHead


def ellipses(count: int, side: int, *, seed: int, radii: tuple[float, float] = (4.5, 8.5)) -> NDArray[np.int32]:
    """Return up to `count` ellipses, many touching, some cut by the border, none below 30 pixels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), dtype=np.int32)
    y, x = np.mgrid[:side, :side]
    found = 0
    for _ in range(20 * count):
        cy, cx = rng.uniform(0, side, 2)
        a, b = rng.uniform(*radii, 2)
        turn = rng.uniform(0, np.pi)
        along = np.cos(turn) * (x - cx) + np.sin(turn) * (y - cy)
        across = np.cos(turn) * (y - cy) - np.sin(turn) * (x - cx)
        inside = (along / a) ** 2 + (across / b) ** 2 <= 1
        if found < count and inside.sum() >= 30 and not labels[inside].any():
            found += 1
            labels[inside] = found
    return labels


def perfect(head: InstanceHead, labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the raw maps whose meaning is the head's targets."""
    return head.perfect(head.targets(labels, np.ones(labels.shape, dtype=np.bool_)))


def aji(found: NDArray[np.int32], truth: NDArray[np.int32]) -> float:
    """Return the aggregated Jaccard index."""
    return float(tally_instances(count_overlaps(found, truth)).scores()["aji"])
