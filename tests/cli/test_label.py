"""`wsiseg label`: boxes drawn over a slide become labels of the patches under them, or one clear line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from wsiseg.geometry import Region
from wsiseg.labels import IGNORE, LabelMap
from wsiseg.lock import locked
from wsiseg.stores.patch_store import PatchStore
from wsiseg.white import WhiteRule

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Result
    from tests.conftest import MakePatchStore


def boxes(path: Path, *drawn: tuple[tuple[float, float, float, float], str]) -> Path:
    """Write boxes left, top, right, bottom with their classes."""
    features: list[dict[str, Any]] = []
    for (left, top, right, bottom), name in drawn:
        ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"objectType": "annotation", "classification": {"name": name, "color": [1, 2, 3]}},
            }
        )
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    return boxes(
        tmp_path / "a.geojson",
        ((10, 10, 140, 90), "tumour"),  # the centre of the first patch, and a third of the second
        ((140, 20, 180, 60), "stroma"),  # the centre of the second
        ((40, 140, 160, 160), "tumour"),  # the centres of two patches of the second row
        ((140, 140, 160, 160), "stroma"),
        ((220, 40, 230, 60), "stroma"),  # the centre of what the third patch has of the slide
    )


def labels_of(store: Path, layer: str = "labels") -> list[list[int]]:
    patches = PatchStore.open(store)
    assert patches.positions.tolist() == [[0, 0], [100, 0], [200, 0], [0, 100], [100, 100], [200, 100]]
    found: list[list[int]] = patches.read_image_labels(layer, range(6)).tolist()
    return found


def test_boxes_become_labels_of_the_patches_whose_centres_they_cover(
    store: Path, drawn: Path, run: Callable[..., Result]
) -> None:
    result = run("label", store, "--from", drawn, "--as", "image")

    assert result.code == 0
    assert result.out == f"5 of 6 patches labelled in {store}: 3 stroma, 4 tumour\n"
    assert labels_of(store) == [[0, 1], [1, 1], [1, 0], [0, 1], [1, 1], [IGNORE, IGNORE]]
    (info,) = PatchStore.open(store).image_layers.values()
    assert info.labels.names == ("stroma", "tumour")
    assert info.white == WhiteRule()


def test_all_options_reach_the_layer(tmp_path: Path, store: Path, drawn: Path, run: Callable[..., Result]) -> None:
    result = run("label", store, "--from", drawn, "--layer", "mine", "--classes", "tumour, fat,stroma", "--no-white")
    (tmp_path / "c.toml").write_text("white = {gray_above = 220}\n")

    assert result.code == 0
    assert result.out.endswith(": 4 tumour, 0 fat, 3 stroma\n")
    assert labels_of(store, "mine")[:3] == [[1, 0, 0], [1, 0, 1], [0, 0, 1]]
    assert PatchStore.open(store).image_layers["mine"].white is None
    other = run("label", store, "--from", drawn, "--config", tmp_path / "c.toml", "--set", "white.min_area_px=9")
    assert other.code == 0
    assert PatchStore.open(store).image_layers["labels"].white == WhiteRule(gray_above=220, min_area_px=9)


def test_classes_keep_the_colours_that_they_have_in_qupath(
    tmp_path: Path, store: Path, run: Callable[..., Result]
) -> None:
    path = boxes(tmp_path / "a.geojson", ((0, 0, 100, 200), "tumour"), ((100, 0, 200, 200), "stroma"))
    collection = json.loads(path.read_text())
    tumour, stroma = (feature["properties"]["classification"] for feature in collection["features"])
    tumour["color"] = [200, 0, 0]
    # What older versions write.
    del stroma["color"]
    stroma["colorRGB"] = -6895466
    path.write_text(json.dumps(collection))

    assert run("label", store, "--from", path, "--classes", "stroma,tumour,fat").code == 0

    (info,) = PatchStore.open(store).image_layers.values()
    colours = {label.name: label.colour for label in info.labels.labels}
    made = LabelMap.from_names(info.labels.names, background=False)
    assert colours == {"stroma": (150, 200, 150), "tumour": (200, 0, 0), "fat": made[2].colour}


def test_a_second_run_does_nothing_unless_something_differs(
    tmp_path: Path, store: Path, drawn: Path, run: Callable[..., Result]
) -> None:
    assert run("label", store, "--from", drawn).code == 0
    again = run("label", store, "--from", drawn)
    assert again.code == 0
    assert again.out.endswith(", already done\n")
    fewer = boxes(tmp_path / "b.geojson", ((0, 0, 250, 100), "tumour"), ((0, 0, 1, 1), "stroma"))

    refused = run("label", store, "--from", fewer)

    assert refused.code == 5
    assert "other labels in the layer 'labels'. Choose another --layer, or --overwrite" in refused.err
    assert labels_of(store)[1] == [1, 1]
    assert run("label", store, "--from", fewer, "--overwrite").code == 0
    assert labels_of(store) == [[0, 1]] * 3 + [[IGNORE, IGNORE]] * 3


def test_boxes_are_counted_from_the_scanned_bounds_as_qupath_does(
    tmp_path: Path, store: Path, drawn: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsiseg.slides.openslide._bounds", lambda _: Region(100, 100, 150, 100))
    tile = ("--tissue", "none", "--mpp", 1, "--patch-size", 50, "--reader", "openslide", "--overwrite")
    assert run("tile", tmp_path / "a.tiff", "-o", tmp_path, *tile).code == 0

    result = run("label", store, "--from", drawn)
    assert run("label", store, "--from", drawn, "--layer", "whole", "--qupath-origin", "level0").code == 0

    # A twelfth of the last patch is stroma: too little to count, too much to be none.
    assert result.out.endswith(": 0 stroma, 2 tumour; 1 with little of another class, which stays unknown\n")
    assert labels_of(store) == [[IGNORE, IGNORE]] * 4 + [[0, 1], [IGNORE, 1]]
    assert labels_of(store, "whole")[:2] == [[0, 1], [1, 1]]


def test_stores_that_know_nothing_of_bounds_are_labelled(store: Path, drawn: Path, run: Callable[..., Result]) -> None:
    metadata = json.loads((store / "zarr.json").read_text())
    assert metadata["attributes"]["wsiseg"]["slide"].pop("bounds") is None
    (store / "zarr.json").write_text(json.dumps(metadata))

    assert run("label", store, "--from", drawn).code == 0
    assert labels_of(store)[:2] == [[0, 1], [1, 1]]


def test_bad_input_is_one_clear_line(tmp_path: Path, store: Path, drawn: Path, run: Callable[..., Result]) -> None:
    (tmp_path / "bad.geojson").write_text("{nonsense")
    far = boxes(tmp_path / "far.geojson", ((9000, 9000, 9010, 9010), "tumour"))
    nothing = boxes(tmp_path / "nothing.geojson")
    cases = [
        (("--from", tmp_path / "bad.geojson"), 5, "bad.geojson: not GeoJSON"),
        (("--from", tmp_path / "gone.geojson"), 5, "gone.geojson: there is no such file"),
        (("--from", drawn, "--classes", "tumour,fat"), 5, "class 'stroma', which is none of tumour, fat"),
        (("--from", drawn, "--classes", "tumour,stroma,tumour"), 2, "must be distinct"),
        (("--from", drawn, "--layer", "a/b"), 5, "cannot be the name of a layer"),
        (("--from", drawn, "--as", "mask"), 2, "mask"),
        (("--from", far), 4, "none of 1 annotations with a class covers the centre of a patch"),
        (("--from", nothing), 4, "none of 0 annotations"),
    ]
    for arguments, code, told in cases:
        result = run("label", store, *arguments)

        assert result.code == code, arguments
        assert told in " ".join(result.err.split())
        assert result.out == ""
    assert PatchStore.open(store).image_layers == {}


def test_stores_that_cannot_be_labelled_are_told(
    tmp_path: Path, store: Path, drawn: Path, run: Callable[..., Result], make_patch_store: MakePatchStore
) -> None:
    make_patch_store(tmp_path / "images.zarr", np.zeros((1, 8, 8, 3), np.uint8))

    of_images = run("label", tmp_path / "images.zarr", "--from", drawn)
    with locked(tmp_path / ".a.zarr.lock"):
        busy = run("label", store, "--from", drawn)

    assert run("label", tmp_path / "gone.zarr", "--from", drawn).code == 5
    assert of_images.code == 5
    assert "wsiseg ingest --labels" in of_images.err
    assert busy.code == 75
