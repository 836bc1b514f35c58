"""Polygons land exactly where the pixels are, and every file of them keeps what its readers ask."""

from __future__ import annotations

import csv
import gzip
import sys
import uuid
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import orjson
import pytest
import shapely

from wsiseg.errors import ConfigError, StoreError
from wsiseg.geometry import Canvas, Region, Scale, Size, Window
from wsiseg.inference import placing
from wsiseg.inference.export import check_polygon_format, export_shapes
from wsiseg.inference.placing import Frame
from wsiseg.inference.polygons import object_shapes, region_shapes
from wsiseg.labels import LabelMap
from wsiseg.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

NUCLEI = LabelMap.from_names(("background", "nucleus"))
TISSUES = LabelMap.from_names(("background", "tumour", "stroma"))


def _reader(array: NDArray[np.unsignedinteger]) -> Callable[[Window], NDArray[np.unsignedinteger]]:
    return lambda window: array[window.slices]


def _canvas(array: NDArray[np.unsignedinteger], downsample: float = 1.0, mpp: float | None = 0.5) -> Canvas:
    return Canvas(Size(array.shape[1], array.shape[0]), Scale(downsample), mpp)


def _with_block() -> NDArray[np.uint8]:
    """Return class 1 at 2 … 18 in x and 3 … 19 in y with a hole at 6 … 12 and 7 … 13."""
    classes = np.zeros((24, 40), dtype=np.uint8)
    classes[3:19, 2:18] = 1
    classes[7:13, 6:12] = 0
    return classes


def _with_nuclei() -> NDArray[np.uint32]:
    rows, columns = np.indices((120, 150)) + 0.5
    instances = np.zeros((120, 150), dtype=np.uint32)
    for number, (x, y, radius) in enumerate([(20, 20, 6), (60, 30, 8), (70, 40, 7), (140, 110, 9), (30, 90, 5)]):
        instances[(columns - x) ** 2 + (rows - y) ** 2 < radius**2] = number + 11
    return instances


def _export(folder: Path, instances: NDArray[np.uint32], **options: Any) -> dict[str, Any]:  # noqa: ANN401 - handed on
    classes = (instances > 0).astype(np.uint8)
    export_shapes(
        folder,
        slide_id="a slide",
        canvas=_canvas(instances, options.pop("downsample", 1.0), options.pop("mpp", 0.5)),
        labels=NUCLEI,
        read_classes=_reader(options.pop("classes", classes)),
        read_instances=_reader(instances),
        objects=options.pop("objects", Objects.measured(instances)),
        **options,
    )
    loaded: dict[str, Any] = orjson.loads((folder / "polygons.geojson").read_bytes())
    return loaded


@pytest.mark.parametrize("downsample", [1.0, 2.5, 0.7])
def test_a_square_with_a_hole_lands_on_its_exact_place(downsample: float) -> None:
    classes = _with_block()
    frame = Frame(canvas=_canvas(classes, downsample))

    (shapes,) = region_shapes(_reader(classes), frame, labels=TISSUES, tolerance=0)

    (polygon,) = shapes.polygons
    expected = shapely.box(2, 3, 18, 19) - shapely.box(6, 7, 12, 13)
    assert polygon.bounds == pytest.approx([edge * downsample for edge in (2, 3, 18, 19)], abs=1e-9)
    assert polygon.interiors[0].bounds == pytest.approx([edge * downsample for edge in (6, 7, 12, 13)], abs=1e-9)
    assert polygon.area == pytest.approx(expected.area * downsample**2)
    assert shapes.measurements["Area µm^2"].tolist() == [(256 - 36) * 0.25]
    assert shapes.index.tolist() == [3 * 40 + 2]


def test_an_origin_is_subtracted_and_coordinates_have_two_decimals() -> None:
    classes = _with_block()
    frame = Frame(canvas=_canvas(classes, 1 / 3), origin=(100, -50))

    (shapes,) = region_shapes(_reader(classes), frame, labels=TISSUES, tolerance=0)

    assert shapes.polygons[0].bounds == (round(2 / 3 - 100, 2), 51.0, -94.0, round(19 / 3 + 50, 2))


