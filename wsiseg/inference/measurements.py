"""Tables of what a prediction found: one row per class, and one row per object."""

from __future__ import annotations

import csv
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypedDict

import numpy as np

from wsiseg.atomic import atomic_path
from wsiseg.geometry import Window
from wsiseg.inference.placing import Frame
from wsiseg.inference.polygons import label_of
from wsiseg.labels import IGNORE, NOT_ANALYSED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.geometry import Canvas
    from wsiseg.inference.polygons import Shapes
    from wsiseg.inference.seams import SeamCounter
    from wsiseg.labels import LabelMap
    from wsiseg.objects import Objects

WHOLE: Final = "All"
_BAND_PX: Final = 1 << 22
_UM2_PER_MM2: Final = 1e6


class _Sizes(TypedDict):
    objects: int | None
    mean_area_px: float | None
    median_area_px: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """What was found of one class.

    Parameters
    ----------
    name
        Of the class; ``All`` for everything analysed, ``Not analysed`` for the rest.
    area_px
        Canvas pixels.
    share
        Of the analysed area, 0 … 1; None for what was not analysed.
    objects
        How many; None for models without instances.
    mean_area_px, median_area_px
        Of the objects, canvas pixels; None where there are none.
    """

    name: str
    area_px: int
    share: float | None
    objects: int | None
    mean_area_px: float | None = None
    median_area_px: float | None = None


