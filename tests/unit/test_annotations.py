"""Annotations are read as QuPath writes them, and a point knows what is drawn over it."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from wsiseg.annotations import read_annotations
from wsiseg.errors import DataError
from wsiseg.labels import IGNORE

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def box(x: float, y: float, side: float, classification: object, **properties: object) -> dict[str, Any]:
    corners = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return {
        "type": "Feature",
        "id": "5c1d4c0e-6a0f-5b52-9a7e-3d2f8a1b9c44",
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "properties": {"objectType": "annotation", "classification": classification} | properties,
    }


def around(points: list[list[float]]) -> NDArray[np.float64]:
    """Return small boxes around points."""
    centres = np.array(points, dtype=np.float64)
    return np.concatenate((centres - 0.01, centres + 0.01), axis=1)


def write(path: Path, content: object) -> Path:
    data = json.dumps(content).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


NO_COLOURS: tuple[object, ...] = (
    "#c80000",
    [200, 0],
    [256, 0, 0],
    [-1, 0, 0],
    [0.5, 0, 0],
    ["200", "0", "0"],
    None,
    {},
)
TUMOUR, STROMA = {"name": "Tumour", "color": [200, 0, 0]}, {"name": "Stroma", "color": [0, 200, 0]}


@pytest.mark.parametrize("name", ["a.geojson", "a.json", "a.geojson.gz"])
def test_every_container_is_read(tmp_path: Path, name: str) -> None:
    one = box(0, 0, 9, TUMOUR)
    for content in ({"type": "FeatureCollection", "features": [one]}, [one], one):
        found = read_annotations(write(tmp_path / name, content))

        assert found.names == (("Tumour",),)
        assert found.regions[0].area == 81


@pytest.mark.parametrize(
    ("classification", "names"),
    [
        (TUMOUR, ("Tumour",)),
        ("Tumour", ("Tumour",)),
        ({"names": ["Tumour", "Stroma"]}, ("Tumour", "Stroma")),
        ({"names": "Tumour"}, ("Tumour",)),
        ({"name": "Tumour: Stroma", "colorRGB": -3670016}, ("Tumour", "Stroma")),
        ({"name": "Ignore*"}, ("Ignore*",)),
    ],
)
def test_every_way_to_write_a_class_is_read(tmp_path: Path, classification: object, names: tuple[str, ...]) -> None:
    assert read_annotations(write(tmp_path / "a.json", [box(0, 0, 9, classification)])).names == (names,)


@pytest.mark.parametrize(
    ("classification", "colours"),
    [
        (TUMOUR, {"Tumour": (200, 0, 0)}),
        ({"names": ["Tumour"], "color": [1, 2, 3, 40]}, {"Tumour": (1, 2, 3)}),
        ({"name": "Tumour", "colorRGB": -3670016}, {"Tumour": (200, 0, 0)}),
        ({"name": "Tumour", "colorRGB": -16711423}, {"Tumour": (1, 1, 1)}),
        ({"name": "Tumour: Stroma", "color": [200, 0, 0]}, {}),
        ({"names": ["Tumour", "Stroma"], "color": [200, 0, 0]}, {}),
        ("Tumour", {}),
        *(({"name": "Tumour", "color": given}, {}) for given in NO_COLOURS),
    ],
)
def test_colours_are_taken_as_qupath_writes_them_for_one_class(
    tmp_path: Path, classification: object, colours: dict[str, tuple[int, int, int]]
) -> None:
    found = read_annotations(write(tmp_path / "a.json", [box(0, 0, 9, classification)]))

    assert found.colours == colours
    assert "Tumour" in found.classes


def test_the_first_of_several_colours_counts_and_the_others_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = {"name": "Tumour", "color": [9, 9, 9]}
    features = [box(20, 0, 9, "Tumour"), *(box(0, 0, 9, drawn) for drawn in (TUMOUR, STROMA, other, other, TUMOUR))]

    found = read_annotations(write(tmp_path / "a.json", features))

    assert found.colours == {"Tumour": (200, 0, 0), "Stroma": (0, 200, 0)}
    assert [record.getMessage().split(": ", 1)[1] for record in caplog.records] == [
        "'Tumour' is drawn in 2 colours; the first one counts"
    ]


def test_what_is_no_region_with_a_class_is_counted(tmp_path: Path) -> None:
    point = box(0, 0, 9, TUMOUR)
    point["geometry"] = {"type": "Point", "coordinates": [3, 4]}
    nowhere = box(0, 0, 9, TUMOUR)
    nowhere["geometry"] = None
    others = [box(0, 0, 9, None), box(0, 0, 9, {"name": "Region*"}), box(0, 0, 9, TUMOUR, objectType="detection")]

    found = read_annotations(write(tmp_path / "a.json", [point, nowhere, *others]))

    assert (len(found.regions), found.skipped, found.classes) == (0, 5, ())
    assert (found.occurring(around([[3.0, 4.0]]), ("Tumour",)) == IGNORE).all()


def test_a_point_has_the_classes_drawn_over_it_and_no_others(tmp_path: Path) -> None:
    features = [
        box(0, 0, 10, TUMOUR),
        box(5, 0, 10, STROMA),
        box(20, 0, 10, STROMA),
        box(28, 0, 10, {"name": "Ignore*"}),
    ]
    found = read_annotations(write(tmp_path / "a.json", features))
    boxes = around([[2, 5], [7, 5], [12, 5], [17, 5], [22, 5], [29, 5], [35, 5], [0, 0]])

    occurring = found.occurring(boxes, ("Stroma", "Tumour", "Fat"))

    none = [IGNORE] * 3
    assert found.classes == ("Stroma", "Tumour")
    assert occurring.tolist() == [[0, 1, 0], [1, 1, 0], [1, 0, 0], none, [1, 0, 0], none, none, [0, 1, 0]]


def test_holes_are_outside_and_crossed_outlines_are_mended(tmp_path: Path) -> None:
    ring = box(0, 0, 10, TUMOUR)
    ring["geometry"]["coordinates"].append([[3, 3], [7, 3], [7, 7], [3, 7], [3, 3]])
    bow = box(20, 0, 10, TUMOUR)
    bow["geometry"]["coordinates"] = [[[20, 0], [30, 10], [30, 0], [20, 10], [20, 0]]]

    found = read_annotations(write(tmp_path / "a.json", [ring, bow]))

    boxes = around([[1, 1], [5, 5], [21, 5], [25, 1]])
    assert found.occurring(boxes, ("Tumour",))[:, 0].tolist() == [1, IGNORE, 1, IGNORE]


@pytest.mark.parametrize(("left", "stroma"), [(50.0, 1), (90.0, 1), (91.0, IGNORE), (98.0, IGNORE), (99.5, 0)])
def test_a_class_beside_the_centre_counts_by_its_share(tmp_path: Path, left: float, stroma: int) -> None:
    tumour, other = box(-100, -100, 100 + left, TUMOUR), box(left, -50, 200, STROMA)
    # Drawn twice, a region counts once.
    features = [tumour, other, other, box(0, 300, 100, STROMA)]
    found = read_annotations(write(tmp_path / "a.json", features))

    occurring = found.occurring(np.array([[0.0, 0, 100, 100], [0, 500, 100, 600]]), ("Stroma", "Tumour", "Fat"))

    assert occurring.tolist() == [[stroma, 1, 0], [IGNORE] * 3]


def test_another_class_is_told(tmp_path: Path) -> None:
    found = read_annotations(write(tmp_path / "a.json", [box(0, 0, 9, STROMA)]))

    with pytest.raises(DataError, match=r"a\.json: a region is of the class 'Stroma', which is none of Tumour"):
        found.occurring(around([[0, 0]]), ("Tumour",))


@pytest.mark.parametrize("name", ["a.geojson", "a.geojson.gz"])
@pytest.mark.parametrize(
    "data",
    [b"", b"nonsense", b"{}", b"3", b'{"type": "FeatureCollection"}', b"\xff\xfe", b"[3]", b"[{}]x"],
)
@pytest.mark.parametrize("is_packed", [False, True])
def test_what_is_no_geojson_is_told(tmp_path: Path, name: str, data: bytes, is_packed: bool) -> None:  # noqa: FBT001
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if is_packed else data)

    with pytest.raises(DataError, match=name):
        read_annotations(path)
    with pytest.raises(DataError, match="no such file"):
        read_annotations(tmp_path / "gone.geojson")


@pytest.mark.parametrize(
    "change",
    [
        {"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}},
        {"geometry": {"type": "Polygon"}},
        {"geometry": "here"},
        {"properties": {"classification": {"names": [3]}}},
        {"properties": {"classification": 3}},
        {"properties": [3]},
    ],
)
def test_a_broken_feature_is_told_by_its_number(tmp_path: Path, change: dict[str, object]) -> None:
    path = write(tmp_path / "a.json", [box(0, 0, 9, TUMOUR), box(0, 0, 9, TUMOUR) | change])

    with pytest.raises(DataError, match="feature 2 is no valid GeoJSON"):
        read_annotations(path)