def test_the_area_of_exact_polygons_is_that_of_their_pixels() -> None:
    classes = np.random.default_rng(1).integers(0, 3, (60, 70)).astype(np.uint8)

    batches = list(
        region_shapes(_reader(classes), Frame(canvas=_canvas(classes)), labels=TISSUES, tolerance=0, band_rows=7)
    )

    for label in (1, 2):
        area = sum(float(shapely.area(shapes.polygons[shapes.label == label]).sum()) for shapes in batches)
        assert area == (classes == label).sum()
    assert all(shapely.is_valid(shapes.polygons).all() for shapes in batches)


@pytest.mark.parametrize("tolerance", [0.5, 1, 3])
def test_smoothed_noise_is_still_valid(tolerance: float) -> None:
    classes = np.random.default_rng(2).integers(0, 4, (60, 70)).astype(np.uint8)
    frame = Frame(canvas=_canvas(classes, 0.4))
    labels = LabelMap.from_names(("a", "b", "c", "d"))

    batches = list(region_shapes(_reader(classes), frame, labels=labels, tolerance=tolerance))

    for shapes in batches:
        assert shapely.is_valid(shapes.polygons).all()
        assert (shapely.area(shapes.polygons) > 0).all()
        points = shapely.get_coordinates(shapes.polygons)
        np.testing.assert_array_equal(points, np.round(points, 2))


def test_a_background_is_not_exported_but_any_other_class_0_is() -> None:
    classes = _with_block()
    frame = Frame(canvas=_canvas(classes))

    with_background = list(region_shapes(_reader(classes), frame, labels=TISSUES))
    without = list(region_shapes(_reader(classes), frame, labels=LabelMap.from_names(("fat", "tumour"))))

    assert {label for shapes in with_background for label in shapes.label.tolist()} == {1}
    assert sorted(label for shapes in without for label in shapes.label.tolist()) == [0, 0, 1]


def test_what_belongs_to_no_class_is_not_exported() -> None:
    classes = _with_block()
    classes[classes == 0] = 254
    labels = LabelMap.from_names(("tumour", "stroma"))

    found = list(region_shapes(_reader(classes), Frame(canvas=_canvas(classes)), labels=labels))

    assert [(shapes.layer, shapes.label.tolist()) for shapes in found] == [("regions", [1])]
    assert len(found[0].polygons[0].interiors) == 1


def test_what_was_not_analysed_has_its_own_layer() -> None:
    classes = _with_block()
    classes[:, 30:] = 255
    frame = Frame(canvas=_canvas(classes))

    for labels in (TISSUES, None):
        layers = {shapes.layer: shapes.polygons for shapes in region_shapes(_reader(classes), frame, labels=labels)}
        assert set(layers) == ({"regions", "not analysed"} if labels else {"not analysed"})
        assert layers["not analysed"][0].bounds == (30, 0, 40, 24)


def test_a_region_too_large_for_viewers_is_cut_without_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "_MAX_CORNERS", 40)
    classes = np.ones((50, 80), dtype=np.uint8)
    classes[np.random.default_rng(3).random((50, 80)) < 0.1] = 0

    (shapes,) = region_shapes(_reader(classes), Frame(canvas=_canvas(classes)), labels=TISSUES, tolerance=0)

    assert (shapely.get_num_coordinates(shapes.polygons) <= 40).all()
    assert shapely.is_valid(shapes.polygons).all()
    assert shapely.area(shapes.polygons).sum() == classes.sum()
    assert shapes.measurements["Area µm^2"].sum() == pytest.approx(classes.sum() * 0.25)
    assert len({(index, part) for index, part in zip(shapes.index, shapes.part, strict=True)}) == len(shapes.index)


def test_objects_in_several_parts_stay_one_object_over_bands() -> None:
    instances = np.zeros((30, 20), dtype=np.uint32)
    instances[2:6, 2:6] = 5
    instances[20:28, 10:15] = 5
    instances[10:14, 3:9] = 9

    for rows in (3, 30):
        (first, *rest) = object_shapes(
            _reader(instances),
            Frame(canvas=_canvas(instances)),
            objects=Objects.measured(instances),
            tolerance=0,
            band_rows=rows,
        )
        batches = [first, *rest]
        assert [index for shapes in batches for index in shapes.index.tolist()] == [9, 5]
        two_parts = batches[-1].polygons[-1]
        assert (two_parts.geom_type, two_parts.area) == ("MultiPolygon", 56)
        assert batches[0].polygons[0].geom_type == "Polygon"


