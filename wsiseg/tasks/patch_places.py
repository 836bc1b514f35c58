"""Where patches lie on slides and images, and what of them is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.labels import IGNORE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.training.sources import Source

# Edges of stores of different resolutions that are one edge may differ so much.
_SLIGHT_PX: Final = 1e-3


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
    rows, columns = np.nonzero(_is_known(source, index))
    if len(rows) == 0:
        return box
    edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    scale = (box[2:] - box[:2]) / (width, height)
    found: NDArray[np.float64] = np.tile(box[:2], 2) + edges * np.tile(scale, 2)
    return found


def is_set_aside(source: Source, index: int) -> bool:
    """Tell whether a patch with labels is to be ignored whole."""
    return not _is_known(source, index).any()


def _is_known(source: Source, index: int) -> NDArray[np.bool_]:
    """Return of which pixels of a patch with labels something is known, (H, W)."""
    width, height = source.patches.extents[index].tolist()
    labels = source.patches.read_labels(source.layer, [index])[0, :height, :width]
    known: NDArray[np.bool_] = labels >= 0 if source.kind == "instances" else labels != IGNORE
    return known


def _boxes(store: PatchSet) -> NDArray[np.float64]:
    """Return the places of all patches of a store."""
    boxes = []
    for one in store.stores:
        # Of images the canvas is the image. Positions are rounded, so that patches that touch would seem to overlap.
        scale = 1.0 if one.meta.grid is None else one.meta.grid.downsample
        boxes.append(np.concatenate((one.windows, one.windows + one.extents), axis=1) * scale)
    return np.concatenate(boxes)
