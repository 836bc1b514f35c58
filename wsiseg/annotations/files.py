"""Files of GeoJSON, packed or not, as QuPath and this package write them."""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from wsiseg.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

ORIGINS: Final = ("bounds", "level0")
_MEND: Final = "Export it from QuPath as GeoJSON"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GeoJson:
    """What a file holds.

    Parameters
    ----------
    features
        All of them, in order, as JSON says it; they may be broken.
    origin
        What the file as a whole says that coordinates are counted from, one of `ORIGINS`; None if it says nothing.
    """

    features: list[Any]  # Any: JSON
    origin: str | None


def load_geojson(path: Path) -> GeoJson:
    """Return what a file holds.

    Parameters
    ----------
    path
        ``.geojson`` or ``.json``, gzipped if it ends in ``.gz``, or the only one of them in a ``.zip``: a
        FeatureCollection, a list of features, or one feature.

    Raises
    ------
    DataError
        If the file is missing or no GeoJSON.
    """
    content = _content(path)
    origin = None
    if isinstance(content, dict):
        about = content.get("metadata")
        origin = about.get("origin") if isinstance(about, dict) else None
        content = [content] if content.get("type") == "Feature" else content.get("features")
    if not isinstance(content, list):
        raise DataError("not GeoJSON: it holds no features", where=path, mend=_MEND)
    return GeoJson(features=content, origin=origin if origin in ORIGINS else None)


def metadata_of(feature: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON says
    """Return the metadata of a feature; QuPath keeps it, unlike that of the whole file."""
    properties = feature.get("properties") if isinstance(feature, dict) else None
    metadata = properties.get("metadata") if isinstance(properties, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _content(path: Path) -> Any:  # noqa: ANN401 - whatever JSON says
    try:
        return _parsed(_unpacked(path))
    except FileNotFoundError as error:
        raise DataError("there is no such file", where=path) from error
    # Encrypted zips, and JSON that is nested too deeply, are errors at run time.
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, ValueError) as error:
        raise DataError(f"not GeoJSON: {error}", where=path, mend=_MEND) from error


def _unpacked(path: Path) -> bytes:
    match path.suffix.lower():
        case ".gz":
            return gzip.decompress(path.read_bytes())
        case ".zip":
            with zipfile.ZipFile(path) as archive:
                # What macOS adds for itself is hidden.
                names = [
                    name
                    for name in archive.namelist()
                    if name.lower().endswith((".geojson", ".json")) and not name.rpartition("/")[2].startswith(".")
                ]
                if len(names) != 1:
                    raise DataError(
                        f"the zip holds {len(names)} files of GeoJSON, not one",
                        where=path,
                        mend=f"{_MEND}, or unpack it",
                    )
                return archive.read(names[0])
        case _:
            return path.read_bytes()


def _parsed(data: bytes) -> Any:  # noqa: ANN401 - whatever JSON says
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        # Slower, but it takes NaN, as older versions of QuPath write it, and byte order marks.
        return json.loads(data)