def test_parts_that_meet_at_a_corner_make_a_valid_object() -> None:
    instances = np.zeros((12, 12), dtype=np.uint32)
    instances[1:5, 1:5] = 1
    instances[5:9, 5:9] = 1
    for tolerance in (0, 0.4, 2):
        (shapes,) = object_shapes(
            _reader(instances),
            Frame(canvas=_canvas(instances)),
            objects=Objects.measured(instances),
            tolerance=tolerance,
        )
        assert shapes.polygons[0].is_valid


@pytest.mark.parametrize("change", ["missing", "unknown", "empty", "larger"])
def test_a_table_that_disagrees_with_the_canvas_is_refused(change: str) -> None:
    instances = _with_nuclei()
    objects = Objects.measured(instances)
    if change == "missing":
        objects = objects[1:]
    elif change == "empty":
        objects = Objects.empty()
    elif change == "unknown":
        instances = np.where(instances == 11, 0, instances).astype(np.uint32)
    else:
        instances[0, 0] = 12

    with pytest.raises(StoreError, match="disagree"):
        list(object_shapes(_reader(instances), Frame(canvas=_canvas(instances)), objects=objects))


def test_a_class_that_the_model_does_not_have_is_refused(tmp_path: Path) -> None:
    classes = np.full((4, 4), 9, dtype=np.uint8)
    with pytest.raises(StoreError, match="class 9"):
        export_shapes(tmp_path, slide_id="s", canvas=_canvas(classes), labels=TISSUES, read_classes=_reader(classes))
    assert not list(tmp_path.iterdir())


def test_features_keep_every_convention(tmp_path: Path) -> None:
    instances = _with_nuclei()
    classes = (instances > 0).astype(np.uint8)
    classes[:, :4] = 255

    collection = _export(tmp_path, instances, classes=classes)

    assert collection["type"] == "FeatureCollection"
    assert collection["metadata"]["origin"] == "level0"
    assert len({feature["id"] for feature in collection["features"]}) == 6
    for feature in collection["features"]:
        assert uuid.UUID(feature["id"]).version == 5
        properties = feature["properties"]
        assert all(np.isfinite(value) for value in properties["measurements"].values())
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1]
            assert np.array_equal(np.round(ring, 2), ring)
        if properties["objectType"] == "annotation":
            assert properties["classification"] == {"name": "Not analysed", "color": [128, 128, 128]}
            assert properties["isLocked"] is True
            assert properties["metadata"]["tool"].startswith("wsiseg ")
        else:
            assert properties["classification"] == {"name": "nucleus", "color": list(NUCLEI[1].colour)}
            assert "isLocked" not in properties
            # No score was given, and unknown is not a number.
            assert list(properties["measurements"]) == [
                "Area µm^2", "Perimeter µm", "Circularity", "Eccentricity"
            ]  # fmt: skip


def test_a_second_export_gives_the_same_bytes_and_another_slide_other_ids(tmp_path: Path) -> None:
    instances = _with_nuclei()
    common: dict[str, Any] = {
        "canvas": _canvas(instances),
        "labels": NUCLEI,
        "read_classes": _reader((instances > 0).astype(np.uint8)),
        "read_instances": _reader(instances),
        "objects": Objects.measured(instances),
        "polygons": "geojson.gz",
    }
    for name, slide_id in (("one", "a"), ("two", "a"), ("three", "b")):
        export_shapes(tmp_path / name, slide_id=slide_id, **common)
    one, two, three = ((tmp_path / name / "polygons.geojson.gz").read_bytes() for name in ("one", "two", "three"))
    ids = [{feature["id"] for feature in orjson.loads(gzip.decompress(data))["features"]} for data in (one, three)]

    assert one == two
    assert not ids[0] & ids[1]


def test_no_objects_are_an_empty_collection_and_a_table_with_a_header(tmp_path: Path) -> None:
    collection = _export(tmp_path, np.zeros((20, 30), dtype=np.uint32))

    assert collection["features"] == []
    assert (tmp_path / "objects.csv").read_text(encoding="utf-8").startswith("id,class,x_px,y_px,x_um,y_um,area_um2")
    assert len((tmp_path / "objects.csv").read_text(encoding="utf-8").splitlines()) == 1


