"""Objects that a teacher has found, as labels for its student: what it is sure of, and zones that say nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
from pydantic import Field
from scipy.ndimage import distance_transform_edt

from wsiseg.config import Config
from wsiseg.errors import MethodError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wsiseg.heads.base import Instances
    from wsiseg.labels import LabelMap

# In layers of instances, negative ids mark what nothing may be learnt from.
IGNORED: Final = -1
# Heads tell objects from background, and not what they are: all are of this class.
_OBJECTS: Final = 1

Score = Annotated[float, Field(ge=0, le=1)]


class PseudoRules(Config):
    """Which objects of a teacher are believed. The areas and margins are in pixels of the training.

    Scores are how sure the teacher's head is that an object is there and has this shape (`InstanceHead.certainty`).

    Parameters
    ----------
    min_score
        Lowest score of an object that the first teacher found.
    later_min_score
        The same of later teachers, which have learnt from pseudo-labels themselves.
    class_min_score
        By the name of the class of objects, the score that takes the place of both. Layers of instances have one such
        class, that of index 1.
    min_area_px
        Smaller objects are not believed.
    max_area_share
        Nor are objects that cover more of their patch, 0 … 1.
    margin_px
        Around objects that are not believed, so far nothing is learnt.
    unsure
        Outside of objects that are believed, nothing is learnt where the probability of any object lies between these.
    """

    min_score: float = Field(default=0.5, ge=0, le=1)
    later_min_score: float = Field(default=0.7, ge=0, le=1)
    class_min_score: dict[str, Score] = Field(default_factory=dict)
    min_area_px: int = Field(default=20, ge=1)
    max_area_share: float = Field(default=0.4, gt=0, le=1)
    margin_px: float = Field(default=2.0, ge=0)
    unsure: tuple[float, float] = (0.3, 0.7)

    def min_scores(self, labels: LabelMap, *, is_first: bool) -> tuple[float, ...]:
        """Return the lowest score of objects of each class, by the index of the class.

        Parameters
        ----------
        labels
            The classes, numbered 0, 1, … without gaps.
        is_first
            Whether the teacher has not learnt from pseudo-labels itself.

        Raises
        ------
        MethodError
            If what has a score of its own is not the class of objects.
        """
        if unknown := sorted(self.class_min_score.keys() - {labels[_OBJECTS].name}):
            raise MethodError(
                f"no objects are of a class {unknown[0]!r}",
                where="options.pseudo.class_min_score",
                mend=f"There are: {labels[_OBJECTS].name}",
            )
        usual = self.min_score if is_first else self.later_min_score
        return tuple(self.class_min_score.get(name, usual) for name in labels.names)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PseudoObjects:
    """What a student is told of one patch.

    Parameters
    ----------
    labels
        int32 (H, W): objects 1 … n, 0 background, -1 where nothing is learnt.
    scores
        float32 (n,): of the objects.
    dropped
        int32 (H, W): objects that were not believed, 0 elsewhere.
    """

    labels: NDArray[np.int32]
    scores: NDArray[np.float32]
    dropped: NDArray[np.int32]

    @property
    def rejected(self) -> int:
        """Return the number of objects that were not believed."""
        return len(np.unique(self.dropped[self.dropped > 0]))


def believed(
    found: Instances, foreground: NDArray[np.float32], rules: PseudoRules, *, min_scores: Sequence[float]
) -> PseudoObjects:
    """Return the objects to learn from, and where to learn nothing.

    An object that is believed keeps all of its pixels, also those within the margin of one that is not.

    Parameters
    ----------
    found
        What a teacher has found in a patch.
    foreground
        float32 (H, W): the probability of any object.
    rules
        What is believed.
    min_scores
        Lowest score of objects of each class in this round; see `PseudoRules.min_scores`.

    Notes
    -----
    In the published procedure all that is not found with a score of 0.5 is background. That zones are ignored, and
    that scores must be higher later, is a recommendation for networks whose maps are dense.

    References
    ----------
    .. [1] Lou et al., "Which Pixel to Annotate: a Label-Efficient Nuclei Segmentation Framework", IEEE TMI 42(4), 2023.
    """
    is_kept = (
        (found.scores >= np.asarray(min_scores, dtype=np.float32)[found.classes])
        & (found.area_px >= rules.min_area_px)
        & (found.area_px <= rules.max_area_share * found.labels.size)
    )
    number = np.concatenate(([0], np.cumsum(is_kept) * is_kept)).astype(np.int32)
    labels = number[found.labels]
    low, high = rules.unsure
    is_ignored = (low < foreground) & (foreground < high)
    dropped = np.where(labels == 0, found.labels, 0).astype(np.int32)
    if dropped.any():
        is_ignored |= distance_transform_edt(dropped == 0) <= rules.margin_px
    labels[is_ignored & (labels == 0)] = IGNORED
    return PseudoObjects(labels=labels, scores=found.scores[is_kept], dropped=dropped)
