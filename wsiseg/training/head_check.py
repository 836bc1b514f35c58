"""How many labelled objects can come back from what a head makes of them, before a network learns it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.metrics.instances import tally_instances
from wsiseg.metrics.overlaps import count_overlaps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from wsiseg.heads.base import InstanceHead
    from wsiseg.training.sources import Patch, Source

logger = logging.getLogger(__name__)

# Pixels that are looked at in all, and the side of what is taken of one patch.
_PIXELS: Final = 2**20
_SIDE_PX: Final = 512
# An object is found where half of it is.
_IOU: Final = 0.5
# Of a head that suits its objects a few small ones are lost.
_FEW: Final = 0.95


def check_head(head: InstanceHead, sources: Sequence[Source]) -> str:
    """Return which share of objects a perfect network would find, in words; warn where that is little.

    What a head makes of labels is decoded at once. Objects that are lost then, as they are too small or touch
    others, cannot be learnt, and the scores of the rest are a ceiling of those to come.

    Parameters
    ----------
    head
        Of the model to be.
    sources
        What is learnt from with labels; a sample is looked at, at the resolution of training.

    Returns
    -------
    str
        Empty where no whole object was seen.
    """
    objects, found, tallies = 0, 0, []
    for patch in _sample(sources):
        targets = head.targets(patch.labels, patch.valid)
        pred = np.where(patch.valid, head.decode(head.perfect(targets)).labels, 0)
        overlaps = count_overlaps(pred, np.where(patch.valid, patch.labels, 0))
        is_whole = ~np.isin(overlaps.truth_labels, _at_border(patch.labels))
        is_found = np.zeros(len(is_whole), dtype=np.bool_)
        is_found[overlaps.truth_index[overlaps.ious > _IOU]] = True
        objects, found = objects + int(is_whole.sum()), found + int((is_whole & is_found).sum())
        tallies.append(tally_instances(overlaps))
    if not objects:
        return ""
    best = type(tallies[0]).stack(tallies).pool(np.ones(len(tallies), dtype=np.int64)).scores()["aji"]
    if found < _FEW * objects:
        logger.warning(
            "of %d labelled objects that were looked at, the head %s loses %.0f %%, whatever is learnt; if they are "
            "small, train at a finer --mpp, lower options.head_options.min_area_px, or take another --head",
            objects, head.kind, 100 * (1 - found / objects),
        )  # fmt: skip
    return f"{found / objects:.0%} of {objects} objects can come back from the head {head.kind}, AJI {best:.2f} at best"


def _sample(sources: Sequence[Source]) -> Iterator[Patch]:
    """Yield patches, or the middle of large ones, from all over the sources."""
    items = [(source, int(index)) for source in sources for index in source.indices]
    seen = 0
    for at in np.random.default_rng(0).permutation(len(items)):
        source, index = items[at]
        patch = _middle(source.whole(index))
        yield patch
        seen += patch.labels.size
        if seen >= _PIXELS:
            return


def _middle(patch: Patch) -> Patch:
    starts = (max(0, side - _SIDE_PX) // 2 for side in patch.labels.shape)
    part = tuple(slice(start, start + _SIDE_PX) for start in starts)
    return replace(patch, image=patch.image[part], labels=patch.labels[part], valid=patch.valid[part])


def _at_border(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the ids of what the border cuts, or may cut."""
    return np.unique(np.concatenate((labels[[0, -1]].ravel(), labels[:, [0, -1]].ravel())))
