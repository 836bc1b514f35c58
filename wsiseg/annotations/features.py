"""The features of a GeoJSON file, as QuPath and this package write them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
import shapely

from wsiseg.annotations.files import ORIGINS, load_geojson, metadata_of
from wsiseg.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wsiseg.labels import Colour

logger = logging.getLogger(__name__)

# QuPath takes names that end in a star for no class, and has two of a meaning of their own.
_STAR: Final = "*"
IGNORED: Final = "Ignore*"
_REGION: Final = "Region*"
_AREA: Final = 2
_BRIGHTEST: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Feature:
    """One feature.

    Parameters
    ----------
    number
        Its place in the file, from 1.
    area
        Polygon or MultiPolygon, level-0 pixels counted from where QuPath counts; None if it covers nothing.
    kind
        What QuPath takes it for: ``annotation``, ``detection``, ``cell``, …
    names
        The names in its class; ``Tumor: Stroma`` is of two.
    is_region
        Whether it tells where everything was drawn: an annotation of the class ``Region*``.
    colour
        What it is drawn in, if its class says so.
    """

    number: int
    area: shapely.Geometry | None
    kind: str
    names: tuple[str, ...]
    is_region: bool
    colour: Colour | None

    @property
    def classes(self) -> tuple[str, ...]:
        """Return its classes; names that end in a star are none, but for ``Ignore*``."""
        return tuple(name for name in self.names if name == IGNORED or not name.endswith(_STAR))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureFile:
    """The features of a file.

    Parameters
    ----------
    path
        The file.
    features
        All of them, in order.
    origin
        What the file says that coordinates are counted from, ``bounds`` or ``level0``; None if it says nothing. Where
        it says nothing of all, as when QuPath has written it, features that all say the same are believed.
    """

    path: Path
    features: tuple[Feature, ...]
    origin: str | None


def read_features(path: Path) -> FeatureFile:
    """Return the features of a file.

    The outline of a cell is that of its nucleus, if it has one. Outlines that cross themselves are mended, and parts
    that overlap become one: what was drawn twice was drawn.

    Parameters
    ----------
    path
        See `wsiseg.annotations.files.load_geojson`.

    Raises
    ------
    DataError
        If the file is missing, no GeoJSON, or a feature is broken.
    """
    content = load_geojson(path)
    features = []
    for number, feature in enumerate(content.features, start=1):
        try:
            features.append(_feature(number, feature))
        except (KeyError, TypeError, AttributeError, shapely.errors.GEOSException) as error:
            raise DataError(f"feature {number} is no valid GeoJSON", where=path) from error
    origin = content.origin or _common_origin(content.features, where=path)
    return FeatureFile(path=path, features=tuple(features), origin=origin)


def is_region(properties: Any) -> bool:  # noqa: ANN401 - whatever JSON says
    """Tell whether a feature with these properties is an annotation of the class ``Region*``."""
    is_annotation = properties.get("objectType", "annotation") == "annotation"
    return is_annotation and _REGION in _names(properties.get("classification"))


def class_colours(features: Sequence[Feature], *, where: Path) -> dict[str, Colour]:
    """Return what classes are drawn in; the first of several colours counts, and is warned of."""
    drawn: dict[str, list[Colour]] = {}
    for feature in features:
        # A derived class has a colour of its own.
        if feature.colour is not None and len(feature.classes) == 1:
            drawn.setdefault(feature.classes[0], []).append(feature.colour)
    for name, given in drawn.items():
        if len(set(given)) > 1:
            logger.warning("%s: %r is drawn in %d colours; the first one counts", where, name, len(set(given)))
    return {name: given[0] for name, given in drawn.items()}


def polygons_of(area: shapely.Geometry) -> list[shapely.Polygon]:
    """Return the polygons of an area, without lines that mending has left beside them."""
    parts = shapely.get_parts(shapely.get_parts(area))
    return [part for part in parts if shapely.get_dimensions(part) == _AREA]


def _common_origin(features: Sequence[Any], *, where: Path) -> str | None:
    """Return the origin that all features name that name one; None if they differ, which is warned of."""
    told = {origin for feature in features if (origin := metadata_of(feature).get("origin")) in ORIGINS}
    if len(told) > 1:
        logger.warning("%s: features are counted from bounds and from level0; --qupath-origin decides", where)
    return next(iter(told)) if len(told) == 1 else None


def _feature(number: int, feature: Any) -> Feature:  # noqa: ANN401 - whatever JSON says
    properties = feature.get("properties") or {}
    classification = properties.get("classification")
    return Feature(
        number=number,
        area=_area(feature.get("nucleusGeometry") or feature["geometry"]),
        kind=properties.get("objectType", "annotation"),
        names=_names(classification),
        is_region=is_region(properties),
        colour=_colour(classification),
    )


def _area(geometry: Any) -> shapely.Geometry | None:  # noqa: ANN401 - whatever JSON says
    if geometry is None:
        return None
    area = shapely.from_geojson(orjson.dumps(geometry))
    # What is valid stays as it is, to the last corner.
    if not shapely.is_valid(area):
        # By lines alone, what an outline covers twice would become a hole.
        area = shapely.make_valid(area, method="structure", keep_collapsed=False)
    if shapely.get_type_id(area) == shapely.GeometryType.GEOMETRYCOLLECTION:
        # Its parts are valid, but may overlap.
        area = shapely.union_all(polygons_of(area))
    return area if area.area > 0 else None


def _names(classification: Any) -> tuple[str, ...]:  # noqa: ANN401 - whatever JSON says
    """Return the names in a classification."""
    if not isinstance(classification, dict):
        names = [] if classification is None else [classification]
    elif "names" in classification:
        given = classification["names"]
        names = [given] if isinstance(given, str) else given
    else:
        names = [classification.get("name") or ""]
    parts = (part.strip() for name in names for part in name.split(":"))
    return tuple(part for part in parts if part)


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
