"""`wsiseg select`: patches to annotate, as a table, pictures, and boxes that lie where the patches do."""

from __future__ import annotations

import csv
import html
import json
import shlex
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.slide_makers import Layout, write_slide
from tests.tiny_models import save_tiny_model
from wsiseg.annotations.features import read_features
from wsiseg.geometry import Region, Size
from wsiseg.labels import LabelMap
from wsiseg.stores.mask_store import MaskStore
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks.select_files import is_table, read_chosen

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Result
    from tests.conftest import MakePatchStore

    Run = Callable[..., Result]

ENCODER = ("--encoder", "test_resnet", "--init", "none", "--num-workers", 1)
ANYTHING = ("--min-tissue", 0, "--min-nuclei", 0)


@pytest.fixture
def tiles(make_tiled_store: Callable[..., Path]) -> Path:
    """Return a store of 5 × 4 patches of 32 px that are 64 level-0 pixels wide, the last column cut off."""
    return make_tiled_store(Size(300, 256), patch_px=32, codec="zstd")


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "selection.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_everything_that_an_annotator_needs_is_written(tmp_path: Path, tiles: Path, run: Run) -> None:
    out = tmp_path / "s"
    code, told, _ = run("select", tiles, "-k", 3, "-o", out, "--runners-up", 2, *ENCODER, *ANYTHING)

    assert code == 0
    # Their pixels over those of all tissue, which on a canvas of 150 × 128 is everywhere: 3 · 32² / 19,200.
    assert told.startswith("3 of 16 patches chosen, 16.000% of the pixels of tissue")
    assert "left out of 20 before: 4 cut off by the edge" in told
    rows = table(out)
    assert list(rows[0])[:4] == ["patch", "slide", "x", "y"]
    assert [row["rank"] for row in rows[:3]] == ["1", "1", "1"]
    assert [row["cluster"] for row in rows[:3]] == ["1", "2", "3"]
    assert all(row["rank"] > "1" for row in rows[3:])
    store = PatchStore.open(tiles)
    path = out / "rois.geojson"
    features = read_features(path).features
    assert len(features) == 3
    for row, feature in zip(rows, features, strict=False):
        place = store.positions.tolist().index([int(row["x"]), int(row["y"])])
        assert row["patch"] == f"a-{row['x']}-{row['y']}"
        picture = np.asarray(Image.open(out / "patches" / f"{row['patch']}.png"))
        np.testing.assert_array_equal(picture, store.read_images([place])[0])
        assert feature.is_region
        assert feature.area is not None
        x, y = int(row["x"]), int(row["y"])
        assert feature.area.bounds == (x, y, x + 64, y + 64)
    properties = [feature["properties"] for feature in json.loads(path.read_text())["features"]]
    assert all(one["isLocked"] and one["name"] and one["objectType"] == "annotation" for one in properties)
    # Those that stand by are not taken for annotated, whoever drags them onto the slide.
    standing_by = read_features(out / "runners-up.geojson").features
    assert len(standing_by) == len(rows) - 3
    assert not any(one.is_region or one.classes for one in standing_by)
    drawn = run("label", tiles, "--from", out / "runners-up.geojson", "--as", "instances")
    assert drawn.code == 4
    assert (out / "contact_sheet.png").exists()
    assert (out / "cluster_map" / "a.png").exists()
    assert json.loads((out / "selection.json").read_text())["labelled_fraction"] == pytest.approx(0.16)
    page = (out / "selection.html").read_text()
    assert all(row["patch"] in page for row in rows)
    assert "16.00%" in page
    assert "http" not in page


def test_a_second_run_does_nothing_and_another_selection_is_refused(tmp_path: Path, tiles: Path, run: Run) -> None:
    out = tmp_path / "s"
    asked = ("select", tiles, "-k", 3, "-o", out, *ENCODER, *ANYTHING)
    assert run(*asked)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}

    code, told, _ = run(*asked)

    assert code == 0
    assert "already done" in told
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    code, _, err = run(*asked, "--seed", 1)
    assert code == 5
    assert "another selection" in err
    # Features are found again where they are, if they are the same numbers.
    features = ("--features", out / "features.zarr")
    code, _, err = run("select", tiles, "-k", 2, "-o", tmp_path / "t", *ENCODER, *ANYTHING, *features, "--amp", "bf16")
    assert code == 5
    assert "float32), not those asked for" in err
    assert run("select", tiles, "-k", 2, "-o", tmp_path / "t", *ENCODER, *ANYTHING, *features)[0] == 0
    assert not (tmp_path / "t" / "features.zarr").exists()
    assert run("select", tiles, "-k", 2, "-o", out, *ENCODER, *ANYTHING, "--overwrite")[0] == 0
    assert len([row for row in table(out) if row["rank"] == "1"]) == 2
    assert len(list((out / "patches").iterdir())) == 2


