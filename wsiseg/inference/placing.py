"""Outlines of a canvas as valid polygons on the slide.

Coordinates are level-0 pixels by the corner convention: a canvas pixel (x, y) becomes the
square from (x, y) to (x + 1, y + 1) times the downsample, not rounded to whole pixels. They
are rounded to two decimals, on which QuPath snaps what it reads, and valid after that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import shapely

from wsiseg.inference.outlines import exact, smooth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.geometry import Canvas
    from wsiseg.inference.outlines import Outline
    from wsiseg.inference.rings import Rings

_MAX_CORNERS: Final = 100_000
_SLIVER_PX: Final = 0.1  # square canvas pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where the polygons of a canvas lie.

    Parameters
    ----------
    canvas
        The grid of the labels.
    origin
        Level-0 pixel that is (0, 0) in the output: the corner of the scanned bounds for viewers that
        crop to them, else (0, 0).
    """

    canvas: Canvas
    origin: tuple[int, int] = (0, 0)

    @property
    def unit(self) -> str:
        """Return the unit of lengths: µm, or level-0 px where the slide has no physical scale."""
        return "px" if self.canvas.mpp is None else "µm"

    @property
    def unit_per_px(self) -> float:
        """Return the length of a canvas pixel in `unit`."""
        return self.canvas.scale.downsample if self.canvas.mpp is None else self.canvas.mpp

    @property
    def sliver(self) -> float:
        """Return the area below which a piece is left over from mending, square level-0 px."""
        return _SLIVER_PX * self.canvas.scale.downsample**2

    def on_slide(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return canvas points (N, 2) as level-0 points, two decimals, counted from the origin."""
        placed = points * self.canvas.scale.downsample - np.asarray(self.origin, dtype=np.float64)
        # Adding zero turns -0.0 into 0.0.
        rounded: NDArray[np.float64] = np.round(placed, 2) + 0.0
        return rounded


def placed(rings: Rings, frame: Frame, *, tolerance: float) -> NDArray[np.object_]:
    """Return a valid polygon on the slide for each region.

    Parameters
    ----------
    rings
        Outlines of N regions, canvas px.
    frame
        Where they lie.
    tolerance
        Smoothing in canvas px; 0 keeps the sides of the pixels.

    Returns
    -------
    NDArray[np.object_]
        Polygons or MultiPolygons, level-0 px, (N,).
    """
    if tolerance <= 0:
        return _assembled(rings, exact(rings), frame)
    polygons = _assembled(rings, smooth(rings, tolerance=tolerance), frame)
    broken = np.flatnonzero(~shapely.is_valid(polygons) | (shapely.area(polygons) <= frame.sliver))
    for region, whole in zip(broken, mended(polygons[broken], frame), strict=True):
        polygons[region] = whole
    lost = np.flatnonzero(shapely.is_empty(polygons))
    if len(lost):
        some = rings.take(lost)
        polygons[lost] = _assembled(some, exact(some), frame)
    return polygons


def _assembled(rings: Rings, outline: Outline, frame: Frame) -> NDArray[np.object_]:
    first = outline.first
    points = frame.on_slide(outline.points)
    closed = np.insert(points, first[1:], points[first[:-1]], axis=0)
    polygons: NDArray[np.object_] = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, closed, (first + np.arange(len(first)), rings.region)
    )
    return polygons


def mended(polygons: NDArray[np.object_], frame: Frame) -> list[shapely.Geometry]:
    """Return polygons that no longer cross themselves, two decimals, without slivers; empty if nothing is left."""
    made = shapely.make_valid(polygons, method="structure", keep_collapsed=False)
    snapped = shapely.set_precision(made, 0.01)
    # The grid of the library is a multiple of 0.01 only up to the last digit.
    clean = shapely.transform(snapped, lambda points: np.round(points, 2) + 0.0)
    return [joined(np.asarray(shapely.get_parts(geometry)), frame) for geometry in clean]


def joined(parts: NDArray[np.object_], frame: Frame) -> shapely.Geometry:
    """Return polygons as one geometry without nested or tiny ones."""
    flat = np.asarray(shapely.get_parts(parts))
    kept = flat[(shapely.get_type_id(flat) == shapely.GeometryType.POLYGON) & (shapely.area(flat) > frame.sliver)]
    if len(kept) == 1:
        only: shapely.Geometry = kept[0]
        return only
    return shapely.MultiPolygon(list(kept))


def in_pieces(polygons: NDArray[np.object_], frame: Frame) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Cut polygons that are too large for viewers; return the pieces and which polygon each belongs to."""
    single, of = shapely.get_parts(polygons, return_index=True)
    if (shapely.get_num_coordinates(single) <= _MAX_CORNERS).all():
        return single, of
    pieces: list[shapely.Geometry] = []
    owner: list[int] = []
    for polygon, index in zip(single, of, strict=True):
        for piece in _halved(polygon, frame):
            pieces.append(piece)
            owner.append(int(index))
    return np.asarray(pieces, dtype=np.object_), np.asarray(owner, dtype=np.int64)


def _halved(polygon: shapely.Polygon, frame: Frame) -> list[shapely.Polygon]:
    if shapely.get_num_coordinates(polygon) <= _MAX_CORNERS:
        return [polygon]
    left, top, right, bottom = polygon.bounds
    middle = np.array([[left + right, top + bottom]]) / 2
    # Cut along sides of canvas pixels: corners stay where they are.
    ((x, y),) = frame.on_slide(np.round((middle + np.asarray(frame.origin)) / frame.canvas.scale.downsample))
    halves = (
        [(left, top, x, bottom), (x, top, right, bottom)]
        if right - left > bottom - top
        else [(left, top, right, y), (left, y, right, bottom)]
    )
    pieces: list[shapely.Polygon] = []
    for half in halves:
        for part in mended(np.asarray([shapely.intersection(polygon, shapely.box(*half))]), frame):
            for piece in np.atleast_1d(shapely.get_parts(part)):
                pieces += _halved(piece, frame)
    return pieces
