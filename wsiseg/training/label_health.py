"""How pseudo-labels look: how sure their teacher was, and whether they look like what is annotated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from wsiseg.methods.pseudo_objects import IGNORED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsiseg.methods.pseudo_objects import PseudoObjects
    from wsiseg.training.sources import Source

# Patches that tell how much of a tissue is objects.
_LOOKED_AT: Final = 200
# More than that ignored, or covered so many times as much or as little as in annotated patches, is worth a word.
_MUCH_IGNORED: Final = 0.5
_FAR: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How sure a teacher was, and of how much.

    Parameters
    ----------
    patches
        Patches that it has labelled.
    kept, rejected
        Objects that are learnt from, and that are not.
    mean_score
        Of the objects that are learnt from; NaN without any.
    coverage, ignored
        Parts of the pixels that are objects, and that nothing is learnt from.
    pixels
        Of these patches.
    """

    patches: int
    kept: int
    rejected: int
    mean_score: float
    coverage: float
    ignored: float
    pixels: int

    @classmethod
    def of_nothing(cls) -> Self:
        """Return that of no patches."""
        return cls(patches=0, kept=0, rejected=0, mean_score=math.nan, coverage=0.0, ignored=0.0, pixels=0)

    def plus(self, found: PseudoObjects) -> Health:
        """Return that of one more patch."""
        kept, pixels = self.kept + len(found.scores), self.pixels + found.labels.size
        scores = (self.mean_score * self.kept if self.kept else 0.0) + float(found.scores.sum(dtype=np.float64))
        covered, ignored = int((found.labels > 0).sum()), int((found.labels == IGNORED).sum())
        return Health(
            patches=self.patches + 1,
            kept=kept,
            rejected=self.rejected + found.rejected,
            mean_score=scores / kept if kept else math.nan,
            coverage=(self.coverage * self.pixels + covered) / pixels,
            ignored=(self.ignored * self.pixels + ignored) / pixels,
            pixels=pixels,
        )

    def __str__(self) -> str:
        return (
            f"{self.patches} patches, {self.kept:,} objects kept and {self.rejected:,} rejected, mean score "
            f"{self.mean_score:.2f}, {self.coverage:.1%} of the pixels are objects and {self.ignored:.1%} ignored"
        )


def annotated_coverage(sources: Sequence[Source]) -> float:
    """Return the part of what is known of annotated patches that is objects, of some patches where there are many."""
    patches = [(source, index) for source in sources for index in source.indices.tolist()]
    known = covered = 0
    for source, index in patches[:: 1 + len(patches) // _LOOKED_AT]:
        patch = source.read(index)
        known += int(patch.valid.sum())
        covered += int((patch.labels[patch.valid] > 0).sum())
    return covered / max(1, known)


def doubt(health: Health, annotated: float | None) -> str:
    """Return what speaks against learning from pseudo-labels, in one line; empty where nothing does.

    Parameters
    ----------
    health
        Of the pseudo-labels.
    annotated
        See `annotated_coverage`; None where that is not known.
    """
    if not health.kept:
        return "not one object was believed; train the teacher longer, or ask for lower scores"
    if health.ignored > _MUCH_IGNORED:
        return (
            f"nothing is learnt from {health.ignored:.1%} of the pixels of pseudo-labelled patches, as the teacher is "
            "not sure of them; train it longer, or change options.pseudo"
        )
    covered = health.coverage / (1 - health.ignored)
    if annotated is not None and not annotated / _FAR <= covered <= annotated * _FAR:
        return (
            f"objects cover {covered:.1%} of what has pseudo-labels, and {annotated:.1%} of what is annotated; look at "
            "the pictures before you trust them"
        )
    return ""