def count_classes(
    read: Callable[[Window], NDArray[np.unsignedinteger]], canvas: Canvas, *, seams: SeamCounter | None = None
) -> NDArray[np.int64]:
    """Return the number of canvas pixels of each value of a class layer, int64 (256,).

    Parameters
    ----------
    read, canvas
        Gives a window of the layer, and what it is a window of.
    seams
        Told all that is read, so that it is read once.
    """
    counts = np.zeros(256, dtype=np.int64)
    width, height = canvas.size.width, canvas.size.height
    rows = max(1, _BAND_PX // width)
    for top in range(0, height, rows):
        window = Window(0, top, width, min(rows, height - top))
        values = read(window)
        counts += np.bincount(values.ravel(), minlength=256)
        if seams is not None:
            seams.add(window, values)
    return counts


def summarise(
    counts: NDArray[np.int64],
    labels: LabelMap,
    *,
    objects: Objects | None,
    analysed_px: int | None = None,
) -> list[ClassRow]:
    """Return one row per class, one for everything and one for what was not analysed.

    Parameters
    ----------
    counts
        Pixels of each class, from `count_classes`.
    labels
        The classes; a background has no row of its own.
    objects
        The table of an instance model.
    analysed_px
        Canvas pixels that were looked at, such as the tissue; by default all but those of class 255.
    """
    analysed = int(counts.sum() - counts[IGNORE]) if analysed_px is None else analysed_px
    indices = [label.index for label in labels.labels if label.index != labels.no_class]
    rows = [
        ClassRow(
            name=label_of(labels, index).name,
            area_px=int(counts[index]),
            share=int(counts[index]) / analysed if analysed else None,
            **_sizes(objects, index),
        )
        for index in indices
    ]
    rows.append(ClassRow(name=WHOLE, area_px=analysed, share=1.0 if analysed else None, **_sizes(objects, None)))
    rows.append(ClassRow(name=NOT_ANALYSED, area_px=int(counts[IGNORE]), share=None, objects=None))
    return rows


def _sizes(objects: Objects | None, index: int | None) -> _Sizes:
    if objects is None:
        return {"objects": None, "mean_area_px": None, "median_area_px": None}
    areas = objects.area_px if index is None else objects.area_px[objects.label == index]
    if not len(areas):
        return {"objects": 0, "mean_area_px": None, "median_area_px": None}
    return {
        "objects": len(areas),
        "mean_area_px": float(np.mean(areas)),
        "median_area_px": float(np.median(areas)),
    }


def write_measurements(path: Path, rows: list[ClassRow], canvas: Canvas, *, tissue_px: float | None = None) -> None:
    """Write `rows` as CSV in mm² and µm², or in level-0 px where the slide has no physical scale.

    Parameters
    ----------
    path
        Ends in ``.csv``.
    rows
        From `summarise`.
    canvas
        What they count pixels of.
    tissue_px
        Canvas pixels of tissue in the analysed area, which has glass between and around it. None where tissue
        was not looked for, which leaves the columns about it empty.
    """
    frame = Frame(canvas=canvas)
    per_px = frame.unit_per_px**2
    big, large, small = ("mm2", _UM2_PER_MM2, "um2") if frame.unit == "µm" else ("megapixel", 1e6, "px")
    analysed = next(row.area_px for row in rows if row.name == WHOLE) * per_px / large
    tissue = None if tissue_px is None else tissue_px * per_px / large
    header = [
        "class",
        f"area_{big}",
        f"area_{small}",
        "share_of_analysed",
        "objects",
        f"objects_per_{big}_analysed",
        f"mean_object_area_{small}",
        f"median_object_area_{small}",
        f"tissue_{big}",
        f"objects_per_{big}_tissue",
    ]
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        for row in rows:
            table.writerow(
                [
                    row.name,
                    _number(row.area_px * per_px / large, 6),
                    _number(row.area_px * per_px, 2),
                    _number(row.share, 6),
                    "" if row.objects is None else row.objects,
                    _number(_per(row.objects, analysed), 2),
                    _number(None if row.mean_area_px is None else row.mean_area_px * per_px, 2),
                    _number(None if row.median_area_px is None else row.median_area_px * per_px, 2),
                    _number(None if row.name == NOT_ANALYSED else tissue, 6),
                    _number(_per(row.objects, tissue), 2),
                ]
            )


@contextmanager
def object_table(path: Path, *, labels: LabelMap, objects: Objects, frame: Frame) -> Iterator[Callable[[Shapes], None]]:
    """Give a function that adds objects to a CSV file, one row each; shapes of other layers are passed over.

    Centroids are level-0 pixels by the corner convention, counted from the frame's origin as in
    the polygons, and µm from the same point. The file appears whole or not at all.

    Parameters
    ----------
    path
        Ends in ``.csv``.
    labels
        Names of the classes.
    objects
        The table of the same objects.
    frame
        Where they lie.
    """
    by_id = np.argsort(objects.id, kind="stable")
    ids = objects.id[by_id]
    word = "um" if frame.unit == "µm" else "px"
    names = [f"Area {frame.unit}^2", f"Perimeter {frame.unit}", "Circularity", "Eccentricity", "Probability"]
    # Without a physical scale the centroid is known in pixels only.
    physical = ["x_um", "y_um"] if word == "um" else []
    header = [
        "id",
        "class",
        "x_px",
        "y_px",
        *physical,
        f"area_{word}2",
        f"perimeter_{word}",
        "circularity",
        "eccentricity",
        "probability",
    ]
    um_per_px = frame.unit_per_px / frame.canvas.scale.downsample
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)

        def add(shapes: Shapes) -> None:
            if shapes.layer != "objects":
                return
            row = by_id[np.searchsorted(ids, shapes.index.astype(np.uint32))]
            centre = frame.on_slide(np.stack([objects.cx[row], objects.cy[row]], axis=1))
            classes = {int(index): label_of(labels, int(index)).name for index in np.unique(shapes.label)}
            columns = [centre, centre * um_per_px] if physical else [centre]
            numbers = np.concatenate(
                [*columns, np.stack([shapes.measurements[name] for name in names], axis=1)], axis=1
            )
            for index, label, values in zip(
                shapes.index.tolist(), shapes.label.tolist(), np.round(numbers, 4).tolist(), strict=True
            ):
                # NaN is the only number that differs from itself; unknown is left empty.
                table.writerow([index, classes[label], *("" if value != value else value for value in values)])  # noqa: PLR0124

        yield add


def _per(objects: int | None, area: float | None) -> float | None:
    return objects / area if objects is not None and area else None


def _number(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"
