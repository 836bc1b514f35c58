"""Outlines of objects in the XML that Aperio ImageScope writes, and that MoNuSeg is published in."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

import numpy as np
from skimage.draw import polygon

from wsiseg.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.geometry import Size

logger = logging.getLogger(__name__)

_CORNERS: Final = 3
# Annotators leave a stray outline here and there; more of them mean that the image was another one.
_STRAY: Final = 0.05


def read_outlines(path: Path) -> list[NDArray[np.float64]]:
    """Return the outlines of all regions, in the order of the file.

    Parameters
    ----------
    path
        ``Annotations`` whose elements ``Region`` hold elements ``Vertex`` with ``X`` and ``Y``.

    Returns
    -------
    list of NDArray[np.float64]
        For each region its corners (V, 2) as x and y, in pixels of the image: pixel (0, 0) reaches from 0 to 1.

    Raises
    ------
    DataError
        If the file is missing or broken, is no such XML, or a vertex has no place.
    """
    mend = "Export it from ImageScope anew, or fetch it again"
    try:
        root = ET.parse(path).getroot()  # noqa: S314 - labels that the user chose, and expat stops what swells
    except FileNotFoundError as error:
        raise DataError("there is no such file", where=path) from error
    except (OSError, ET.ParseError, ValueError) as error:
        raise DataError(f"broken XML: {error}", where=path, mend=mend) from error
    if root.tag != "Annotations":
        raise DataError(f"not Aperio XML: begins with {root.tag} instead of Annotations", where=path, mend=mend)
    outlines = []
    for number, region in enumerate(root.iter("Region"), start=1):
        try:
            corners = [(float(vertex.attrib["X"]), float(vertex.attrib["Y"])) for vertex in region.iter("Vertex")]
        except (KeyError, ValueError) as error:
            raise DataError(f"region {number} has a vertex without X or Y", where=path, mend=mend) from error
        outline = np.array(corners, dtype=np.float64).reshape(-1, 2)
        if not np.isfinite(outline).all():
            raise DataError(f"region {number} has a vertex that is nowhere", where=path, mend=mend)
        outlines.append(outline)
    return outlines


def draw_outlines(outlines: Sequence[NDArray[np.float64]], size: Size, *, where: Path) -> NDArray[np.int32]:
    """Return a map of objects, numbered from 1 in the order of their outlines.

    A pixel belongs to an object if its centre lies inside. Where outlines overlap it belongs to the
    first, as in the maps that the organisers of MoNuSeg make of them [1]_.

    Parameters
    ----------
    outlines
        See `read_outlines`.
    size
        Size of the image; what lies beyond is cut off.
    where
        Where they come from, for messages.

    Returns
    -------
    NDArray[np.int32]
        (H, W); 0 where no object is.

    Raises
    ------
    DataError
        If more than a twentieth of the outlines lies outside the image.

    References
    ----------
    .. [1] Kumar et al., "A Dataset and a Technique for Generalized Nuclear Segmentation for Computational
       Pathology", IEEE Transactions on Medical Imaging 36(7), 2017.
    """
    objects = np.zeros((size.height, size.width), dtype=np.int32)
    outside = 0
    for number, outline in reversed(list(enumerate(outlines, start=1))):
        if len(outline) < _CORNERS:
            continue
        outside += bool((outline.max(axis=0) <= 0).any() or (outline.min(axis=0) >= (size.width, size.height)).any())
        # Pixels are at whole numbers there, and their centres half a pixel from their corners here.
        x, y = outline.T - 0.5
        objects[polygon(y, x, shape=objects.shape)] = number  # type: ignore[no-untyped-call]
    if outside > _STRAY * len(outlines):
        raise DataError(
            f"{outside} of {len(outlines)} outlines lie outside the image of {size} pixels",
            where=where,
            mend="They were drawn on another image, or on this one at another size",
        )
    lost = len(outlines) - (len(np.unique(objects)) - int((objects == 0).any()))
    if lost:
        logger.warning("%s: %d of %d outlines have no pixel of their own", where, lost, len(outlines))
    return objects