@pytest.mark.parametrize("name", ["patches/tile.png", "rois.geojson", "selection.csv", "selection.html"])
def test_what_was_there_before_is_not_removed(tmp_path: Path, tiles: Path, run: Run, name: str) -> None:
    out = tmp_path / "project"
    theirs = out / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    command = ("select", tiles, "-k", 2, "-o", out, "--strategy", "random", *ANYTHING)

    refused = run(*command, "--overwrite")

    assert refused.code == 5
    assert "what is there is none of a selection. Choose another --output" in " ".join(refused.err.split())
    assert theirs.read_text() == "theirs"
    theirs.unlink()
    if theirs.parent != out:
        theirs.parent.rmdir()
    assert run(*command).code == 0
    # Those of a selection are, also where it was stopped, or its table was taken elsewhere.
    for missing in ("selection.json", "selection.csv"):
        (out / missing).unlink()
        (out / "patches" / "earlier.png").touch()
        assert run(*command, "--overwrite", "--seed", 3).code == 0
        assert not (out / "patches" / "earlier.png").exists()


def test_random_patches_need_no_encoder_and_annotated_ones_are_left_out(tmp_path: Path, tiles: Path, run: Run) -> None:
    first = ("select", tiles, "-k", 4, "--strategy", "random", *ANYTHING)
    assert run(*first, "-o", tmp_path / "one")[0] == 0
    store = PatchStore.open(tiles)
    store.add_layer("drawn", "instances", LabelMap.from_names(("background", "nucleus")))
    store.write_labels("drawn", [0, 1], [np.ones((32, 32), np.int32)] * 2)

    exclude = ("--exclude", tmp_path / "one" / "selection.csv", "--exclude", "drawn")
    code, told, _ = run(*first, "-o", tmp_path / "two", *exclude)

    assert code == 0
    assert "annotated" in told
    annotated = {row["patch"] for row in table(tmp_path / "one") if row["rank"] == "1"} | {"a-0-0", "a-64-0"}
    assert not annotated.intersection(row["patch"] for row in table(tmp_path / "two"))
    assert not (tmp_path / "two" / "features.zarr").exists()
    assert not (tmp_path / "two" / "cluster_map").exists()


def test_what_only_reaches_into_an_annotated_patch_is_not_annotated(
    tmp_path: Path, make_patch_store: MakePatchStore, run: Run
) -> None:
    # Of the first all is known, of the second what they share; of the others a little, nothing, and that it is no use.
    corners = [(0, 0), (16, 0), (100, 0), (200, 0), (300, 0)]
    images = np.full((5, 32, 32, 3), 90, np.uint8)
    store = make_patch_store(tmp_path / "p.zarr", images, parents=["s"] * 5, positions=corners)
    store.add_layer("drawn", "instances", LabelMap.from_names(("background", "nucleus")))
    known = np.ones((4, 32, 32), np.int32)
    known[1, :, 16:] = known[2, 1:] = known[3] = -1
    store.write_labels("drawn", [0, 2, 4], list(known[[0, 2, 3]]))
    asked = ("select", store.path, "--strategy", "random", "--exclude", "drawn", *ANYTHING)

    def chosen(count: int, name: str, *options: object) -> set[str]:
        code, _, err = run(*asked, "-k", count, "-o", tmp_path / name, *options)
        assert code == 0, err
        return {row["patch"] for row in table(tmp_path / name) if row["rank"] == "1"}

    assert chosen(2, "free") == {"s-16-0", "s-200-0"}
    assert chosen(1, "apart", "--no-overlap") == {"s-200-0"}

    # The selection of before is still that, unless nothing that is chosen may reach into what is known.
    store.write_labels("drawn", [1], [known[1]])
    assert chosen(2, "free") == {"s-16-0", "s-200-0"}
    assert run(*asked, "-k", 1, "-o", tmp_path / "apart", "--no-overlap")[0] == 5
    assert chosen(1, "anew", "--no-overlap") == {"s-200-0"}
    # What was reached into before may be annotated itself by now, which leaves fewer to choose from.
    store.write_labels("drawn", [1], [known[0]])
    assert run(*asked, "-k", 1, "-o", tmp_path / "anew", "--no-overlap")[0] == 5


