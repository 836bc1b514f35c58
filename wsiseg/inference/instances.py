"""Objects that do not know where the tiles were.

The objects of a unit are found in its context: the final output of the unit and a margin
around it. All contexts are cut from one and the same output and finding objects is local,
so neighbouring contexts agree about an object between them, and the unit that holds its
centroid owns it. Where they disagree after all, the pixels go to whoever comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.inference.bands import CLAIMED
from wsiseg.objects import Objects

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.geometry import Window
    from wsiseg.inference.bands import Bands
    from wsiseg.inference.walk import Walk
    from wsiseg.methods.base import Predictor

# An object that would keep less than this share of its pixels is the neighbour's object seen twice.
_MIN_KEPT: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Context:
    """The output in which the objects of one unit are found.

    Parameters
    ----------
    unit, window
        The unit and its context, in canvas pixels.
    maps
        float16 (channels, H, W), final.
    is_analysed
        bool (H, W); objects end at its border.
    """

    unit: Window
    window: Window
    maps: NDArray[np.float16]
    is_analysed: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """The objects of one unit, numbered from 1 in the order the head gives them.

    Parameters
    ----------
    window
        The context.
    labels
        int32 (H, W) over the context.
    classes
        uint8 (n + 1,), class of each object; entry 0 is background.
    scores
        float32 (n + 1,).
    """

    window: Window
    labels: NDArray[np.int32]
    classes: NDArray[np.uint8]
    scores: NDArray[np.float32]


class Contexts:
    """Keeps the margins of final blocks and puts contexts together from them.

    Parameters
    ----------
    walk
        The geometry, with a margin.
    background
        A value for each channel of the output, which together say that a pixel belongs to no object.
    """

    def __init__(self, walk: Walk, *, background: tuple[float, ...]) -> None:
        self._walk = walk
        self._nothing = np.array(background, dtype=np.float16)[:, None, None]
        self._keep = 2 * walk.margin_px
        self._above = self._background(self._keep, walk.canvas.width)
        self._left = self._above[:, :, :0]
        # Whether anything but background is kept above each column, and on the left.
        self._has_above = np.zeros(walk.grid.columns, dtype=np.bool_)
        self._has_left = False

    def push(
        self, row: int, column: int, block: NDArray[np.float32] | None, is_analysed: NDArray[np.bool_] | None
    ) -> NDArray[np.float16] | None:
        """Add a final block and return the maps of the context of the unit at the same place.

        Parameters
        ----------
        row, column
            Place in the grid; row by row, left to right, none left out.
        block
            (channels, H, W) of ``walk.block(row, column)``, or None where no tile has been.
        is_analysed
            bool (H, W) of the block; the rest counts as background. Needed where there is a block.

        Returns
        -------
        NDArray[np.float16] or None
            (channels, H, W) of ``walk.context(row, column)``, or None where all is background.
        """
        window = self._walk.block(row, column)
        if column == 0:
            self._left, self._has_left = self._above[:, :, :0], False
        is_empty = block is None and not self._has_left and not self._has_above[column]
        if is_empty:
            self._left = self._left[:, :, :0]
            return None
        final = self._background(window.height, window.width)
        if block is not None and is_analysed is not None:
            np.copyto(final, block, where=is_analysed, casting="same_kind")
        above = self._above[:, max(0, self._keep - window.y) :, window.x : window.right]
        tall = np.concatenate((above, final), axis=1)
        kept = tall[:, -self._keep :]
        self._above[:, self._keep - kept.shape[1] :, window.x : window.right] = kept
        left = self._left
        width = min(self._keep, window.x)
        if left.shape[1:] != (tall.shape[1], width):
            left = self._background(tall.shape[1], width)
        wide = np.concatenate((left, tall), axis=2)
        self._left = wide[:, :, -self._keep :].copy()
        self._has_left = (
            block is not None or bool(self._has_above[column]) or (self._has_left and window.width < self._keep)
        )
        self._has_above[column] = block is not None or (self._has_above[column] and window.height < self._keep)
        context = self._walk.context(row, column)
        return wide[:, -context.height :, -context.width :]

    def _background(self, height: int, width: int) -> NDArray[np.float16]:
        return np.tile(self._nothing, (1, height, width))


def find_objects(predictor: Predictor, context: Context) -> Found:
    """Return the objects whose centroids lie in the context's unit."""
    found = predictor.decode(context.maps.astype(np.float32))
    labels = np.where(context.is_analysed, found.labels, 0)
    count = int(found.labels.max(initial=0))
    # Flat indices come several times faster than pairs.
    pixels = np.flatnonzero(labels)
    rows, columns = np.divmod(pixels.astype(np.int32), np.int32(labels.shape[1]))
    at = labels.ravel()[pixels]
    areas = np.bincount(at, minlength=count + 1)
    # Sums of whole numbers on the canvas are exact, so all contexts see one and the same centroid.
    with np.errstate(invalid="ignore"):
        x = np.bincount(at, weights=columns + context.window.x, minlength=count + 1) / areas + 0.5
        y = np.bincount(at, weights=rows + context.window.y, minlength=count + 1) / areas + 0.5
    unit = context.unit
    is_owned = (unit.x <= x) & (x < unit.right) & (unit.y <= y) & (y < unit.bottom)
    is_owned[0] = False
    number = np.cumsum(is_owned, dtype=np.int32) * is_owned
    owned = np.flatnonzero(is_owned)
    background = np.zeros(1)
    return Found(
        window=context.window,
        labels=number[labels].astype(np.int32, copy=False),
        classes=np.concatenate((background, found.classes[owned - 1])).astype(np.uint8),
        scores=np.concatenate((background, found.scores[owned - 1])).astype(np.float32),
    )


def paint_objects(found: Found, bands: Bands, *, first_id: int) -> Objects:
    """Paint objects into the layers ``instances`` and ``classes`` and return them.

    An object gets the pixels that no earlier unit has claimed, whether or not the claim came
    to anything, so its pixels depend on its neighbours alone.

    Parameters
    ----------
    found
        The objects of one unit.
    bands
        Where to paint.
    first_id
        Id of the first object; the others follow without gaps.
    """
    count = len(found.classes) - 1
    if count == 0:
        return Objects.empty()
    taken = bands.get("instances", found.window)
    pixels = np.flatnonzero(found.labels)
    at = found.labels.ravel()[pixels]
    free = pixels[taken.ravel()[pixels] == 0]
    free_at = found.labels.ravel()[free]
    areas, kept = np.bincount(at, minlength=count + 1), np.bincount(free_at, minlength=count + 1)
    is_kept = kept >= np.maximum(1, _MIN_KEPT * areas)
    is_kept[0] = False
    ids = np.where(is_kept, np.cumsum(is_kept) + (first_id - 1), CLAIMED).astype(np.uint32)
    painted = np.zeros(found.labels.shape, dtype=np.uint32)
    painted.ravel()[free] = ids[free_at]
    bands.paint("instances", found.window, painted, where=painted > 0)
    painted[painted == CLAIMED] = 0
    bands.paint("classes", found.window, found.classes[found.labels], where=painted > 0)
    table = Objects.measured(painted, x=found.window.x, y=found.window.y)
    return Objects.from_rows(_with_classes(table, found.classes[is_kept], found.scores[is_kept]))


def _with_classes(table: Objects, classes: NDArray[np.uint8], scores: NDArray[np.float32]) -> NDArray[np.void]:
    rows = table.to_rows()
    rows["label"], rows["score"] = classes, scores
    return rows
