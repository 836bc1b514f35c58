"""Where patches lie on slides and images, and what of them is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wsiseg.labels import IGNORE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.stores.patches import LayerKind
    from wsiseg.training.sources import Source

# Edges of stores of different resolutions that are one edge may differ so much.
_SLIGHT_PX: Final = 1e-3
# Patches whose labels are read at once.
_RUN: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Places:
    """Where some patches lie.

    Parameters
    ----------
    parents
        Names of their slides or images, (n,).
    boxes
        float64 (n, 4): left, top, right and bottom in level-0 pixels, not rounded.
    """

    parents: NDArray[np.object_]
    boxes: NDArray[np.float64]

    @classmethod
    def of(cls, parts: Sequence[tuple[PatchSet, Source]]) -> Places:
        """Return where the patches of sources lie; each source comes with the stores that it reads."""
        parents, boxes = [np.empty(0, dtype=np.object_)], [np.empty((0, 4))]
        for store, source in parts:
            parents.append(store.parents[source.indices])
            boxes.append(_boxes(store)[source.indices])
        return cls(parents=np.concatenate(parents), boxes=np.concatenate(boxes))

    def meets(self, parent: str, box: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which patches share pixels with a box (4,) on a slide or image, (n,)."""
        shared = np.minimum(self.boxes[:, 2:], box[2:]) - np.maximum(self.boxes[:, :2], box[:2])
        met: NDArray[np.bool_] = (shared > _SLIGHT_PX).all(axis=1) & (self.parents == parent)
        return met

    def hold(self, parent: str, box: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which patches hold all of a box (4,) on a slide or image, (n,)."""
        beyond = np.concatenate((self.boxes[:, :2] - box[:2], box[2:] - self.boxes[:, 2:]), axis=1)
        holding: NDArray[np.bool_] = (beyond < _SLIGHT_PX).all(axis=1) & (self.parents == parent)
        return holding


def known_box(source: Source, index: int, box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the part of a patch's box (4,) that holds all pixels of which something is known.

    Nothing is read of sources without a layer; all of their patches count, as do those that are to be ignored whole.
    """
    if not source.layer:
        return box
    width, height = source.patches.extents[index].tolist()
    labels = source.patches.read_labels(source.layer, [index])[0, :height, :width]
    rows, columns = np.nonzero(_known(source.kind, labels))
    if len(rows) == 0:
        return box
    edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    scale = (box[2:] - box[:2]) / (width, height)
    found: NDArray[np.float64] = np.tile(box[:2], 2) + edges * np.tile(scale, 2)
    return found


def are_repeats(parts: Sequence[tuple[PatchSet, Source]]) -> NDArray[np.bool_]:
    """Tell of which patches of sources no more is known than of another one, which holds all of it, (n,).

    What is annotated in one box is known to each patch that the box lies on. Labels are only read of patches that
    overlap others.
    """
    places = Places.of(parts)
    patches = [(source, index) for _, source in parts for index in source.indices.tolist()]
    found = np.zeros(len(patches), dtype=np.bool_)
    for parent in dict.fromkeys(places.parents.tolist()):
        own = np.flatnonzero(places.parents == parent)
        near = Places(parents=places.parents[own], boxes=places.boxes[own])
        known = replace(near, boxes=near.boxes.copy())
        for at, (source, index) in enumerate(patches[one] for one in own.tolist()):
            if near.meets(parent, near.boxes[at]).sum() > 1:
                known.boxes[at] = known_box(source, index, near.boxes[at])
        is_kept = np.ones(len(own), dtype=np.bool_)
        for at, box in enumerate(known.boxes):
            others = known.hold(parent, box) & is_kept
            others[at] = False
            is_kept[at] = not others.any()
        found[own] = ~is_kept
    return found


def are_set_aside(source: Source) -> NDArray[np.bool_]:
    """Tell which patches of a source are to be ignored whole, (n,); only their labels are read."""
    found = np.zeros(len(source.indices), dtype=np.bool_)
    for first in range(0, len(found), _RUN):
        run = source.indices[first : first + _RUN]
        labels, extents = source.patches.read_labels(source.layer, run), source.patches.extents[run].tolist()
        found[first : first + _RUN] = [
            not _known(source.kind, one[:height, :width]).any()
            for one, (width, height) in zip(labels, extents, strict=True)
        ]
    return found


def _known(kind: LayerKind, labels: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Return of which pixels of labels something is known."""
    known: NDArray[np.bool_] = labels >= 0 if kind == "instances" else labels != IGNORE
    return known


def _boxes(store: PatchSet) -> NDArray[np.float64]:
    """Return the places of all patches of a store."""
    boxes = []
    for one in store.stores:
        # Of images the canvas is the image. Positions are rounded, so that patches that touch would seem to overlap.
        scale = 1.0 if one.meta.grid is None else one.meta.grid.downsample
        boxes.append(np.concatenate((one.windows, one.windows + one.extents), axis=1) * scale)
    return np.concatenate(boxes)