def test_bounds_move_the_polygons_of_viewers_that_crop(tmp_path: Path) -> None:
    bounds = Region(10, 4, 100, 100)
    cropped = _export(tmp_path, _with_nuclei(), bounds=bounds)
    whole = _export(tmp_path, _with_nuclei(), bounds=bounds, origin="level0")

    assert (cropped["metadata"]["origin"], whole["metadata"]["origin"]) == ("bounds", "level0")
    for one, two in zip(cropped["features"], whole["features"], strict=True):
        moved = np.asarray(one["geometry"]["coordinates"][0]) + np.array([10, 4])
        np.testing.assert_allclose(moved, two["geometry"]["coordinates"][0])
        assert one["id"] == two["id"]


def test_geopandas_reads_what_was_written(tmp_path: Path) -> None:
    instances = _with_nuclei()
    _export(tmp_path, instances, simplify=0, downsample=2.0)
    export_shapes(
        tmp_path,
        slide_id="a slide",
        canvas=_canvas(instances, 2.0),
        labels=NUCLEI,
        read_classes=_reader((instances > 0).astype(np.uint8)),
        read_instances=_reader(instances),
        objects=Objects.measured(instances),
        polygons="parquet",
        simplify=0,
    )

    for frame in (gpd.read_file(tmp_path / "polygons.geojson"), gpd.read_parquet(tmp_path / "polygons.parquet")):
        assert len(frame) == 5
        assert shapely.is_valid(frame.geometry.to_numpy()).all()
        assert shapely.area(frame.geometry.to_numpy()).sum() == (instances > 0).sum() * 4
    table = gpd.read_parquet(tmp_path / "polygons.parquet")
    assert table.crs is None
    assert table["area_um2"].sum() == (instances > 0).sum() * 0.25
    assert table["probability"].isna().all()


def test_parquet_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    instances = _with_nuclei()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'wsiseg\[parquet\]'"):
        _export(tmp_path, instances, polygons="parquet")


def test_formats_are_checked_before_the_work() -> None:
    assert check_polygon_format("geojson.gz") == "geojson.gz"
    with pytest.raises(ConfigError, match=r"'shp' is not a format.*geojson, geojson\.gz, parquet, none"):
        check_polygon_format("shp")


def test_the_table_of_objects_holds_places_and_sizes(tmp_path: Path) -> None:
    instances = _with_nuclei()
    _export(tmp_path, instances, downsample=2.0)
    with (tmp_path / "objects.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}

    row = rows["12"]
    assert (float(row["x_px"]), float(row["y_px"])) == pytest.approx((120, 60), abs=0.3)
    assert float(row["x_um"]) == pytest.approx(float(row["x_px"]) * 0.25)
    assert float(row["area_um2"]) == (instances == 12).sum() * 0.25
    assert float(row["perimeter_um"]) == pytest.approx(2 * np.pi * 8 * 0.5, rel=0.05)
    assert (row["class"], row["probability"]) == ("nucleus", "")


def test_without_a_physical_scale_lengths_are_in_level_0_pixels(tmp_path: Path) -> None:
    instances = _with_nuclei()
    collection = _export(tmp_path, instances, downsample=2.0, mpp=None)

    areas = [feature["properties"]["measurements"]["Area px^2"] for feature in collection["features"]]
    assert sum(areas) == (instances > 0).sum() * 4
    assert "x_um" not in (tmp_path / "objects.csv").read_text(encoding="utf-8")


def test_default_smoothing_changes_the_area_of_no_nucleus_by_more_than_3_percent() -> None:
    rng = np.random.default_rng(4)
    rows, columns = np.indices((40, 40)) + 0.5
    instances = np.zeros((400, 400), dtype=np.uint32)
    for number in range(100):
        row, column = divmod(number, 10)
        x, y = rng.uniform(18, 22, 2)
        disc = (columns - x) ** 2 * rng.uniform(0.6, 1.4) + (rows - y) ** 2 < rng.uniform(4, 11) ** 2
        instances[row * 40 : row * 40 + 40, column * 40 : column * 40 + 40][disc] = number + 1

    (shapes,) = object_shapes(_reader(instances), Frame(canvas=_canvas(instances)), objects=Objects.measured(instances))

    change = shapely.area(shapes.polygons) * 0.25 / shapes.measurements["Area µm^2"] - 1
    assert np.abs(change).max() < 0.03
    assert np.abs(change).mean() < 0.01
