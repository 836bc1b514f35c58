"""`wsiseg label --as instances|classes`: what was drawn becomes labels of pixels, or one clear line."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.geojson_makers import feature, write_features
from tests.slide_makers import Layout, write_slide
from wsiseg.geometry import Region, Size
from wsiseg.labels import IGNORE, LabelMap
from wsiseg.lock import locked
from wsiseg.rasters import write_labels
from wsiseg.stores.patch_set import PatchSet
from wsiseg.stores.patch_store import PatchStore
from wsiseg.training.sources import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.cli.conftest import Result
    from tests.conftest import MakePatchStore


TILE = ("--tissue", "none", "--mpp", 1, "--patch-size", 50)


@pytest.fixture
def images(tmp_path: Path, make_patch_store: MakePatchStore) -> Path:
    """Return a store of two images of 8 × 6 pixels in arrays of 8 × 8."""
    make_patch_store(
        tmp_path / "images.zarr",
        np.zeros((2, 8, 8, 3), np.uint8),
        parents=("train/one", "train/two"),
        extents=np.array([[8, 6], [8, 6]], np.int32),
    )
    return tmp_path / "images.zarr"


def canvas_of(store: Path, layer: str = "labels", *, unknown: int = -1) -> NDArray[np.int32]:
    """Return the labels of the patches of `store`, put together as they lie; -1 where there are none."""
    patches = PatchStore.open(store)
    canvas = np.full((100, 125), unknown, dtype=np.int32)
    is_labelled = patches.is_labelled(layer)
    for index, ((x, y), (width, height)) in enumerate(zip(patches.windows, patches.extents, strict=True)):
        if is_labelled[index]:
            canvas[y : y + height, x : x + width] = patches.read_labels(layer, [index])[0, :height, :width]
    return canvas


def test_objects_in_a_box_become_instances_and_all_outside_is_ignored(
    tmp_path: Path, store: Path, run: Callable[..., Result]
) -> None:
    drawn = write_features(
        tmp_path / "a.geojson",
        feature((0, 0, 200, 100), "Region*"),
        # Over the seam of two patches, beside its neighbour, and with a hole in it.
        feature((90, 20, 110, 60), "nucleus", hole=(92, 24, 96, 28)),
        feature((110, 20, 120, 60), "nucleus", kind="detection"),
        feature((30, 30, 50, 50), "Ignore*"),
        feature((220, 150, 230, 160), "nucleus"),
    )

    result = run("label", store, "--from", drawn, "--as", "instances")

    expected = np.full((100, 125), -1)
    expected[:50, :100] = 0
    expected[10:30, 45:55] = 2
    expected[12:14, 46:48] = 0
    expected[10:30, 55:60] = 3
    expected[15:25, 15:25] = -1
    assert result.out == (
        f"2 of 6 patches labelled in {store}: 2 objects; 2.0% of their pixels ignored; "
        "1 objects lie elsewhere or are too small\n"
    )
    np.testing.assert_array_equal(canvas_of(store), expected)
    info = PatchStore.open(store).layers["labels"]
    assert (info.kind, info.labels.names, info.labels[1].colour) == ("instances", ("background", "object"), (1, 2, 3))
    patch = Source(patches=PatchStore.open(store), layer="labels", indices=np.array([0])).read(0)
    np.testing.assert_array_equal(patch.valid, expected[:50, :50] >= 0)


def test_objects_of_slides_go_together_whatever_was_drawn_on_each(
    tmp_path: Path, store: Path, run: Callable[..., Result]
) -> None:
    write_slide(tmp_path / "b.tiff", Layout(size=Size(250, 200), mpp=0.5))
    assert run("tile", tmp_path / "b.tiff", "-o", tmp_path, *TILE).code == 0
    other, box = tmp_path / "b.zarr", feature((0, 0, 200, 100), "Region*")
    some = write_features(tmp_path / "a.geojson", box, feature((90, 20, 110, 60), "nucleus"))
    none = write_features(tmp_path / "b.geojson", box)

    for path, drawn in ((store, some), (other, none)):
        assert run("label", path, "--from", drawn, "--as", "instances").code == 0
        # The name is that of all objects, also of those that were drawn as something else.
        named = ("--layer", "named", "--classes", "cell")
        assert run("label", path, "--from", drawn, "--as", "instances", *named).code == 0
        several = ("--layer", "several", "--classes", "cell,nucleus")
        assert run("label", path, "--from", drawn, "--as", "instances", *several).code == 0
    strange = run(
        "label", store, "--from", some, "--as", "instances", "--layer", "strange", "--classes", "cell,Nucleus"
    )

    layers = PatchSet.open([store, other]).layers
    assert [layers[name].labels.names[1] for name in ("labels", "named", "several")] == ["object", "cell", "object"]
    np.testing.assert_array_equal(canvas_of(store, "named"), canvas_of(store))
    assert strange.code == 5
    assert "an object is of the class 'nucleus', which is none of cell, Nucleus" in strange.err


def test_classes_keep_names_and_what_is_not_drawn_is_ignored(
    tmp_path: Path, store: Path, run: Callable[..., Result]
) -> None:
    drawn = write_features(
        tmp_path / "a.geojson",
        feature((0, 0, 80, 80), "tumour"),
        feature((20, 20, 40, 40), "necrosis"),
        feature((4, 4, 8, 8), None),
        feature((60, 60, 100, 100), "Ignore*"),
    )

    sparse = run("label", store, "--from", drawn, "--as", "classes")
    full = run("label", store, "--from", drawn, "--as", "classes", "--layer", "full", "--undrawn", "background")
    named = run(
        "label", store, "--from", drawn, "--as", "classes", "--layer", "named", "--classes", "tumour,fat,necrosis"
    )

    expected = np.full((100, 125), IGNORE)
    expected[:40, :40] = 2
    expected[10:20, 10:20] = 1
    expected[2:4, 2:4] = expected[30:40, 30:40] = IGNORE
    assert sparse.out == (
        f"1 of 6 patches labelled in {store}: 2 objects, 0.0% background, 6.7% necrosis, 93.3% tumour; "
        "40.2% of their pixels ignored; 1 objects lie partly under smaller ones, which count; "
        "1 objects left out, without area or of no class; "
        "nothing is background, for want of boxes of the class Region* or --undrawn background\n"
    )
    np.testing.assert_array_equal(canvas_of(store, unknown=IGNORE), expected)
    assert full.code == 0
    outside = expected == IGNORE
    outside[2:4, 2:4] = outside[30:50, 30:50] = False
    np.testing.assert_array_equal(canvas_of(store, "full"), np.where(outside, 0, expected))
    assert "background" not in named.out
    assert PatchStore.open(store).layers["named"].labels.names == ("tumour", "fat", "necrosis")
    assert set(np.unique(canvas_of(store, "named", unknown=IGNORE))) == {0, 2, IGNORE}


def test_a_box_around_a_patch_labels_that_patch_alone(tmp_path: Path, store: Path, run: Callable[..., Result]) -> None:
    # 1.4 level-0 pixels in one of the canvas, and two decimals in files.
    tile = ("--tissue", "none", "--mpp", 0.7, "--patch-size", 83, "--overlap", 11, "--overwrite")
    assert run("tile", tmp_path / "a.tiff", "-o", tmp_path, *tile).code == 0
    patches = PatchStore.open(store)
    for index in range(len(patches)):
        left, top = patches.windows[index] * 1.4
        right, bottom = (patches.windows[index] + patches.extents[index]) * 1.4
        box = (round(left, 2), round(top, 2), round(right, 2), round(bottom, 2))
        drawn = write_features(tmp_path / "a.geojson", feature(box, "Region*"))

        result = run("label", store, "--from", drawn, "--as", "instances", "--overwrite")

        assert "no object was drawn in any of them" in result.out
        made = PatchStore.open(store)
        labels = np.where(made.is_labelled("labels")[:, None, None], made.read_labels("labels", range(len(made))), -1)
        known = [
            (one[:height, :width] == 0).sum()
            for one, (width, height) in zip(labels, patches.extents.tolist(), strict=True)
        ]
        # Its neighbours know of it what they share with it.
        starts, ends = patches.windows, patches.windows + patches.extents
        shared = np.minimum(ends, ends[index]) - np.maximum(starts, starts[index])
        assert known == shared.clip(0).prod(axis=1).tolist()
        assert known[index] == patches.extents[index].prod()


def test_a_second_run_does_nothing_unless_something_differs(
    tmp_path: Path, store: Path, run: Callable[..., Result]
) -> None:
    first = write_features(tmp_path / "a.geojson", feature((0, 0, 80, 80), "nucleus"))
    second = write_features(tmp_path / "b.geojson", feature((0, 0, 80, 82), "nucleus"))
    asked = ("--as", "instances", "--undrawn", "background")
    assert run("label", store, "--from", first, *asked).code == 0

    again = run("label", store, "--from", first, *asked)
    refused = run("label", store, "--from", second, *asked)

    assert again.out.endswith(", already done\n")
    assert refused.code == 5
    assert "other labels in the layer 'labels'. Say --keep to keep those of other patches, " in refused.err
    assert canvas_of(store)[40, 0] == 0
    assert run("label", store, "--from", second, *asked, "--overwrite").code == 0
    assert canvas_of(store)[40, 0] == 1
    assert sorted(path.name for path in (store / "labels").iterdir()) == ["labels", "zarr.json"]


def test_patches_that_nothing_is_told_of_keep_their_labels_if_they_shall(
    tmp_path: Path, store: Path, run: Callable[..., Result]
) -> None:
    def labelled(*features: dict[str, Any], options: tuple[str, ...] = ("--keep",)) -> Result:
        drawn = write_features(tmp_path / "drawn.geojson", *features)
        return run("label", store, "--from", drawn, "--as", "instances", *options)

    boxes = [feature((left, 0, left + 100, 100), "Region*") for left in (0, 100)]
    assert labelled(*boxes, feature((20, 20, 50, 60), "nucleus"), feature((130, 20, 160, 60), "nucleus")).code == 0
    before = canvas_of(store)

    # Another time only the second box, in which the nucleus lies elsewhere.
    later = [boxes[1], feature((140, 40, 180, 60), "cell")]
    result = labelled(*later)
    again = labelled(*later)

    expected = before.copy()
    expected[:50, 50:100] = 0
    expected[20:30, 70:90] = 2
    assert result.code == 0, result.err
    np.testing.assert_array_equal(canvas_of(store), expected)
    assert "1 of 6 patches labelled" in result.out
    assert "; 1 others keep their labels" in result.out
    assert "already done" not in result.out
    assert "already done" in again.out
    named = labelled(*later, options=("--keep", "--classes", "cell"))
    assert named.code == 5
    assert "the layer 'labels' holds instances of background, object" in named.err
    # A file that tells of no patch is one that went wrong.
    assert labelled(feature((0, 0, 90, 100), "Ignore*")).code == 4
    np.testing.assert_array_equal(canvas_of(store), expected)
    assert labelled(*later, options=("--overwrite",)).code == 0
    assert PatchStore.open(store).is_labelled("labels").tolist() == [False, True, False, False, False, False]


def test_what_is_to_be_ignored_whole_is_known_to_be_so(tmp_path: Path, store: Path, run: Callable[..., Result]) -> None:
    def labelled(*features: dict[str, Any]) -> Result:
        drawn = write_features(tmp_path / "drawn.geojson", *features)
        return run("label", store, "--from", drawn, "--as", "instances", "--keep")

    assert labelled(feature((0, 0, 100, 100), "Region*"), feature((20, 20, 50, 60), "nucleus")).code == 0

    # What a prediction did not look at is not known to be nothing.
    unseen = labelled(feature((200, 0, 250, 100), "Not analysed"), feature((20, 20, 50, 60), "nucleus"))
    assert "1 of 6 patches labelled" in unseen.out
    # A fold of the tissue, which somebody finds in the box.
    result = labelled(feature((0, 0, 100, 100), "Region*"), feature((0, 0, 110, 100), "Ignore*"))

    assert result.code == 0, result.err
    assert "1 of 6 patches labelled" in result.out
    assert "; 1 of them to be ignored whole" in result.out
    assert PatchStore.open(store).is_labelled("labels").tolist() == [True, False, False, False, False, False]
    assert (canvas_of(store)[:50, :50] == -1).all()


def test_objects_without_a_box_are_warned_of(tmp_path: Path, store: Path, run: Callable[..., Result]) -> None:
    nucleus, box = feature((20, 20, 50, 60), "nucleus"), feature((0, 0, 100, 100), "Region*")
    alone = run("label", store, "--from", write_features(tmp_path / "a.geojson", nucleus), "--as", "instances")
    full = write_features(tmp_path / "b.geojson", box, feature((0, 0, 100, 100), "nucleus"))
    filled = run("label", store, "--from", full, "--as", "instances", "--layer", "filled")
    both = write_features(tmp_path / "c.geojson", box, nucleus)
    known = run("label", store, "--from", both, "--as", "instances", "--layer", "known")

    assert "nothing is background, for want of boxes of the class Region*" in alone.out
    assert "nothing is background, as objects fill the boxes" in filled.out
    assert ["nothing tells what is background" in one.err for one in (alone, filled, known)] == [True, False, False]
    assert "nothing is background" not in known.out


@pytest.mark.parametrize("has_box", [True, False])
def test_an_outline_of_tissue_is_no_nucleus(
    tmp_path: Path, store: Path, run: Callable[..., Result], *, has_box: bool
) -> None:
    nuclei = [feature((20 * at, 20, 20 * at + 10, 30), "nucleus") for at in range(1, 6)]
    boxes = [feature((10, 10, 140, 50), "Region*")] if has_box else []
    tissue = (0, 0, 200, 100)

    def labelled(*features: dict[str, Any], kind: str = "instances") -> Result:
        drawn = write_features(tmp_path / "a.geojson", *boxes, *features)
        return run("label", store, "--from", drawn, "--as", kind, "--overwrite", "--undrawn", "background")

    refused = labelled(*nuclei, feature(tissue, "Tissue"))
    classes = labelled(*nuclei, feature(tissue, "Tissue"), kind="classes")
    starred = labelled(*nuclei, feature(tissue, "Tissue*"))
    # A gland may be larger than its box, and have others within.
    gland = labelled(*nuclei[:4], feature(tissue, "gland"))
    # A giant cell has many nuclei, and there are others.
    cells = [feature((20 * at, 60, 20 * at + 10, 70), "nucleus") for at in range(1, 7)]
    giant = labelled(*nuclei, *cells, feature((12, 12, 138, 48), "cell"))

    assert refused.code == 5
    assert f"feature {len(boxes) + 6} of the class Tissue holds 5 others" in refused.err
    assert [one.code for one in (classes, starred, gland, giant)] == [0] * 4, giant.err


def test_labels_of_a_model_never_become_drawn_ones(tmp_path: Path, store: Path, run: Callable[..., Result]) -> None:
    labels = LabelMap.from_names(("background", "object"))
    PatchStore.open(store).add_layer("made", "instances", labels, made_by="run-1")
    drawn = write_features(tmp_path / "a.geojson", feature((0, 0, 100, 100), "Region*"))

    result = run("label", store, "--from", drawn, "--as", "instances", "--layer", "made", "--keep")

    assert result.code == 5
    assert "the labels in the layer 'made' were made by a model" in result.err
    assert PatchStore.open(store).layers["made"].made_by == "run-1"


def test_a_kill_while_labels_were_replaced_costs_none(tmp_path: Path, store: Path, run: Callable[..., Result]) -> None:
    def labelled(left: int) -> Result:
        drawn = write_features(tmp_path / "drawn.geojson", feature((left, 0, left + 100, 100), "Region*"))
        return run("label", store, "--from", drawn, "--as", "instances", "--keep")

    assert labelled(0).code == 0
    # Between the two renames of a folder that takes the place of another.
    (store / "labels" / "labels").rename(store / "labels" / ".labels.0123abcd.old")

    assert labelled(100).code == 0
    assert PatchStore.open(store).is_labelled("labels").tolist() == [True, True, False, False, False, False]


def test_labels_of_another_process_are_kept(
    tmp_path: Path, store: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = [
        write_features(tmp_path / f"{left}.geojson", feature((left, 0, left + 100, 100), "Region*"))
        for left in (0, 100)
    ]

    def asked(drawn: Path) -> Result:
        return run("label", store, "--from", drawn, "--as", "instances", "--keep")

    def late(path: Path) -> AbstractContextManager[None]:
        monkeypatch.undo()
        assert asked(boxes[0]).code == 0
        return locked(path)

    monkeypatch.setattr("wsiseg.tasks.label_masks.locked", late)

    assert asked(boxes[1]).code == 0
    assert PatchStore.open(store).is_labelled("labels").tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize(("undrawn", "count"), [("ignore", 1), ("background", 6)])
def test_where_an_image_of_a_slide_shows_nothing_nobody_may_have_looked(
    tmp_path: Path, store: Path, run: Callable[..., Result], undrawn: str, count: int
) -> None:
    canvas = np.zeros((100, 125), np.int32)
    canvas[60:70, 60:70] = 1
    write_labels(tmp_path / "whole.png", canvas)

    for kind in ("instances", "classes"):
        asked = ("--as", kind, "--layer", kind, "--undrawn", undrawn)
        assert run("label", store, "--from", tmp_path / "whole.png", *asked).code == 0

        assert PatchStore.open(store).is_labelled(kind).sum() == count
        assert canvas_of(store, kind)[65, 65] == 1
        assert canvas_of(store, kind)[75, 75] == 0


def test_labels_are_kept_or_replaced_and_those_of_whole_patches_cannot_be_kept(
    tmp_path: Path, store: Path, run: Callable[..., Result]
) -> None:
    drawn = write_features(tmp_path / "drawn.geojson", feature((0, 0, 100, 100), "nucleus"))

    for options in (("--as", "instances", "--overwrite"), ("--as", "image")):
        refused = run("label", store, "--from", drawn, "--keep", *options)
        assert refused.code == 2
        assert "--keep" in refused.err


def test_what_was_drawn_is_counted_from_the_scanned_bounds_unless_the_file_says_otherwise(
    tmp_path: Path, store: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsiseg.slides.openslide._bounds", lambda _: Region(100, 60, 150, 140))
    assert run("tile", tmp_path / "a.tiff", "-o", tmp_path, *TILE, "--reader", "openslide", "--overwrite").code == 0
    drawn = write_features(tmp_path / "a.geojson", feature((0, 0, 20, 20), "nucleus"))
    told = tmp_path / "told.geojson"
    told.write_text(json.dumps({**json.loads(drawn.read_text()), "metadata": {"origin": "level0"}}))

    places = []
    for number, arguments in enumerate(((drawn,), (drawn, "--qupath-origin", "level0"), (told,))):
        done = run("label", store, "--from", *arguments, "--as", "instances", "--layer", f"l{number}")
        assert done.code == 0
        places.append(np.argwhere(canvas_of(store, f"l{number}") > 0).min(axis=0).tolist())

    assert places == [[30, 50], [0, 0], [0, 0]]


def test_label_images_are_taken_by_the_names_of_patches_and_images(
    tmp_path: Path, store: Path, images: Path, run: Callable[..., Result]
) -> None:
    canvas = np.arange(100)[:, None] // 10 * 13 + np.arange(125) // 10
    write_labels(tmp_path / "whole.png", canvas)
    for name, part in (("a-100-0", canvas[:50, 50:100]), ("a-200-100", canvas[50:, 100:]), ("b-0-0", canvas[:50, :50])):
        write_labels(tmp_path / "patches" / f"{name}.png", part)
    # Not a drawing.
    (tmp_path / "patches" / "selection.json").write_text("{}")
    one, two = np.arange(48).reshape(6, 8), np.full((6, 8), IGNORE)
    write_labels(tmp_path / "images" / "one.png", one % 3)
    write_labels(tmp_path / "images" / "two.tif", two)

    whole = run("label", store, "--from", tmp_path / "whole.png", "--as", "instances")
    parts = run("label", store, "--from", tmp_path / "patches", "--as", "instances", "--layer", "parts")
    classed = run("label", images, "--from", tmp_path / "images", "--as", "classes")

    assert whole.out == f"6 of 6 patches labelled in {store}: 129 objects\n"
    np.testing.assert_array_equal(canvas_of(store), canvas)
    assert parts.out.startswith(f"2 of 6 patches labelled in {store}: ")
    assert "1 files belong to no patch, such as b-0-0.png" in parts.err
    assert PatchStore.open(store).is_labelled("parts").tolist() == [False, True, False, False, False, True]
    np.testing.assert_array_equal(canvas_of(store, "parts")[:50, 50:100], canvas[:50, 50:100])
    assert classed.out.startswith(
        f"1 of 2 patches labelled in {images}: 33.3% background, 33.3% class 1, 33.3% class 2"
    )
    patches = PatchStore.open(images)
    np.testing.assert_array_equal(patches.read_labels("labels", [0])[0, :6], one % 3)
    assert patches.is_labelled("labels").tolist() == [True, False]


def test_palette_images_hold_indices(tmp_path: Path, images: Path, run: Callable[..., Result]) -> None:
    mask = Image.fromarray(np.full((6, 8), 1, np.uint8))
    mask.putpalette([0, 0, 0, 250, 0, 0])
    (tmp_path / "masks").mkdir()
    mask.save(tmp_path / "masks" / "two.png")

    assert run("label", images, "--from", tmp_path / "masks", "--as", "classes", "--classes", "a,b").code == 0

    patches = PatchStore.open(images)
    assert (patches.read_labels("labels", [1])[0, :6] == 1).all()
    assert (patches.read_labels("labels", [1])[0, 6:] == IGNORE).all()


def test_each_image_of_a_folder_has_a_drawing_of_its_own(
    tmp_path: Path, images: Path, run: Callable[..., Result]
) -> None:
    (tmp_path / "drawn").mkdir()
    write_features(tmp_path / "drawn" / "one.geojson", feature((0, 0, 3, 2), "nucleus"))
    write_features(tmp_path / "drawn" / "two.json", feature((0, 0, 8, 6), "Region*"), feature((5, 3, 8, 6), "cell"))
    # Not a label image among drawings, whatever else is in the folder.
    write_labels(tmp_path / "drawn" / "two.png", np.zeros((3, 3), np.uint8))

    result = run("label", images, "--from", tmp_path / "drawn", "--as", "instances")

    assert result.out.startswith(f"2 of 2 patches labelled in {images}: 2 objects; ")
    patches = PatchStore.open(images)
    assert patches.layers["labels"].labels.names == ("background", "object")
    one, two = patches.read_labels("labels", [0, 1])
    assert np.unique(one[:6]).tolist() == [-1, 1]
    assert (two[3:6, 5:] == 2).all()
    assert (two == 2).sum() == 9
    assert (two >= 0).all()


def png(path: Path, shape: tuple[int, int], value: int = 1) -> Path:
    write_labels(path, np.full(shape, value))
    return path


def test_bad_input_is_one_clear_line(tmp_path: Path, store: Path, images: Path, run: Callable[..., Result]) -> None:
    (tmp_path / "bad.geojson").write_text("{nonsense")
    (tmp_path / "empty").mkdir()
    drawn = write_features(tmp_path / "drawn.geojson", feature((0, 0, 9, 9), "tumour"))
    other = write_features(tmp_path / "other.geojson", *[feature((x, 0, x + 9, 9), "tumour") for x in (0, 251, 9000)])
    tiny = write_features(tmp_path / "tiny.geojson", feature((0.1, 0.1, 0.2, 0.2), "tumour"))
    nothing = write_features(tmp_path / "nothing.geojson")
    large, small = png(tmp_path / "large.png", (200, 250)), png(tmp_path / "high.png", (100, 125), 7)
    png(tmp_path / "named" / "other.png", (8, 8))
    png(tmp_path / "images" / "one.png", (8, 8))
    cases: list[tuple[Path, tuple[Any, ...], int, str]] = [
        (store, (tmp_path / "bad.geojson",), 5, "bad.geojson: not GeoJSON"),
        (store, (tmp_path / "gone.geojson",), 5, "gone.geojson: there is no such file or folder"),
        (store, (drawn, "--classes", "fat"), 5, "class 'tumour', which is none of fat"),
        (store, (other,), 5, "2 of 3 objects lie outside the slide of 250x200 pixels"),
        (store, (tiny,), 4, "none of 1 objects and 0 boxes of the class Region* lies on a patch"),
        (store, (tiny, "--undrawn", "background"), 4, "none of 1 objects"),
        (store, (nothing,), 4, "none of 0 objects"),
        (store, (drawn, "--classes", "tumour", "--undrawn", "background"), 2, "no class is the background"),
        (store, (drawn, "--layer", ".a"), 5, "cannot be the name of a layer"),
        (store, (large,), 5, "has 250x200 pixels, and what it is named after 125x100"),
        (store, (small, "--classes", "a,b"), 5, "holds the class 7, but there are 2"),
        (store, (png(tmp_path / "ignored.png", (100, 125), IGNORE),), 4, "it shows no label on any patch"),
        (store, (png(tmp_path / "blank.png", (100, 125), 0),), 4, "any patch. If nothing is there to be labelled, say"),
        (store, (tmp_path / "named",), 4, "none of 1 files is named after a patch or an image of the store"),
        (store, (tmp_path / "empty",), 4, "none of 0 files"),
        (images, (drawn,), 5, "this is one file, and images.zarr holds 2 images"),
        (images, (tmp_path / "images",), 5, "has 8x8 pixels, and what it is named after 8x6"),
        (tmp_path / "gone.zarr", (drawn,), 5, "there is no such store"),
    ]
    for where, arguments, code, told in cases:
        result = run("label", where, "--as", "classes", "--from", *arguments)

        assert (result.code, result.out) == (code, ""), arguments
        assert told in result.err
    of_patches = run("label", store, "--as", "image", "--from", large)
    assert of_patches.code == 2
    assert "image labels are made of GeoJSON" in of_patches.err
    assert PatchStore.open(store).layers == {}
    assert PatchStore.open(images).layers == {}


def test_a_folder_of_stores_is_no_store(tmp_path: Path, store: Path, run: Callable[..., Result]) -> None:
    drawn = write_features(tmp_path / "a.geojson", feature((0, 0, 80, 80), "nucleus"))

    refused = run("label", store.parent, "--from", drawn, "--as", "instances")

    assert refused.code == 2
    assert "folder of 1 stores, which are labelled one by one. Name one of them, such as" in " ".join(
        refused.err.split()
    )


def test_images_of_one_name_are_told(
    tmp_path: Path, make_patch_store: MakePatchStore, run: Callable[..., Result]
) -> None:
    make_patch_store(tmp_path / "s.zarr", np.zeros((2, 8, 8, 3), np.uint8), parents=("train/one", "val/one"))
    png(tmp_path / "masks" / "one.png", (8, 8))

    result = run("label", tmp_path / "s.zarr", "--from", tmp_path / "masks", "--as", "classes")

    assert result.code == 5
    assert "one.png: two images of the store have this name" in result.err


def test_one_writer_at_a_time_and_what_fails_leaves_nothing(
    tmp_path: Path, store: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = write_features(tmp_path / "a.geojson", feature((0, 0, 80, 80), "nucleus"))
    asked = ("label", store, "--from", drawn, "--as", "instances")
    with locked(tmp_path / ".a.zarr.lock"):
        busy = run(*asked)

    def full(_: object, __: int, ___: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("wsiseg.stores.shards.ShardedArray.write_shard", full)
        failed = run(*asked)

    assert busy.code == 75
    assert failed.code == 5
    assert "a.zarr: cannot be written: No space left on device" in failed.err
    assert [path.name for path in (store / "labels").iterdir()] == ["zarr.json"]
    assert run(*asked).code == 0
