"""Polygons as GeoParquet, for GeoPandas, DuckDB and the like."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import shapely

import wsiseg
from wsiseg.atomic import atomic_path
from wsiseg.errors import ConfigError
from wsiseg.inference.polygons import label_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wsiseg.inference.polygons import Shapes
    from wsiseg.labels import LabelMap


@contextmanager
def parquet_writer(
    path: Path, *, slide_id: str, labels: LabelMap, origin: str, unit: str
) -> Iterator[Callable[[Shapes], None]]:
    """Give a function that adds shapes to a GeoParquet file (version 1.1, WKB, no reference system).

    Parameters
    ----------
    path
        Ends in ``.parquet``; appears whole or not at all.
    slide_id
        A column, so that the files of several slides can be read as one table.
    labels
        Names and colours.
    origin
        What coordinates are counted from, ``level0`` or ``bounds``; noted in the file.
    unit
        Unit of lengths, ``µm`` or ``px``, part of the columns' names.

    Raises
    ------
    ConfigError
        If pyarrow is not installed.
    """
    pa, pq = _arrow()
    columns = _column_names(unit)
    about = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            # No reference system: these are pixels, not degrees, which the default would be.
            "geometry": {"encoding": "WKB", "geometry_types": ["Polygon", "MultiPolygon"], "crs": None}
        },
    }
    ours = {"tool": f"wsiseg {wsiseg.__version__}", "origin": origin}
    schema = pa.schema(
        [
            ("geometry", pa.binary()),
            ("slide_id", pa.string()),
            ("layer", pa.string()),
            ("index", pa.int64()),
            ("part", pa.int32()),
            ("class_index", pa.uint8()),
            ("class", pa.string()),
            *((name, pa.float64()) for name in columns.values()),
        ],
        metadata={"geo": orjson.dumps(about), "wsiseg": orjson.dumps(ours)},
    )
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:

        def add(shapes: Shapes) -> None:
            count = len(shapes.index)
            names = {int(index): label_of(labels, int(index)).name for index in np.unique(shapes.label)}
            arrays = {
                "geometry": shapely.to_wkb(shapes.polygons),
                "slide_id": [slide_id] * count,
                "layer": [shapes.layer] * count,
                "index": shapes.index,
                "part": shapes.part.astype(np.int32),
                "class_index": shapes.label.astype(np.uint8),
                "class": [names[index] for index in shapes.label.tolist()],
            }
            for name, column in columns.items():
                values = shapes.measurements.get(name, np.full(count, np.nan))
                arrays[column] = pa.array(values, mask=~np.isfinite(values))
            writer.write_table(pa.table(arrays, schema=schema))

        yield add


def _column_names(unit: str) -> dict[str, str]:
    word = {"µm": "um"}.get(unit, unit)
    return {
        f"Area {unit}^2": f"area_{word}2",
        f"Perimeter {unit}": f"perimeter_{word}",
        "Circularity": "circularity",
        "Eccentricity": "eccentricity",
        "Probability": "probability",
    }


def _arrow() -> tuple[Any, Any]:  # Any: pyarrow ships no types
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigError(
            "GeoParquet needs pyarrow, which is not installed", mend="Run: pip install 'wsiseg[parquet]'"
        ) from error
    return pa, pq
