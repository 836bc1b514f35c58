"""Regions that people have drawn on a slide, in GeoJSON as QuPath exports it."""

from __future__ import annotations

import gzip
import logging
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
import shapely

from wsiseg.errors import DataError
from wsiseg.labels import IGNORE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.labels import Colour

logger = logging.getLogger(__name__)

# QuPath takes names that end in a star for no class.
_STAR: Final = "*"
_IGNORED: Final = "Ignore*"
# Shares of a box: a class that covers as much of it can be seen in it, and outlines are not drawn more exactly.
_SEEN: Final = 0.1
_SLOPPY: Final = 0.01
_AREA: Final = 2
_BRIGHTEST: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Annotations:
    """Regions with classes.

    Parameters
    ----------
    path
        Where they come from.
    regions
        Polygons, level-0 pixels counted from where QuPath counts, (R,).
    names
        The classes of each region, (R,); a region may be of several.
    colours
        What the classes are drawn in, where the file says it.
    skipped
        Objects that were left out, as they have no class or no area or are no annotations.
    """

    path: Path
    regions: NDArray[np.object_]
    names: tuple[tuple[str, ...], ...]
    colours: dict[str, Colour]
    skipped: int

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of all classes, sorted."""
        return tuple(sorted({name for names in self.names for name in names if name != _IGNORED}))

    def occurring(self, boxes: NDArray[np.float64], classes: Sequence[str]) -> NDArray[np.uint8]:
        """Return which classes occur in each box over whose centre a region lies.

        Parameters
        ----------
        boxes
            Left, top, right and bottom in the frame of the regions, (N, 4). A region's border belongs to it.
        classes
            Names of the columns.

        Returns
        -------
        NDArray[np.uint8]
            (N, C): 1 for the classes whose regions lie over the centre of a box or cover a tenth of it, 0 for those
            that do not cover it, and 255 for those in between. 255 for all where no region lies over
            the centre, or one of the class ``Ignore*``.

        Raises
        ------
        DataError
            If a region is of another class.
        """
        unknown = next((name for name in self.classes if name not in classes), None)
        if unknown is not None:
            raise DataError(
                f"a region is of the class {unknown!r}, which is none of {', '.join(classes)}",
                where=self.path,
                mend="Name all --classes, or change it in QuPath",
            )
        occurring = np.full((len(boxes), len(classes)), IGNORE, dtype=np.uint8)
        centres = shapely.points((boxes[:, :2] + boxes[:, 2:]) / 2)
        # The tree holds the centres: the regions are few, and each is prepared once.
        region, box = shapely.STRtree(centres).query(self.regions, predicate="intersects")
        labelled = np.unique(box)
        for column, name in enumerate(classes):
            shares = self._shares(boxes[labelled], name)
            occurring[labelled, column] = np.select([shares >= _SEEN, shares > _SLOPPY], [1, IGNORE], 0)
            occurring[box[self._is_of(name)[region]], column] = 1
        occurring[box[self._is_of(_IGNORED)[region]]] = IGNORE
        return occurring

    def _shares(self, boxes: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        """Return which part of each box the regions of a class cover, (N,)."""
        # What mends a crossed outline may leave lines beside areas.
        parts = shapely.get_parts(shapely.get_parts(self.regions[self._is_of(name)]))
        covered = shapely.union_all(parts[shapely.get_dimensions(parts) == _AREA])
        rectangles = shapely.box(*boxes.T)
        shares = np.zeros(len(boxes))
        tree = shapely.STRtree(rectangles)
        touched = tree.query(covered, predicate="intersects")
        inside = tree.query(covered, predicate="covers")
        edge = np.setdiff1d(touched, inside)
        shares[inside] = 1
        shares[edge] = shapely.area(shapely.intersection(rectangles[edge], covered)) / shapely.area(rectangles[edge])
        return shares

    def _is_of(self, name: str) -> NDArray[np.bool_]:
        return np.array([name in names for names in self.names], dtype=np.bool_)


def read_annotations(path: Path) -> Annotations:
    """Return the annotations with a class and an area.

    A class that is derived in QuPath, such as ``Tumor: Stroma``, stands for both of its parts. Classes
    whose names end in a star are none, except that ``Ignore*`` takes what it covers out. Colours are those that
    are given with a class alone: a derived class has one of its own. The first of several counts.

    Parameters
    ----------
    path
        ``.geojson`` or ``.json``, gzipped if it ends in ``.gz``: a FeatureCollection, a list of
        features, or one feature.

    Raises
    ------
    DataError
        If the file is missing, no GeoJSON, or a geometry is broken.
    """
    regions, all_names, skipped = [], [], 0
    drawn: dict[str, list[Colour]] = {}
    for number, feature in enumerate(_features(path), start=1):
        try:
            names = _names(feature)
            geometry = feature["geometry"] if names else None
            region = None if geometry is None else shapely.make_valid(shapely.from_geojson(orjson.dumps(geometry)))
        except (KeyError, TypeError, AttributeError, shapely.errors.GEOSException) as error:
            raise DataError(f"feature {number} is no valid GeoJSON", where=path) from error
        if region is None or not region.area > 0:
            skipped += 1
            continue
        regions.append(region)
        all_names.append(names)
        colour = _colour(feature["properties"]["classification"])
        if colour is not None and len(names) == 1:
            drawn.setdefault(names[0], []).append(colour)
    for name, given in drawn.items():
        if len(set(given)) > 1:
            logger.warning("%s: %r is drawn in %d colours; the first one counts", path, name, len(set(given)))
    array = np.empty(len(regions), dtype=np.object_)
    array[:] = regions
    colours = {name: given[0] for name, given in drawn.items()}
    return Annotations(path=path, regions=array, names=tuple(all_names), colours=colours, skipped=skipped)


def _features(path: Path) -> list[Any]:  # Any: whatever JSON says
    try:
        data = path.read_bytes()
        content = orjson.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except FileNotFoundError as error:
        raise DataError("there is no such file", where=path) from error
    except (OSError, EOFError, zlib.error, orjson.JSONDecodeError) as error:
        raise DataError(f"not GeoJSON: {error}", where=path, mend="Export it from QuPath as GeoJSON") from error
    if isinstance(content, dict):
        content = [content] if content.get("type") == "Feature" else content.get("features")
    if not isinstance(content, list):
        raise DataError("not GeoJSON: it holds no features", where=path, mend="Export it from QuPath as GeoJSON")
    return content


def _names(feature: Any) -> tuple[str, ...]:  # noqa: ANN401 - whatever JSON says
    """Return the classes of a feature; none if it has none or is no annotation."""
    properties = feature.get("properties") or {}
    if properties.get("objectType", "annotation") != "annotation":
        return ()
    classification = properties.get("classification")
    if not isinstance(classification, dict):
        names = [] if classification is None else [classification]
    elif "names" in classification:
        given = classification["names"]
        names = [given] if isinstance(given, str) else given
    else:
        names = [classification.get("name") or ""]
    parts = (part.strip() for name in names for part in name.split(":"))
    return tuple(part for part in parts if part and (part == _IGNORED or not part.endswith(_STAR)))


def _colour(classification: Any) -> Colour | None:  # noqa: ANN401 - whatever JSON says
    """Return the colour of a class as QuPath writes it, None where there is none."""
    if not isinstance(classification, dict):
        return None
    packed = classification.get("colorRGB")
    # Older versions pack opacity, red, green and blue into one number with a sign.
    given = classification.get("color", list((packed & 0xFFFFFF).to_bytes(3)) if isinstance(packed, int) else None)
    match given:
        # Opacity may come last.
        case [int(red), int(green), int(blue), *_] if 0 <= min(red, green, blue) <= max(red, green, blue) <= _BRIGHTEST:
            return red, green, blue
        case _:
            return None
