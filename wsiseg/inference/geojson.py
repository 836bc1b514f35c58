"""Polygons as GeoJSON that QuPath and everything else opens, written as they come."""

from __future__ import annotations

import gzip
import uuid
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final, cast

import numpy as np
import orjson
import shapely

import wsiseg
from wsiseg.atomic import atomic_path
from wsiseg.inference.polygons import label_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wsiseg.inference.polygons import Shapes
    from wsiseg.labels import LabelMap

_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/wsiseg/wsiseg")


@contextmanager
def geojson_writer(path: Path, *, slide_id: str, labels: LabelMap, origin: str) -> Iterator[Callable[[Shapes], None]]:
    """Give a function that adds shapes to a FeatureCollection.

    The file appears whole or not at all, and equal shapes give equal bytes.

    Parameters
    ----------
    path
        Ends in ``.geojson``, or in ``.gz`` to be compressed.
    slide_id
        Part of every feature's id, so that the ids of two slides differ.
    labels
        Names and colours.
    origin
        What coordinates are counted from, ``level0`` or ``bounds``; noted in the file.
    """
    about = {"tool": f"wsiseg {wsiseg.__version__}", "origin": origin}
    is_first = True
    with atomic_path(path) as temporary, ExitStack() as stack:
        file: BinaryIO = stack.enter_context(temporary.open("wb"))
        if path.suffix == ".gz":
            # Neither name nor time inside, so that a re-run gives the same bytes.
            packed = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0)
            file = cast("BinaryIO", stack.enter_context(packed))
        file.write(b'{"type":"FeatureCollection","metadata":' + orjson.dumps(about) + b',"features":[')

        def add(shapes: Shapes) -> None:
            nonlocal is_first
            for line in _features(shapes, slide_id=slide_id, labels=labels, about=about):
                file.write(b"\n" if is_first else b",\n")
                file.write(line)
                is_first = False

        yield add
        file.write(b"\n]}\n")


def _features(shapes: Shapes, *, slide_id: str, labels: LabelMap, about: dict[str, str]) -> Iterator[bytes]:
    names = list(shapes.measurements)
    # Four decimals are finer than any of these is known.
    table = np.stack([np.round(shapes.measurements[name], 4) for name in names], axis=1)
    is_known = np.isfinite(table)
    classes = {}
    for index in np.unique(shapes.label).tolist():
        label = label_of(labels, index)
        classes[index] = orjson.Fragment(orjson.dumps({"name": label.name, "color": list(label.colour)}))
    # Many small detections are light; few annotations can say where they come from.
    common: dict[str, object] = (
        {"objectType": "detection"} if shapes.layer == "objects" else {"objectType": "annotation", "metadata": about}
    )
    if shapes.layer == "not analysed":
        common["isLocked"] = True
    rows = zip(
        shapes.index.tolist(),
        shapes.part.tolist(),
        shapes.label.tolist(),
        shapely.to_geojson(shapes.polygons),
        table.tolist(),
        is_known.tolist(),
        strict=True,
    )
    for index, part, label_index, geometry, numbers, known in rows:
        name = f"{slide_id}/{shapes.layer}/{index}" + (f"/{part}" if part else "")
        yield orjson.dumps(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(_NAMESPACE, name)),
                "geometry": orjson.Fragment(geometry),
                "properties": {
                    **common,
                    "classification": classes[label_index],
                    "measurements": {
                        what: number for what, number, is_finite in zip(names, numbers, known, strict=True) if is_finite
                    },
                },
            }
        )
