"""What is drawn becomes labels: objects one over the other, and nothing where nobody has looked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.geojson_makers import feature, ring, write_features
from wsiseg.annotations import place_drawing, read_features
from wsiseg.geometry import Scale, Size, Window

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.annotations import Drawing

WINDOW = Window(0, 0, 12, 6)
UNKNOWN = -1


def draw(folder: Path, *features: dict[str, Any], downsample: float = 1.0) -> Drawing:
    return place_drawing(read_features(write_features(folder / "a.geojson", *features)), Scale(downsample))


def labels_of(drawing: Drawing, *, is_complete: bool = False) -> NDArray[np.int32]:
    labels, _ = drawing.labels(WINDOW, drawing.numbers, background=0, ignore=UNKNOWN, is_complete=is_complete)
    return labels


def test_what_is_not_drawn_is_unknown_or_background_if_all_was_drawn(tmp_path: Path) -> None:
    drawing = draw(tmp_path, feature((1, 1, 3, 3), "nucleus"))

    expected = np.zeros((6, 12))
    expected[1:3, 1:3] = 1
    np.testing.assert_array_equal(labels_of(drawing, is_complete=True), expected)
    np.testing.assert_array_equal(labels_of(drawing), np.where(expected, expected, UNKNOWN))


def test_only_within_regions_is_anything_known(tmp_path: Path) -> None:
    region = feature((2, 0, 9, 4), "Region*")
    drawing = draw(tmp_path, feature((1, 1, 3, 3), "nucleus"), region, feature((10, 0, 12, 2), "nucleus"))

    labels = labels_of(drawing)

    expected = np.full((6, 12), UNKNOWN)
    expected[:4, 2:9] = 0
    # The half of an object outside, and whole ones there, were not looked at with the same care.
    expected[1:3, 2] = 1
    np.testing.assert_array_equal(labels, expected)
    assert (labels_of(drawing, is_complete=True)[:2, 10:] == 3).all()


def test_the_smaller_lies_over_the_larger_and_the_later_over_its_equal(tmp_path: Path) -> None:
    small, large = feature((2, 2, 4, 4), "a"), feature((0, 0, 6, 6), "a")
    drawing = draw(tmp_path, small, large, feature((8, 0, 10, 2), "a"), feature((9, 0, 11, 2), "a"))

    labels = labels_of(drawing, is_complete=True)

    assert labels[3].tolist() == [2, 2, 1, 1, 2, 2, 0, 0, 0, 0, 0, 0]
    assert labels[0, 8:].tolist() == [3, 4, 4, 0]


def test_holes_stay_open_and_parts_stay_one(tmp_path: Path) -> None:
    holed = feature((0, 0, 6, 6), "gland", hole=(2, 2, 4, 4))
    parted = feature((0, 0, 1, 1), "gland")
    parted["geometry"] = {"type": "MultiPolygon", "coordinates": [[ring(7, 0, 8, 2)], [ring(10, 0, 11, 2)]]}

    labels = labels_of(draw(tmp_path, holed, parted), is_complete=True)

    assert labels[2].tolist() == [1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0]
    assert labels[1, 6:].tolist() == [0, 2, 0, 0, 2, 0]


def test_what_is_drawn_twice_is_no_hole(tmp_path: Path) -> None:
    squares = [ring(0, 0, 20, 20), ring(10, 10, 30, 30)]
    several, together, pen, mended = (feature((0, 0, 1, 1), "gland") for _ in range(4))
    several["geometry"] = {"type": "MultiPolygon", "coordinates": [[square] for square in squares]}
    parts = [{"type": "Polygon", "coordinates": [square]} for square in squares]
    together["geometry"] = {"type": "GeometryCollection", "geometries": parts}
    # A pen that goes on for a while where it began.
    round_trip = [[0, 10], [0, -10], [30, -10], [30, 40], [-10, 40], [-10, 0], [20, 0], [20, 20], [0, 20], [0, 10]]
    pen["geometry"]["coordinates"] = [[[x + 10, y + 10] for x, y in round_trip]]
    bow = [[0, 0], [20, 20], [20, 0], [0, 20], [0, 0]]
    point = {"type": "Point", "coordinates": [0, 0]}
    mended["geometry"] = {
        "type": "GeometryCollection",
        "geometries": [point, {"type": "Polygon", "coordinates": [bow]}],
    }

    counts = []
    for one in (several, together, pen, mended, feature((0, 0, 40, 50), "gland", hole=(10, 10, 20, 20))):
        labels, _ = draw(tmp_path, one).labels(
            Window(0, 0, 40, 50), np.ones(1, dtype=np.int32), background=0, ignore=UNKNOWN, is_complete=True
        )
        counts.append(int(labels.sum()))

    assert counts == [700, 700, 1900, 200, 1900]


@pytest.mark.parametrize("name", ["Ignore*", "Not analysed"])
def test_what_is_to_be_ignored_is_so_wherever_it_lies(tmp_path: Path, name: str) -> None:
    features = [feature((2, 2, 3, 3), "nucleus"), feature((0, 0, 12, 6), "Region*"), feature((1, 1, 6, 4), name)]

    for is_complete in (False, True):
        labels = labels_of(draw(tmp_path, *features), is_complete=is_complete)

        expected = np.zeros((6, 12))
        expected[1:4, 1:6] = UNKNOWN
        np.testing.assert_array_equal(labels, expected)


def test_detections_and_nuclei_of_cells_are_objects_and_tiles_and_points_are_not(tmp_path: Path) -> None:
    cell = feature((0, 0, 6, 6), None, kind="cell")
    cell["nucleusGeometry"] = feature((1, 1, 2, 2), None)["geometry"]
    point = feature((0, 0, 1, 1), "nucleus")
    point["geometry"] = {"type": "Point", "coordinates": [3, 4]}
    others = [feature((0, 0, 5, 5), "tile", kind="tile"), point, feature((0, 0, 5, 5), "Other*")]

    drawing = draw(tmp_path, cell, feature((8, 0, 9, 1), "nucleus", kind="detection"), *others)

    assert (drawing.names, drawing.skipped) == (((), ("nucleus",)), 3)
    assert np.argwhere(labels_of(drawing, is_complete=True)).tolist() == [[0, 8], [1, 1]]
    assert labels_of(drawing, is_complete=True)[1, 1] == 1


def test_what_lies_beside_the_canvas_is_counted(tmp_path: Path) -> None:
    drawing = draw(
        tmp_path,
        feature((0, 0, 9, 9), "nucleus"),
        feature((100, 0, 109, 9), "nucleus"),
        feature((-9, 0, 0, 9), "Ignore*"),
        feature((95, 45, 200, 200), "Region*"),
        downsample=10,
    )

    assert drawing.count_outside(Size(10, 5)) == 2
    assert len(drawing) == 4
