"""Masks that were exported are the labels of the store, in files that other tools and ingest read."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.patch_makers import write_patches
from wsiseg.errors import DataError, StoppedError, StoreError
from wsiseg.ingestion import IngestSettings
from wsiseg.ingestion.layouts import LAYOUTS
from wsiseg.labels import IGNORE, LabelMap
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.stores.patch_set import PatchSet
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks.ingest import ingest
from wsiseg.tasks.mask_export import RECORD, export_masks
from wsiseg.training.patch_batches import Known, known_patches

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePatchStore

NAMES = {"deep": "made-1234-deep"}
CLASSES = LabelMap.from_names(("tumour", "stroma"), background=False)
SIDE = 8


def labelled(made: PatchStore, labels: LabelMap = CLASSES) -> Known:
    """Return the patches of a store, labelled at random with its classes and with nothing."""
    height, width = made.image_shape
    values = [*range(len(labels)), IGNORE]
    masks = np.random.default_rng(0).choice(values, (len(made), height, width)).astype(np.uint8)
    made.add_layer(NAMES["deep"], "classes", labels)
    made.write_labels(NAMES["deep"], range(len(made)), list(masks))
    present = np.ones((len(made), len(labels)), np.uint8)
    return Known(patches=PatchSet([made]), indices=np.arange(len(made)), present=present)


def export(known: Known, folder: Path, labels: LabelMap = CLASSES, *, overwrite: bool = False) -> int:
    return export_masks(known, NAMES, labels, folder, overwrite=overwrite, progress=SILENT, stop=Stop())


@pytest.fixture
def images(tmp_path: Path, make_patch_store: MakePatchStore) -> Known:
    """Return three images that are one patch each, the last of them narrower."""
    extents = np.array([[SIDE, SIDE], [SIDE, SIDE], [5, SIDE]], np.int32)
    pixels = np.zeros((3, SIDE, SIDE, 3), np.uint8)
    return labelled(make_patch_store(tmp_path / "s.zarr", pixels, extents=extents))


def test_files_hold_the_indices_and_show_the_colours(images: Known, tmp_path: Path) -> None:
    assert export(images, tmp_path / "out") == 3

    for index, width in enumerate((SIDE, SIDE, 5)):
        mask = images.patches.read_labels(NAMES["deep"], [index])[0, :, :width]
        with Image.open(tmp_path / "out" / "PM_deep" / f"image{index}.png") as found:
            assert found.mode == "P"
            np.testing.assert_array_equal(np.asarray(found), mask)
            colours = np.asarray(found.convert("RGB"))
        for label in CLASSES.labels:
            assert (colours[mask == label.index] == label.colour).all()
        assert (colours[mask == IGNORE] == 255).all()


def test_what_is_there_is_left_alone(images: Known, tmp_path: Path) -> None:
    export(images, tmp_path / "out")
    files = sorted((tmp_path / "out" / "PM_deep").iterdir())
    files[0].unlink()
    files[1].write_bytes(b"mine")

    assert export(images, tmp_path / "out") == 1
    assert files[1].read_bytes() == b"mine"
    assert export(images, tmp_path / "out", overwrite=True) == 3
    assert files[1].read_bytes() != b"mine"


def test_masks_of_another_classifier_are_not_mixed_in(images: Known, tmp_path: Path) -> None:
    export(images, tmp_path / "out")
    path = tmp_path / "out" / RECORD
    told = json.loads(path.read_text())
    assert told["layers"] == NAMES
    path.write_text(json.dumps({**told, "layers": {"deep": "made-5678-deep"}}))

    with pytest.raises(StoreError, match="masks of another classifier"):
        export(images, tmp_path / "out")
    export(images, tmp_path / "out", overwrite=True)
    assert json.loads(path.read_text()) == told


def test_masks_of_other_layers_and_patches_go_when_they_are_replaced(images: Known, tmp_path: Path) -> None:
    out, path = tmp_path / "out", tmp_path / "out" / RECORD
    export(images, out)
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "layers": {"deep": "made-5678-deep", "b4": "made-5678-b4"}}))
    for mine in ("PM_b4/image0.png", "PM_deep/image7.png", "PM_deep/notes.txt", "PM_hand/image7.png"):
        (out / mine).parent.mkdir(exist_ok=True)
        (out / mine).write_bytes(b"x")

    export(images, out, overwrite=True)

    files = {found.relative_to(out).as_posix() for found in out.rglob("*") if found.is_file()}
    masks = {f"PM_deep/image{index}.png" for index in range(3)}
    # What no export has written is somebody's own.
    assert files == {RECORD, *masks, "PM_deep/notes.txt", "PM_hand/image7.png"}
    assert not (out / "PM_b4").exists()


def test_patches_of_one_slide_are_told_apart_by_their_places(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    made = make_patch_store(tmp_path / "s.zarr", np.zeros((3, SIDE, SIDE, 3), np.uint8), parents=["a", "a", "b"])
    made.positions[:] = [[0, 0], [16, 32], [8, 8]]

    export(labelled(made), tmp_path / "out")

    files = sorted(path.name for path in (tmp_path / "out" / "PM_deep").iterdir())
    assert files == ["a-0-0.png", "a-16-32.png", "b.png"]


def test_two_patches_of_one_name_are_refused(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    made = make_patch_store(tmp_path / "s.zarr", np.zeros((2, SIDE, SIDE, 3), np.uint8), parents=["train/a", "val/a"])

    with pytest.raises(DataError, match=r"a\.png: two patches have one name"):
        export(labelled(made), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_stop_keeps_what_is_written(images: Known, tmp_path: Path) -> None:
    stop = Stop()
    stop.request("of impatience")

    with pytest.raises(StoppedError):
        export_masks(images, NAMES, CLASSES, tmp_path / "out", progress=SILENT, stop=stop)
    assert len(list((tmp_path / "out" / "PM_deep").iterdir())) == 3


def test_masks_of_a_published_layout_are_ingested_as_they_were(tmp_path: Path) -> None:
    source = write_patches(tmp_path / "source")
    settings = IngestSettings.model_validate({"layout": "wsss4luad"})
    ingest(source, tmp_path / "first.zarr", settings)
    first = PatchStore.open(tmp_path / "first.zarr")
    labels = first.image_layers["labels"].labels
    labelled(first, labels)
    known = known_patches(PatchSet([first]), "labels", ("train",))

    export(known, tmp_path / "out", labels)
    shutil.rmtree(source / "val")
    (source / "train").rename(source / "img")
    (source / "train").mkdir()
    (source / "img").rename(source / "train" / "img")
    (tmp_path / "out" / "PM_deep").rename(source / "train" / "mask")
    ingest(source, tmp_path / "second.zarr", settings)

    second = PatchStore.open(tmp_path / "second.zarr")
    assert list(second.parents) == list(first.parents[known.indices])
    found = second.read_labels("labels", range(len(second)))
    np.testing.assert_array_equal(found, first.read_labels(NAMES["deep"], known.indices))
    assert (found == IGNORE).any()


@pytest.mark.parametrize(
    ("layout", "colours"),
    [
        ("luad-histoseg", [(205, 51, 51), (0, 255, 0), (65, 105, 225), (255, 165, 0)]),
        ("bcss-wsss", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (153, 0, 255)]),
    ],
)
def test_masks_of_published_data_sets_have_their_indices_and_colours(
    layout: str, colours: list[tuple[int, int, int]], tmp_path: Path, make_patch_store: MakePatchStore
) -> None:
    labels = LAYOUTS[layout].labels
    assert labels is not None
    made = make_patch_store(tmp_path / "s.zarr", np.zeros((1, SIDE, SIDE, 3), np.uint8))
    known = labelled(made, labels)

    export(known, tmp_path / "out", labels)

    mask = made.read_labels(NAMES["deep"], [0])[0]
    (path,) = (tmp_path / "out" / "PM_deep").iterdir()
    with Image.open(path) as found:
        assert found.mode == "P"
        indices, shown = np.asarray(found), np.asarray(found.convert("RGB"))
    assert set(np.unique(indices)) == {0, 1, 2, 3, 4}
    np.testing.assert_array_equal(indices, np.where(mask == IGNORE, 4, mask))
    np.testing.assert_array_equal(shown, np.array([*colours, (255, 255, 255)])[indices])


def test_other_masks_are_ingested_as_they_were(images: Known, tmp_path: Path) -> None:
    (tmp_path / "source" / "images").mkdir(parents=True)
    for index, width in enumerate((SIDE, SIDE, 5)):
        Image.new("RGB", (width, SIDE)).save(tmp_path / "source" / "images" / f"image{index}.png")
    export(images, tmp_path / "out")
    (tmp_path / "out" / "PM_deep").rename(tmp_path / "source" / "labels")

    settings = {"mpp": 0.5, "labels_as": "classes", "classes": CLASSES.names}
    ingest(tmp_path / "source", tmp_path / "again.zarr", IngestSettings.model_validate(settings))

    found = PatchStore.open(tmp_path / "again.zarr").read_labels("labels", range(3))
    expected = images.patches.read_labels(NAMES["deep"], range(3))
    expected[2, :, 5:] = IGNORE
    np.testing.assert_array_equal(found, expected)
