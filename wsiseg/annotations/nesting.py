"""Objects that hold others: outlines of tissue among those of nuclei."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import shapely

from wsiseg.annotations.drawing import parted
from wsiseg.errors import DataError

if TYPE_CHECKING:
    from wsiseg.annotations.features import FeatureFile

# Giant cells hold more nuclei than that, but are not most of what was drawn, nor do they fill a box with it.
_MANY: Final = 5


def check_objects(found: FeatureFile) -> None:
    """See that no object is an outline of a whole tissue, which would leave no background around the others.

    It is where it holds five others or more, and all of a box of the class ``Region*`` around them; where there are no
    boxes, more than half of all others.

    Parameters
    ----------
    found
        What shall become instances.

    Raises
    ------
    DataError
        If one is.
    """
    objects, regions, _ = parted(found)
    areas, boxes = (np.array([one.area for one in part], dtype=np.object_) for part in (objects, regions))
    outer, inner = shapely.STRtree(areas).query(areas, predicate="contains_properly")
    held = np.bincount(outer, minlength=len(objects))
    for at in np.flatnonzero(held).tolist():
        others = areas[inner[outer == at]]
        within = boxes[shapely.covers(areas[at], boxes)]
        is_among = shapely.intersects(within[:, None], others).any(axis=0)
        if (is_among.sum() if len(boxes) else held[at] * (2 * held[at] > len(areas))) >= _MANY:
            name = f" of the class {objects[at].classes[0]}" if objects[at].classes else ""
            raise DataError(
                f"feature {objects[at].number}{name} holds {held[at]} others: it is no object as these are",
                where=found.path,
                mend="Leave it out of the export, or give it a class whose name ends in a star",
            )
