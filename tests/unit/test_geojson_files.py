"""GeoJSON is read as QuPath exports it: packed, with numbers that are none, and with nothing said of the whole."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from tests.geojson_makers import feature, write_features
from wsiseg.annotations import check_slide, read_annotations, read_features
from wsiseg.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

BOX = feature((0, 0, 20, 20), "Tumour")


def packed(path: Path, **names: str) -> Path:
    """Write a zip of texts; in their names an underscore stands for a dot."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in names.items():
            archive.writestr(name.replace("_", "."), text)
    return path


def box_of(patch: object, name: str = "Region*", **metadata: object) -> dict[str, Any]:
    """Return a box of a patch as QuPath exports it, with a name that an annotator gave it."""
    made = feature((0, 0, 20, 20), name)
    made["properties"] |= {"name": "mitoses", "isLocked": True, "metadata": {"patch": patch, **metadata}}
    return made


def test_the_one_geojson_in_a_zip_is_read(tmp_path: Path) -> None:
    path = packed(tmp_path / "objects.ZIP", objects_geojson=json.dumps([BOX]), readme_txt="")
    with zipfile.ZipFile(path, "a") as archive:
        # As macOS packs it again.
        archive.writestr("__MACOSX/._objects.geojson", b"\x00\x05\x16\x07")

    assert read_annotations(path).names == (("Tumour",),)


@pytest.mark.parametrize(("names", "count"), [(("readme_txt",), 0), (("a_geojson", "b_json"), 2)])
def test_a_zip_of_none_or_several_is_told(tmp_path: Path, names: tuple[str, ...], count: int) -> None:
    path = packed(tmp_path / "objects.zip", **dict.fromkeys(names, json.dumps([BOX])))

    with pytest.raises(DataError, match=rf"objects\.zip: the zip holds {count} files of GeoJSON, not one\. Export it"):
        read_features(path)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"nonsense"])
def test_a_broken_zip_is_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "objects.zip").write_bytes(data)

    with pytest.raises(DataError, match="not GeoJSON: File is not a zip file"):
        read_features(tmp_path / "objects.zip")


def test_numbers_that_are_none_and_byte_order_marks_are_taken(tmp_path: Path) -> None:
    measured = json.loads(json.dumps(BOX))
    measured["properties"]["measurements"] = [{"name": "a", "value": float("nan")}, {"name": "b", "value": -1e999}]
    text = json.dumps([measured])
    assert "NaN" in text
    assert "-Infinity" in text

    for encoding in ("utf-8", "utf-8-sig"):
        for number, content in enumerate((text, json.dumps([BOX]))):
            path = tmp_path / f"{encoding}-{number}.geojson"
            path.write_text(content, encoding=encoding)

            assert read_annotations(path).regions[0].area == 400


@pytest.mark.parametrize("text", ["[NaN", '[{"a": NaN}] x', "[" * 100_000, '[{"geometry": NaN}]'])
def test_what_is_broken_besides_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.geojson").write_text(text)

    with pytest.raises(DataError, match=r"a\.geojson: (not GeoJSON|feature 1 is no valid GeoJSON)"):
        read_features(tmp_path / "a.geojson")


def test_an_outline_that_is_nowhere_is_told(tmp_path: Path) -> None:
    broken = feature((0, 0, float("nan"), float("inf")), "Tumour")

    with pytest.raises(DataError, match="feature 1 is no valid GeoJSON"):
        read_features(write_features(tmp_path / "a.geojson", broken))


@pytest.mark.parametrize(
    ("origins", "origin"),
    [
        (("level0", "level0"), "level0"),
        (("bounds",), "bounds"),
        ((), None),
        (("here", 3, None, ["level0"]), None),
        (("level0", "bounds"), None),
    ],
)
def test_what_all_features_are_counted_from_is_believed_where_the_file_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, origins: tuple[object, ...], origin: str | None
) -> None:
    boxes = [box_of("a-0-0", origin=told) for told in origins]
    path = write_features(tmp_path / "a.geojson", BOX, *boxes)

    assert read_features(path).origin == origin
    assert read_annotations(path).origin == origin
    assert ("--qupath-origin decides" in caplog.text) == ({"level0", "bounds"} <= set(map(str, origins)))
    path.write_text(json.dumps({**json.loads(path.read_text()), "metadata": {"origin": "bounds"}}))
    assert read_features(path).origin == "bounds"


@pytest.mark.parametrize("slide", ["a", "a-1", "a (2).x"])
def test_boxes_of_patches_of_another_slide_are_told(tmp_path: Path, slide: str) -> None:
    others = [box_of(name) for name in ("b-128-0", f"{slide}b-0-0", f"{slide}-0", f"x{slide}-0-0")]
    path = write_features(tmp_path / "a.geojson", BOX, *others)

    with pytest.raises(DataError, match=r"a\.geojson: its boxes are of patches such as b-128-0, none of ") as told:
        check_slide(path, slide)

    assert f"none of {slide}: they were drawn on another slide. " in str(told.value)
    for own in (slide, f"{slide}-128-0"):
        check_slide(write_features(tmp_path / "a.geojson", *others, box_of(own)), slide)


def test_boxes_that_say_nothing_of_a_patch_may_be_of_any_slide(tmp_path: Path) -> None:
    strange = feature((0, 0, 9, 9), "Region*")
    strange["properties"]["metadata"] = "b-0-0"
    others = [BOX, feature((0, 0, 9, 9), "Region*"), box_of(3), box_of("b-0-0", "Runner-up*"), strange]

    check_slide(write_features(tmp_path / "a.geojson", *others), "a")
    (tmp_path / "b.geojson").write_text('[3, {}, {"properties": {"metadata": {"patch": "b"}, "classification": 3}}]')
    check_slide(tmp_path / "b.geojson", "a")