def test_annotated_patches_are_known_by_their_places_whatever_they_are_called(
    tmp_path: Path, make_patch_store: MakePatchStore, run: Run
) -> None:
    images = np.full((4, 16, 16, 3), 120, np.uint8)
    real = make_patch_store(tmp_path / "real.zarr", images, parents=list("abcc"), positions=[(0, 0)] * 3 + [(16, 0)])
    made = make_patch_store(tmp_path / "made.zarr", images[:3], parents=list("aab"), origin="synthetic")
    asked = ("--strategy", "random", *ANYTHING)
    assert run("select", real.path, "-k", 2, *asked, "-o", tmp_path / "one")[0] == 0
    # As it was chosen from stores in which names were other ones.
    chosen = tmp_path / "one" / "selection.csv"
    rows = [row for row in table(tmp_path / "one") if row["rank"] == "1"]
    chosen.write_text("patch,slide,x,y\n" + "".join(f"p,{row['slide']},{row['x']},{row['y']}\n" for row in rows))

    code, told, err = run("select", made.path, real.path, "-k", 2, *asked, "--exclude", chosen, "-o", tmp_path / "two")

    assert code == 0, err
    assert "2 annotated" in told
    places = {(row["slide"], row["x"], row["y"]) for row in table(tmp_path / "two")}
    assert places == {("a", "0", "0"), ("b", "0", "0"), ("c", "0", "0"), ("c", "16", "0")} - {
        (row["slide"], row["x"], row["y"]) for row in rows
    }
    assert {row["patch"] for row in table(tmp_path / "two")} <= {"a", "b", "c-0-0", "c-16-0"}


def test_images_of_any_size_may_be_chosen_and_count_with_their_own_pixels(
    tmp_path: Path, make_patch_store: MakePatchStore, run: Run
) -> None:
    images = np.full((3, 32, 32, 3), 120, np.uint8)
    extents = np.array([[32, 32], [20, 10], [16, 16]], np.int32)
    path = make_patch_store(tmp_path / "p.zarr", images, extents=extents).path

    code, told, err = run("select", path, "-k", 3, "--strategy", "random", *ANYTHING, "-o", tmp_path / "s")

    assert code == 0, err
    assert told.startswith("3 of 3 patches chosen, 100.000% of the pixels of tissue")
    page = (tmp_path / "s" / "selection.html").read_text()
    assert "patches of up to 32 × 32 px" in page
    assert f"{(32 * 32 + 20 * 10 + 16 * 16) / 4e6:.3g} mm²" in page
    with Image.open(tmp_path / "s" / "patches" / "image1.png") as picture:
        assert picture.size == (20, 10)


def test_the_page_says_how_each_store_with_chosen_patches_is_labelled(
    tmp_path: Path, tiles: Path, make_patch_store: MakePatchStore, run: Run
) -> None:
    write_slide(tmp_path / "b c.tiff", Layout(size=Size(256, 128), mpp=0.5))
    cut = ("--tissue", "none", "--mpp", 1, "--patch-size", 32, "--codec", "zstd")
    assert run("tile", tmp_path / "b c.tiff", "-o", tmp_path, *cut)[0] == 0
    images = make_patch_store(tmp_path / "images.zarr", np.full((2, 32, 32, 3), 120, np.uint8), mpp=1).path
    held_out = make_patch_store(
        tmp_path / "0.zarr", np.full((2, 32, 32, 3), 120, np.uint8), mpp=1, splits=["test"] * 2
    ).path
    stores = (held_out, tiles, tmp_path / "b c.zarr", images)

    # All that there are: 16 of the one slide, 8 of the other, 2 images.
    code, _, err = run("select", *stores, "-k", 26, "--strategy", "random", *ANYTHING, "-o", tmp_path / "s")

    assert code == 0, err
    page = html.unescape((tmp_path / "s" / "selection.html").read_text())
    commands = [line.removeprefix("<pre>") for line in page.splitlines() if "wsiseg label" in line]
    assert [shlex.split(line.removesuffix("</pre>"))[2:5] for line in commands] == [
        [str(tiles), "--from", "annotations/a.geojson"],
        [str(tmp_path / "b c.zarr"), "--from", "annotations/b c.geojson"],
        [str(images), "--from", "labels/"],
    ]


