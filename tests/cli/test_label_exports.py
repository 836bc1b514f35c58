"""`wsiseg label` takes what QuPath exports, by the names it gives, and tells what was drawn on another slide."""

from __future__ import annotations

import gzip
import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.geojson_makers import feature, write_features
from wsiseg.geometry import Region
from wsiseg.stores.patch_set import PatchSet
from wsiseg.stores.patch_store import PatchStore
from wsiseg.stores.patches import patch_names
from wsiseg.tasks.select_files import Row, write_rois

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Result

TILE = ("--tissue", "none", "--mpp", 1, "--patch-size", 50)
DRAWN = (feature((0, 0, 100, 100), "Region*"), feature((20, 20, 50, 60), "nucleus"))


def box_of(patch: str) -> dict[str, Any]:
    """Return the box around a patch at the corner of a slide, as QuPath exports it again."""
    made = feature((0, 0, 100, 100), "Region*")
    made["properties"] |= {"name": f"1: {patch}", "metadata": {"origin": "level0", "patch": patch, "cluster": "1"}}
    return made


def instances(store: Path) -> list[int]:
    """Return how many pixels the objects of each patch have; -1 where it has no labels."""
    patches = PatchStore.open(store)
    found = (patches.read_labels("labels", range(len(patches))) > 0).sum(axis=(1, 2))
    return np.where(patches.is_labelled("labels"), found, -1).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["image", "instances", "classes"])
def test_a_zip_of_qupath_is_read(tmp_path: Path, store: Path, run: Callable[..., Result], kind: str) -> None:
    text = write_features(tmp_path / "objects.geojson", feature((0, 0, 100, 100), "tumour")).read_text()
    with zipfile.ZipFile(tmp_path / "objects.zip", "w") as archive:
        archive.writestr("objects.geojson", text)

    result = run("label", store, "--from", tmp_path / "objects.zip", "--as", kind)

    assert result.code == 0, result.err
    assert result.out.startswith(f"1 of 6 patches labelled in {store}: ")


@pytest.mark.parametrize(
    "name", ["a.geojson", "a.json.gz", "a.zip", "a.geojson.zip", "a.tiff.geojson", "a.svs.GeoJSON"]
)
def test_a_folder_holds_exports_by_the_names_of_slides(
    tmp_path: Path, store: Path, run: Callable[..., Result], name: str
) -> None:
    folder = tmp_path / "drawn"
    folder.mkdir()
    text = write_features(folder / name, *DRAWN).read_text()
    if name.endswith(".zip"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("objects.geojson", text)
    elif name.endswith(".gz"):
        (folder / name).write_bytes(gzip.compress(text.encode()))
    # Neither is of this slide.
    (folder / "others.zip").write_bytes(b"")
    (folder / "a.settings.json").write_text("{}")

    result = run("label", store, "--from", folder, "--as", "instances")

    assert result.code == 0, result.err
    assert instances(store) == [300, -1, -1, -1, -1, -1]


def test_two_exports_of_one_slide_are_told(tmp_path: Path, store: Path, run: Callable[..., Result]) -> None:
    (tmp_path / "drawn").mkdir()
    for name in ("a.geojson", "a.tiff.geojson"):
        write_features(tmp_path / "drawn" / name, *DRAWN)

    result = run("label", store, "--from", tmp_path / "drawn", "--as", "instances")

    assert result.code == 5
    assert "a.tiff.geojson: the same name as a.geojson. Rename one of them" in result.err


def test_it_is_told_what_geojson_in_folders_is_named_after(
    tmp_path: Path, store: Path, run: Callable[..., Result]
) -> None:
    (tmp_path / "drawn").mkdir()
    empty = run("label", store, "--from", tmp_path / "drawn", "--as", "instances")
    # A patch of the slide, and another slide.
    for name in ("a-100-0.geojson", "b.tiff.geojson"):
        write_features(tmp_path / "drawn" / name, *DRAWN)

    result = run("label", store, "--from", tmp_path / "drawn", "--as", "instances")

    assert (empty.code, result.code) == (4, 4)
    named = "GeoJSON is named after the slide: a.geojson"
    assert f"a patch or an image of the store. Label images are named like a-0-0.png. {named}" in empty.err
    assert f"none of 2 files is named after a slide or an image of the store. {named}" in result.err


@pytest.mark.parametrize("kind", ["image", "instances"])
def test_what_was_drawn_on_another_slide_is_told(
    tmp_path: Path, store: Path, run: Callable[..., Result], kind: str
) -> None:
    (tmp_path / "drawn").mkdir()
    nucleus = feature((20, 20, 70, 70), "nucleus")
    other = write_features(tmp_path / "drawn" / "a.geojson", box_of("b-128-128"), nucleus)

    for source in (other, other.parent) if kind == "instances" else (other,):
        refused = run("label", store, "--from", source, "--as", kind)

        assert refused.code == 5
        assert (
            "a.geojson: its boxes are of patches such as b-128-128, none of a: they were drawn on another"
            in refused.err
        )
    # Who has renamed the slide says so.
    assert run("label", store, "--from", other, "--as", kind, "--set", "other_slide=true", "--layer", "new").code == 0
    write_features(other, box_of("b-128-128"), box_of("a-0-0"), nucleus)
    assert run("label", store, "--from", other, "--as", kind).code == 0


def test_boxes_of_select_are_of_the_slide_that_they_were_chosen_on(
    tmp_path: Path, store: Path, run: Callable[..., Result]
) -> None:
    (tmp_path / "a.tiff").rename(tmp_path / "b.tiff")
    assert run("tile", tmp_path / "b.tiff", "-o", tmp_path, *TILE).code == 0
    patches = PatchSet.open([tmp_path / "b.zarr"])
    row = Row(index=1, patch=patch_names(patches)[1], slide="b", x=100, y=0, cluster=1, members=6, rank=1, scores={})
    (path,) = write_rois(tmp_path, patches, [row], name="rois", origin="bounds")
    exported = json.loads(path.read_text())["features"]
    drawn = write_features(tmp_path / "again.geojson", *exported)

    refused = run("label", store, "--from", drawn, "--as", "instances")

    assert refused.code == 5
    assert "none of a: they were drawn on another slide" in refused.err
    assert run("label", tmp_path / "b.zarr", "--from", drawn, "--as", "instances").code == 0


def test_boxes_say_what_they_are_counted_from(
    tmp_path: Path, store: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsiseg.slides.openslide._bounds", lambda _: Region(100, 60, 150, 140))
    assert run("tile", tmp_path / "a.tiff", "-o", tmp_path, *TILE, "--reader", "openslide", "--overwrite").code == 0
    # QuPath drops what a file says as a whole.
    drawn = write_features(tmp_path / "again.geojson", box_of("a-0-0"), feature((20, 20, 50, 60), "nucleus"))
    assert "origin" not in json.loads(drawn.read_text())

    assert run("label", store, "--from", drawn, "--as", "instances").code == 0

    assert instances(store) == [300, -1, -1, -1, -1, -1]
