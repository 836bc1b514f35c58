"""Which classes occur in patches, by the annotations that cover them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import shapely

from wsiseg.annotations.features import IGNORED, class_colours, polygons_of, read_features
from wsiseg.errors import DataError
from wsiseg.labels import IGNORE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.labels import Colour

# Shares of a box: a class that covers as much of it can be seen in it, and outlines are not drawn more exactly.
_SEEN: Final = 0.1
_SLOPPY: Final = 0.01


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
    origin
        What the file says that coordinates are counted from; None if it says nothing.
    """

    path: Path
    regions: NDArray[np.object_]
    names: tuple[tuple[str, ...], ...]
    colours: dict[str, Colour]
    skipped: int
    origin: str | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of all classes, sorted."""
        return tuple(sorted({name for names in self.names for name in names if name != IGNORED}))

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
        occurring[box[self._is_of(IGNORED)[region]]] = IGNORE
        return occurring

    def _shares(self, boxes: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        """Return which part of each box the regions of a class cover, (N,)."""
        covered = shapely.union_all([part for area in self.regions[self._is_of(name)] for part in polygons_of(area)])
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
        See `wsiseg.annotations.features.read_features`.

    Raises
    ------
    DataError
        If the file is missing, no GeoJSON, or a geometry is broken.
    """
    found = read_features(path)
    drawn = [one for one in found.features if one.kind == "annotation" and one.classes and one.area is not None]
    regions = np.empty(len(drawn), dtype=np.object_)
    regions[:] = [one.area for one in drawn]
    return Annotations(
        path=path,
        regions=regions,
        names=tuple(one.classes for one in drawn),
        colours=class_colours(drawn, where=path),
        skipped=len(found.features) - len(drawn),
        origin=found.origin,
    )
