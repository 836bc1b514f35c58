"""How good a predictor is on whole volumes that it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.errors import MethodError
from wsiseg.labels import IGNORE
from wsiseg.methods.windows import window_means

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wsiseg.methods.base import Predictor
    from wsiseg.training.ranks import Ranks
    from wsiseg.training.volume_batches import VolumeSource

# The first is what models are chosen by.
VOLUME_SCORES: Final = ("dice", "jaccard")


class VolumeValidation:
    """Measures predictors on held-out volumes: overlaps of each structure in each volume, averaged.

    Structures that are in neither truth nor prediction count as found.

    Parameters
    ----------
    sources
        The held-out volumes, which have labels.

    Attributes
    ----------
    metric
        Name of the value by which models are chosen, ``dice``; higher is better.
    """

    def __init__(self, sources: Sequence[VolumeSource]) -> None:
        self._items = [(source.store, int(index)) for source in sources for index in source.indices]
        self.metric = VOLUME_SCORES[0]

    def __len__(self) -> int:
        """Return the number of volumes."""
        return len(self._items)

    def measure(self, predictor: Predictor, ranks: Ranks) -> dict[str, float]:
        """Return the metrics by name; ranks share the volumes and get the same values.

        Raises
        ------
        MethodError
            If the predictor is none of volumes.
        """
        about = predictor.spec.volume
        if about is None:
            raise MethodError("a network of images cannot be judged by volumes")
        mine = []
        for store, index in self._items[ranks.rank :: ranks.world]:
            voxels, truth = store.read_voxels(index), store.read_labels(index)
            means = window_means(predictor, voxels, patch=about.patch, stride=about.stride, device=ranks.device)
            mine.append(_overlaps(means.argmax(axis=0), truth, classes=len(means)))
        everyone = np.array([scores for part in ranks.gather(mine) for scores in part])
        return dict(zip(VOLUME_SCORES, everyone.mean(axis=0).tolist(), strict=True))


def _overlaps(found: NDArray[np.integer], truth: NDArray[np.uint8], *, classes: int) -> tuple[float, float]:
    """Return Dice and Jaccard, averaged over the classes but the background."""
    is_known = truth != IGNORE
    dice, jaccard = [], []
    for label in range(1, classes):
        ours, theirs = (found == label) & is_known, truth == label
        shared, total = int((ours & theirs).sum()), int(ours.sum()) + int(theirs.sum())
        dice.append(2 * shared / total if total else 1.0)
        jaccard.append(shared / (total - shared) if total else 1.0)
    return float(np.mean(dice)), float(np.mean(jaccard))
