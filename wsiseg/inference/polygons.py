"""From label canvases to polygons on the slide and what is known about them, in batches of bounded size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import shapely

from wsiseg.errors import StoreError
from wsiseg.inference.contours import trace
from wsiseg.inference.outlines import measure
from wsiseg.inference.placing import in_pieces, joined, mended, placed
from wsiseg.labels import IGNORE, NOT_ANALYSED, Label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from wsiseg.geometry import Window
    from wsiseg.inference.placing import Frame
    from wsiseg.inference.rings import Rings
    from wsiseg.labels import LabelMap
    from wsiseg.objects import Objects

Layer = Literal["regions", "objects", "not analysed"]

GREY: Final = (128, 128, 128)
REGION_TOLERANCE_PX: Final = 1.0
# The largest that changes the area of no nucleus of 4 px radius by more than 3 %.
OBJECT_TOLERANCE_PX: Final = 0.4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shapes:
    """Some polygons and what is known about them, one entry each.

    Parameters
    ----------
    layer
        What they are.
    index
        Names a shape within its layer: the object's id, or a region's first canvas pixel, row by row; int64 (N,).
    part
        0, or which piece of a region that was too large for one polygon; int64 (N,).
    label
        Class index, 255 = not analysed; int64 (N,).
    polygons
        Valid Polygon or MultiPolygon, level-0 px, (N,).
    measurements
        Finite numbers by name, with the unit in the name; float64 (N,). NaN where unknown.
    """

    layer: Layer
    index: NDArray[np.int64]
    part: NDArray[np.int64]
    label: NDArray[np.int64]
    polygons: NDArray[np.object_]
    measurements: dict[str, NDArray[np.float64]]


def label_of(labels: LabelMap, index: int) -> Label:
    """Return the name and colour of a class index, 255 included.

    Raises
    ------
    StoreError
        If the prediction holds a class that its own description lacks.
    """
    if index == IGNORE:
        return Label.model_construct(index=IGNORE, name=NOT_ANALYSED, colour=GREY)
    try:
        return labels[index]
    except KeyError as error:
        raise StoreError(
            f"the prediction holds class {index}, which the model does not have", mend="Predict the slide again"
        ) from error


def region_shapes(
    read: Callable[[Window], NDArray[np.unsignedinteger]],
    frame: Frame,
    *,
    labels: LabelMap | None,
    tolerance: float = REGION_TOLERANCE_PX,
    band_rows: int | None = None,
) -> Iterator[Shapes]:
    """Yield one polygon per connected region of a class canvas.

    Parameters
    ----------
    read
        Gives class indices, uint8 (H, W), 254 = no class, 255 = not analysed.
    frame
        Where they lie.
    labels
        The classes; what belongs to none of them and the background are left out. None: only what was not analysed.
    tolerance
        Smoothing in canvas px; 0 keeps the sides of the pixels.
    band_rows
        Canvas rows to hold at once.
    """
    # 0 means nothing to the tracer, so classes move up by one.
    values = np.zeros(256, dtype=np.uint16)
    values[IGNORE] = IGNORE + 1
    if labels is not None:
        values[:IGNORE] = np.arange(1, IGNORE + 1)
        values[labels.no_class] = 0
    smoothing = tolerance if labels is not None else 0.0
    for rings in trace(
        lambda window: values[read(window)], frame.canvas.size, shares_borders=smoothing > 0, band_rows=band_rows
    ):
        polygons = placed(rings, frame, tolerance=smoothing)
        measures = measure(rings)
        label = rings.value - 1
        parts, of = in_pieces(polygons, frame)
        is_whole = np.bincount(of, minlength=len(rings))[of] == 1
        scale = frame.unit_per_px
        area = np.where(
            is_whole,
            measures.area_px[of] * scale**2,
            shapely.area(parts) * (scale / frame.canvas.scale.downsample) ** 2,
        )
        measurements = {
            f"Area {frame.unit}^2": area,
            f"Perimeter {frame.unit}": np.where(is_whole, measures.perimeter_px[of] * scale, np.nan),
        }
        for layer, wanted in (("regions", label[of] != IGNORE), ("not analysed", label[of] == IGNORE)):
            if wanted.any():
                yield Shapes(
                    layer="regions" if layer == "regions" else "not analysed",
                    index=rings.pixel[of][wanted],
                    part=_counted(of)[wanted],
                    label=label[of][wanted],
                    polygons=parts[wanted],
                    measurements={name: numbers[wanted] for name, numbers in measurements.items()},
                )


def object_shapes(
    read: Callable[[Window], NDArray[np.unsignedinteger]],
    frame: Frame,
    *,
    objects: Objects,
    tolerance: float = OBJECT_TOLERANCE_PX,
    band_rows: int | None = None,
) -> Iterator[Shapes]:
    """Yield one polygon per object of an instance canvas; a MultiPolygon where it has several parts.

    Parameters
    ----------
    read
        Gives object ids, uint32 (H, W), 0 = background.
    frame
        Where they lie.
    objects
        The table of these objects, in any order.
    tolerance
        Smoothing in canvas px; 0 keeps the sides of the pixels.
    band_rows
        Canvas rows to hold at once.

    Raises
    ------
    StoreError
        If canvas and table disagree.
    """
    by_id = np.argsort(objects.id, kind="stable")
    ids = objects.id[by_id].astype(np.int64)
    missing = objects.area_px[by_id].astype(np.int64)
    waiting: Rings | None = None
    for traced in trace(read, frame.canvas.size, shares_borders=False, band_rows=band_rows):
        row = np.minimum(np.searchsorted(ids, traced.value), max(len(ids) - 1, 0))
        if not len(ids) or (ids[row] != traced.value).any():
            raise _disagreement()
        # An object is whole when all its pixels have been seen, in however many parts.
        missing -= np.bincount(row, weights=traced.area_px, minlength=len(ids)).astype(np.int64)
        rings = traced if waiting is None else waiting.followed_by(traced)
        row = np.searchsorted(ids, rings.value)
        is_whole = missing[row] <= 0
        if (missing[row] < 0).any():
            raise _disagreement()
        waiting = None if is_whole.all() else rings.take(np.flatnonzero(~is_whole))
        if is_whole.any():
            whole = np.flatnonzero(is_whole)
            yield _objects(rings.take(whole), by_id[row[whole]], objects, frame, tolerance)
    if (missing > 0).any():
        raise _disagreement()


def _disagreement() -> StoreError:
    return StoreError("the instance layer and its table of objects disagree", mend="Predict the slide again")


def _objects(rings: Rings, row: NDArray[np.intp], objects: Objects, frame: Frame, tolerance: float) -> Shapes:
    polygons = placed(rings, frame, tolerance=tolerance)
    measures = measure(rings)
    # Objects come in the order in which their last part was seen; shape is that of the largest part.
    by_object = np.lexsort((np.arange(len(row)), measures.area_px, row))
    is_main = np.concatenate([row[by_object[1:]] != row[by_object[:-1]], [True]])
    main = by_object[is_main]
    last = np.full(int(row.max()) + 1, -1)
    np.maximum.at(last, row, np.arange(len(row)))
    main = main[np.argsort(last[row[main]])]
    merged = polygons[main]
    parts = np.bincount(row, minlength=len(last))
    for several in np.flatnonzero(parts[row[main]] > 1):
        merged[several] = joined(polygons[row == row[main[several]]], frame)
        if not shapely.is_valid(merged[several]):
            (merged[several],) = mended(merged[several : several + 1], frame)
    table = objects[row[main]]
    scale = frame.unit_per_px
    perimeter = np.bincount(row, weights=measures.perimeter_px, minlength=len(last))[row[main]]
    return Shapes(
        layer="objects",
        index=table.id.astype(np.int64),
        part=np.zeros(len(table), dtype=np.int64),
        label=table.label.astype(np.int64),
        polygons=merged,
        measurements={
            f"Area {frame.unit}^2": np.asarray(table.area_px * scale**2, dtype=np.float64),
            f"Perimeter {frame.unit}": perimeter * scale,
            "Circularity": measures.circularity[main],
            "Eccentricity": measures.eccentricity[main],
            "Probability": table.score.astype(np.float64),
        },
    )


def _counted(of: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0, 1, 2, … within each run of equal numbers."""
    starts = np.flatnonzero(np.concatenate([[True], of[1:] != of[:-1]]))
    return np.arange(len(of)) - np.repeat(starts, np.diff(np.concatenate([starts, [len(of)]])))