def test_stores_of_other_resolutions_are_refused_before_anything_is_made(
    tmp_path: Path, make_patch_store: MakePatchStore, run: Run
) -> None:
    images = np.full((3, 32, 32, 3), 120, np.uint8)
    stores = [make_patch_store(tmp_path / f"{mpp}.zarr", images, mpp=mpp).path for mpp in (0.25, 0.5)]

    code, _, err = run("select", *stores, "-k", 2, *ENCODER, *ANYTHING, "-o", tmp_path / "s")

    assert code == 5
    assert "different resolutions (0.25, 0.5 µm/px)" in err
    assert not (tmp_path / "s").exists()


def test_blank_patches_are_chosen_only_where_the_filter_is_off(
    tmp_path: Path, make_patch_store: MakePatchStore, run: Run
) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(60, 150, size=(12, 32, 32, 3)).astype(np.uint8)
    images[:6] = 245
    images[6:9, :, :, 1] //= 3
    make_patch_store(tmp_path / "p.zarr", images)
    asked = ("select", tmp_path / "p.zarr", "-k", 2, *ENCODER)

    assert run(*asked, "-o", tmp_path / "on")[0] == 0
    assert run(*asked, "-o", tmp_path / "off", *ANYTHING)[0] == 0

    blank = {f"image{number}" for number in range(6)}
    assert not blank.intersection(row["patch"] for row in table(tmp_path / "on"))
    assert blank.intersection(row["patch"] for row in table(tmp_path / "off") if row["rank"] == "1")
    # Images of a folder keep no thumbnail, and each has a file of boxes.
    assert not (tmp_path / "on" / "cluster_map").exists()
    assert len(list((tmp_path / "on" / "rois").glob("*.geojson"))) == 2


def test_where_every_patch_overlaps_annotated_ones_none_is_chosen(
    tmp_path: Path, make_patch_store: MakePatchStore, run: Run
) -> None:
    store = make_patch_store(tmp_path / "p.zarr", np.full((4, 32, 32, 3), 90, np.uint8), parents=["one image"] * 4)
    store.add_layer("drawn", "instances", LabelMap.from_names(("background", "nucleus")))
    store.write_labels("drawn", [0], [np.ones((32, 32), np.int32)])
    asked = (
        "select",
        store.path,
        "-k",
        1,
        "-o",
        tmp_path / "s",
        "--strategy",
        "random",
        "--exclude",
        "drawn",
        *ANYTHING,
    )

    code, _, err = run(*asked, "--no-overlap")

    assert code == 4
    assert "every patch overlaps annotated ones" in err
    assert not (tmp_path / "s" / "selection.csv").exists()


def test_what_a_prediction_is_least_sure_of_is_proposed_next(tmp_path: Path, tiles: Path, run: Run) -> None:
    model, predictions = save_tiny_model(tmp_path / "model"), tmp_path / "predictions"
    everywhere = ("--set", "tissue.method=none")
    assert run("predict", tmp_path / "a.tiff", "--model", model, "-o", predictions, *everywhere)[0] == 0
    patches = PatchStore.open(tiles)
    nuclei, truth = LabelMap.from_names(("background", "nucleus")), [np.ones((32, 32), np.int32)] * 2
    patches.add_layer("drawn", "instances", nuclei)
    patches.write_labels("drawn", [0, 1], truth)
    patches.add_layer("guessed", "instances", nuclei, made_by="a model")
    patches.write_labels("guessed", [2, 3], truth)
    asked = ("select", tiles, "-k", 3, "--strategy", "uncertainty", *ANYTHING)

    code, told, err = run(*asked, "--prediction", predictions, "-o", tmp_path / "s")

    assert code == 0, err
    # A row is cut off, and two are annotated by hand.
    assert told.startswith("3 of 14 patches chosen")
    rows = table(tmp_path / "s")
    prediction = MaskStore.open(predictions / "a" / "prediction.zarr")
    for row in rows:
        window = prediction.canvas.scale.window(Region(int(row["x"]), int(row["y"]), 64, 64))
        mean = prediction.read("uncertainty", window).mean() / 255
        assert float(row["uncertainty"]) == pytest.approx(mean, rel=1e-4)
        assert row["score"] == ""
    most = max(rows, key=lambda row: float(row["uncertainty"]))
    assert (most["rank"], most["cluster"]) == ("1", "1")
    assert not {"a-0-0", "a-64-0"} & {row["patch"] for row in rows}
    assert (tmp_path / "s" / "uncertainty_map" / "a.png").exists()
    assert not (tmp_path / "s" / "features.zarr").exists()
    page = (tmp_path / "s" / "selection.html").read_text()
    assert "the darker a patch, the less certain" in page
    assert len(read_features(tmp_path / "s" / "rois.geojson").features) == 3
    assert "already done" in run(*asked, "--prediction", predictions / "a", "-o", tmp_path / "s")[1]

    # What is said replaces what is taken for annotated.
    table_alone = ("--exclude", tmp_path / "s" / "selection.csv", "-o", tmp_path / "t")
    code, told, _ = run(*asked, "--prediction", predictions, *table_alone)
    assert told.startswith("3 of 13 patches chosen")
    chosen = {row["patch"] for row in rows if row["rank"] == "1"}
    assert not chosen & {row["patch"] for row in table(tmp_path / "t")}


