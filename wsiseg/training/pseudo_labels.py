"""Objects that a trained network finds in patches without labels, as layers of the stores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from wsiseg.methods.pseudo_objects import IGNORED, believed
from wsiseg.stores.layer_writer import write_layer
from wsiseg.stores.patches import LayerInfo
from wsiseg.training.validation import dense_maps

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch
    from numpy.typing import NDArray

    from wsiseg.labels import LabelMap
    from wsiseg.methods.predictor import NetPredictor
    from wsiseg.methods.pseudo_objects import PseudoObjects, PseudoRules
    from wsiseg.progress import Advance
    from wsiseg.stopping import Stop
    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.training.sources import Source, UnlabelledSource


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
    """

    patches: int
    kept: int
    rejected: int
    mean_score: float
    coverage: float
    ignored: float

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


class PseudoLabeller:
    """Labels the objects of patches.

    Parameters
    ----------
    predictor
        The teacher, on `device`.
    rules, min_scores
        What of it is believed; see `believed`.
    device
        Where it computes.
    """

    def __init__(
        self, predictor: NetPredictor, rules: PseudoRules, *, min_scores: Sequence[float], device: torch.device
    ) -> None:
        self._predictor, self._rules = predictor, rules
        self._min_scores, self._device = tuple(min_scores), device

    def label(self, image: NDArray[np.uint8]) -> PseudoObjects:
        """Return the objects of an image, uint8 RGB (H, W, 3), at the resolution of the training."""
        maps = dense_maps(self._predictor, image, self._device)
        found, foreground = self._predictor.decode(maps), self._predictor.foreground(maps)
        certain = replace(found, scores=self._predictor.certainty(maps, found))
        return believed(certain, foreground, self._rules, min_scores=self._min_scores)


def write_pseudo_labels(
    pool: Iterable[tuple[PatchSet, UnlabelledSource]],
    labeller: PseudoLabeller,
    name: str,
    labels: LabelMap,
    *,
    made_by: str,
    advance: Advance,
    stop: Stop,
) -> Health:
    """Write a layer of instances into each store that has patches to label; a layer is there when it is complete.

    Parameters
    ----------
    pool
        Patches to label, and the stores that they are in.
    labeller
        Labels them.
    name
        Of the layer; one of that name is replaced.
    labels
        The classes.
    made_by
        What the layers say of who has made them; see `LayerInfo`.
    advance
        Told of each patch.
    stop
        Looked at after each patch.

    Raises
    ------
    StoppedError
        If `stop` was requested; of the store at hand nothing stays.
    """
    made_at = datetime.now(UTC).isoformat(timespec="microseconds")
    info = LayerInfo(kind="instances", labels=labels, made_by=made_by, made_at=made_at)
    tally = _Tally()

    def labelled(source: UnlabelledSource, index: int, shape: tuple[int, int]) -> NDArray[np.int32]:
        if stop.is_requested:
            raise stop.error()
        found = labeller.label(source.whole(index).image)
        tally.add(found)
        advance(1)
        width, height = (int(value) for value in source.patches.extents[index])
        result = np.zeros(shape, dtype=np.int32)
        stored = Image.fromarray(found.labels).resize((width, height), Image.Resampling.NEAREST)
        result[:height, :width] = np.asarray(stored)
        return result

    for patches, source in pool:
        wanted, first = set(source.indices.tolist()), 0
        for store in patches.stores:
            own = range(first, first + len(store))
            first += len(store)
            if wanted.isdisjoint(own):
                continue
            shape = store.image_shape
            arrays = (labelled(source, index, shape) if index in wanted else None for index in own)
            write_layer(store, name, info, arrays, overwrite=True)
    return tally.health


class _Tally:
    """What has been labelled so far."""

    def __init__(self) -> None:
        self._patches = self._rejected = self._pixels = self._covered = self._ignored = 0
        self._scores: list[NDArray[np.float32]] = []

    def add(self, found: PseudoObjects) -> None:
        """Count one more patch."""
        self._patches += 1
        self._rejected += found.rejected
        self._scores.append(found.scores)
        self._pixels += found.labels.size
        self._covered += int((found.labels > 0).sum())
        self._ignored += int((found.labels == IGNORED).sum())

    @property
    def health(self) -> Health:
        """Return what there is to say of it."""
        scores = np.concatenate(self._scores)
        return Health(
            patches=self._patches,
            kept=len(scores),
            rejected=self._rejected,
            mean_score=float(scores.mean()) if len(scores) else float("nan"),
            coverage=self._covered / self._pixels,
            ignored=self._ignored / self._pixels,
        )
