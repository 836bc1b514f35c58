"""All that is made of outlines, in one pass over the predicted labels."""

from __future__ import annotations

import importlib.util
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

from wsiseg.errors import ConfigError
from wsiseg.inference.geojson import geojson_writer
from wsiseg.inference.measurements import object_table
from wsiseg.inference.parquet import parquet_writer
from wsiseg.inference.placing import Frame
from wsiseg.inference.polygons import (
    OBJECT_TOLERANCE_PX,
    REGION_TOLERANCE_PX,
    object_shapes,
    region_shapes,
)
from wsiseg.progress import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from wsiseg.geometry import Canvas, Region, Window
    from wsiseg.inference.polygons import Shapes
    from wsiseg.labels import LabelMap
    from wsiseg.objects import Objects
    from wsiseg.progress import Progress

PolygonFormat = Literal["geojson", "geojson.gz", "parquet", "none"]
Origin = Literal["bounds", "level0"]

POLYGONS_STEM: Final = "polygons"
OBJECTS_FILE: Final = "objects.csv"


def check_polygon_format(polygons: str) -> PolygonFormat:
    """Return `polygons` if such files can be written here, before any work is done.

    Raises
    ------
    ConfigError
        If it is no format, or one whose library is not installed.
    """
    if polygons not in get_args(PolygonFormat):
        raise ConfigError(
            f"{polygons!r} is not a format for polygons", mend=f"Use one of {', '.join(get_args(PolygonFormat))}"
        )
    if polygons == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError("GeoParquet needs pyarrow, which is not installed", mend="Run: pip install 'wsiseg[parquet]'")
    return cast("PolygonFormat", polygons)


def polygon_origin(asked: Origin, bounds: Region | None) -> tuple[Origin, tuple[int, int]]:
    """Return what coordinates are counted from, and its level-0 place.

    Parameters
    ----------
    asked
        ``bounds``: the corner of the scanned part, to which QuPath crops slides that name one.
    bounds
        That part, or None where the slide names none.
    """
    if asked == "bounds" and bounds is not None and (bounds.x, bounds.y) != (0, 0):
        return "bounds", (bounds.x, bounds.y)
    return "level0", (0, 0)


def export_shapes(
    folder: Path,
    *,
    slide_id: str,
    canvas: Canvas,
    labels: LabelMap,
    read_classes: Callable[[Window], NDArray[np.unsignedinteger]],
    read_instances: Callable[[Window], NDArray[np.unsignedinteger]] | None = None,
    objects: Objects | None = None,
    polygons: PolygonFormat = "geojson",
    simplify: float | None = None,
    origin: Origin = "bounds",
    bounds: Region | None = None,
    progress: Progress = SILENT,
) -> list[Path]:
    """Write the polygons of one slide and, for instance models, the table of its objects.

    Parameters
    ----------
    folder
        Gets ``polygons.<format>`` and ``objects.csv``.
    slide_id
        Part of the polygons' ids.
    canvas, labels
        What the layers mean.
    read_classes
        Gives a window of class indices, uint8 (H, W), 254 = no class, 255 = not analysed.
    read_instances, objects
        Give a window of object ids, uint32 (H, W), and the table of these objects; both or neither.
    polygons
        Format, or ``none`` to write only the table.
    simplify
        Tolerance in canvas px, 0 for exact sides of pixels; by default 1 for regions and 0.4 for objects.
    origin, bounds
        See `polygon_origin`.
    progress
        Told how many shapes are done.

    Returns
    -------
    list[Path]
        The files written.
    """
    named, corner = polygon_origin(origin, bounds)
    frame = Frame(canvas=canvas, origin=corner)
    written: list[Path] = []
    with ExitStack() as stack:
        sinks: list[Callable[[Shapes], None]] = []
        if polygons != "none":
            path = folder / f"{POLYGONS_STEM}.{polygons}"
            writer = (
                parquet_writer(path, slide_id=slide_id, labels=labels, origin=named, unit=frame.unit)
                if polygons == "parquet"
                else geojson_writer(path, slide_id=slide_id, labels=labels, origin=named)
            )
            sinks.append(stack.enter_context(writer))
            written.append(path)
        if objects is not None:
            path = folder / OBJECTS_FILE
            sinks.append(stack.enter_context(object_table(path, labels=labels, objects=objects, frame=frame)))
            written.append(path)
        advance = stack.enter_context(progress.task("polygons", total=None, unit="shapes"))
        for shapes in _shapes(
            frame,
            labels,
            read_classes,
            read_instances,
            objects,
            simplify=simplify,
            wants_regions=polygons != "none",
        ):
            for sink in sinks:
                sink(shapes)
            advance(len(shapes.index))
    return written


def _shapes(
    frame: Frame,
    labels: LabelMap,
    read_classes: Callable[[Window], NDArray[np.unsignedinteger]],
    read_instances: Callable[[Window], NDArray[np.unsignedinteger]] | None,
    objects: Objects | None,
    *,
    simplify: float | None,
    wants_regions: bool,
) -> Iterator[Shapes]:
    has_objects = read_instances is not None and objects is not None
    if wants_regions:
        # The regions of an instance model would be its objects once more.
        yield from region_shapes(
            read_classes,
            frame,
            labels=None if has_objects else labels,
            tolerance=REGION_TOLERANCE_PX if simplify is None else simplify,
        )
    if read_instances is not None and objects is not None:
        tolerance = OBJECT_TOLERANCE_PX if simplify is None else simplify
        yield from object_shapes(read_instances, frame, objects=objects, tolerance=tolerance)