def test_a_prediction_must_be_there_and_of_the_same_slide(tmp_path: Path, tiles: Path, run: Run) -> None:
    folder = tmp_path / "predictions" / "a"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"plan": {"slide": "another", "settings": {}}}))
    asked = ("select", tiles, "-k", 1, "-o", tmp_path / "s")
    cases = [
        (("--strategy", "uncertainty"), 2, "--prediction: the strategy uncertainty needs one"),
        (("--strategy", "random", "--prediction", tmp_path), 2, "--prediction: the strategy random needs none"),
        (("--strategy", "uncertainty", "--prediction", tmp_path), 5, "no finished prediction of a."),
        (("--strategy", "uncertainty", "--prediction", folder.parent), 5, "of another slide than the patches"),
    ]
    for arguments, code, told in cases:
        found = run(*asked, *arguments)

        assert found[0] == code, arguments
        assert told in found[2]
    (folder / "summary.json").write_text("{}")
    assert "the summary is damaged" in run(*asked, *cases[-1][0])[2]


def test_bad_input_is_one_clear_line(tmp_path: Path, tiles: Path, run: Run) -> None:
    cases = [
        (("--strategy", "best"), 2, "no strategy 'best'"),
        (("-k", 17, "--strategy", "random"), 4, "16 patches are left to choose 17 from"),
        (("--min-tissue", 0, "--min-nuclei", 1, "--strategy", "random"), 4, "without nuclei"),
        (("--exclude", "gone"), 2, "neither a layer of labels nor a table"),
        (("--encoder", "resnet5000"), 2, "no encoder 'resnet5000'"),
        (("--set", "cps.sub_clusters=9"), 2, "cps.sub_clusters"),
    ]
    for arguments, code, told in cases:
        given = ("select", tiles, "-o", tmp_path / "s", *ENCODER, *ANYTHING, *arguments)
        found = run(*given)

        assert found[0] == code, arguments
        assert told in found[2]
        assert found[1] == ""
    assert not (tmp_path / "s" / "selection.csv").exists()


def test_a_table_in_another_encoding_is_told_as_that(tmp_path: Path, tiles: Path, run: Run) -> None:
    edited = tmp_path / "edited.csv"
    edited.write_bytes("patch;slide;x;y;cluster;members;rank\nMüller;Müller;0;0;1;1;1\n".encode("cp1252"))

    found = run("select", tiles, "-k", 2, "-o", tmp_path / "s", "--exclude", edited, *ENCODER, *ANYTHING)

    assert found.code == 5
    assert "edited.csv: the file is not in UTF-8. Save it as UTF-8" in found.err
    assert is_table(edited)


@pytest.mark.parametrize(
    ("delimiter", "encoding"), [(",", "utf-8"), (",", "utf-8-sig"), (";", "utf-8"), ("\t", "utf-8-sig")]
)
def test_another_patch_may_be_taken_in_a_spreadsheet(
    tmp_path: Path, tiles: Path, run: Run, delimiter: str, encoding: str
) -> None:
    assert run("select", tiles, "-k", 2, "-o", tmp_path / "s", "--runners-up", 1, *ENCODER, *ANYTHING).code == 0
    rows = table(tmp_path / "s")
    other = next(row for row in rows[2:] if row["cluster"] == rows[0]["cluster"])
    rows[0]["rank"], other["rank"] = other["rank"], rows[0]["rank"]
    with (tmp_path / "edited.csv").open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)

    assert {row["patch"] for row in read_chosen(tmp_path / "edited.csv")} == {rows[1]["patch"], other["patch"]}
    excluding = ("--exclude", tmp_path / "edited.csv")
    assert run("select", tiles, "-k", 2, "-o", tmp_path / "next", *excluding, *ENCODER, *ANYTHING).code == 0
    assert not {row["patch"] for row in table(tmp_path / "next")} & {rows[1]["patch"], other["patch"]}
