"""Folders of images become stores whose patches, labels, splits and parents are those of the images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from wsiseg.errors import ConfigError, DataError, NothingMatchedError, SlideError, StoreError
from wsiseg.ingestion import IngestSettings, find_images
from wsiseg.labels import IGNORE
from wsiseg.lock import locked
from wsiseg.rasters import read_labels
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks.ingest import ingest

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SIZES = {"a": (40, 30), "b": (20, 50), "c": (33, 33)}


def settings(**changes: Any) -> IngestSettings:  # noqa: ANN401 - any of the settings
    return IngestSettings.model_validate({"mpp": 0.5, "labels_as": "instances"} | changes)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a folder of three images, of which two have labels."""
    folder = tmp_path / "src"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    rng = np.random.default_rng(0)
    for name, (height, width) in SIZES.items():
        pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{name}.{'tif' if name == 'c' else 'png'}")
        if name != "c":
            ids = rng.integers(0, 900, (height, width)).astype(np.uint16)
            Image.fromarray(ids).save(folder / "labels" / f"{name}.png")
    return folder


def pixels(source: Path, name: str) -> NDArray[np.uint8]:
    (path,) = (source / "images").glob(f"{name}.*")
    return np.asarray(Image.open(path))


def test_whole_images_are_padded_to_the_largest(tmp_path: Path, source: Path) -> None:
    report = ingest(source, tmp_path / "s.zarr", settings(classes=["nucleus"]))

    store = PatchStore.open(tmp_path / "s.zarr")
    assert (report.images, report.labelled, report.patches) == (3, 2, 3)
    assert store.image_shape == (40, 50)
    assert store.mpp == 0.5
    assert store.parents.tolist() == ["a", "b", "c"]
    assert store.extents.tolist() == [[30, 40], [50, 20], [33, 33]]
    assert store.layers["labels"].labels.names == ("background", "nucleus")
    assert store.is_labelled("labels").tolist() == [True, True, False]
    for index, name in enumerate(SIZES):
        height, width = SIZES[name]
        image = store.read_images([index])[0]
        np.testing.assert_array_equal(image[:height, :width], pixels(source, name))
        assert (image[height:] == 255).all()
        if name != "c":
            labels = store.read_labels("labels", [index])[0]
            np.testing.assert_array_equal(labels[:height, :width], read_labels(source / "labels" / f"{name}.png"))
            assert (labels[height:] == 0).all()


def test_images_are_cut_into_patches(tmp_path: Path, source: Path) -> None:
    ingest(source, tmp_path / "s.zarr", settings(patch_size=16, overlap="25%"), num_workers=0)

    store = PatchStore.open(tmp_path / "s.zarr")
    for index, (name, (x, y), (width, height)) in enumerate(
        zip(store.parents, store.positions.tolist(), store.extents.tolist(), strict=True)
    ):
        assert x % 12 == 0
        image = store.read_images([index])[0]
        np.testing.assert_array_equal(image[:height, :width], pixels(source, name)[y : y + 16, x : x + 16])
    assert (store.positions[store.parents == "a"] + 16).max(axis=0).tolist() >= [30, 40]
    assert store.is_labelled("labels").sum() == (store.parents != "c").sum()


def test_classes_keep_the_ignored_value(tmp_path: Path, source: Path) -> None:
    for name, (height, width) in SIZES.items():
        labels = np.full((height, width), 2, np.uint8)
        labels[:5] = IGNORE
        Image.fromarray(labels).save(source / "labels" / f"{name}.png")

    ingest(source, tmp_path / "s.zarr", settings(labels_as="classes"))

    store = PatchStore.open(tmp_path / "s.zarr")
    labels = store.read_labels("labels", [1])[0]
    assert labels.dtype == np.uint8
    assert store.layers["labels"].labels.names == ("background", "class 1", "class 2")
    assert set(np.unique(labels[:20]).tolist()) == {2, IGNORE}
    assert (labels[20:] == IGNORE).all()


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_classes_are_the_indices_of_palettes(tmp_path: Path, source: Path, suffix: str) -> None:
    for file in (source / "labels").iterdir():
        file.unlink()
    classes = (np.arange(40 * 30) % 3).astype(np.uint8).reshape(40, 30)
    image = Image.fromarray(classes)
    image.putpalette([200, 0, 0, 0, 90, 255, 9, 9, 9] + [0] * 759)
    image.save(source / "labels" / f"a.{suffix}")

    ingest(source, tmp_path / "s.zarr", settings(labels_as="classes", classes=["background", "tumour", "stroma"]))

    store = PatchStore.open(tmp_path / "s.zarr")
    assert store.is_labelled("labels").tolist() == [True, False, False]
    np.testing.assert_array_equal(store.read_labels("labels", [0])[0][:, :30], classes)


def test_splits_come_from_a_name_or_a_table(tmp_path: Path, source: Path) -> None:
    (tmp_path / "splits.csv").write_text("image,split,patient_id\na,train,p1\nb.png,val,p1\nc,test,\n")

    ingest(source, tmp_path / "all.zarr", settings(split="unlabelled"))
    ingest(source, tmp_path / "each.zarr", settings(split=str(tmp_path / "splits.csv")))

    assert set(PatchStore.open(tmp_path / "all.zarr").splits) == {"unlabelled"}
    store = PatchStore.open(tmp_path / "each.zarr")
    assert store.splits.tolist() == ["train", "val", "test"]
    assert store.groups.tolist() == ["p1", "p1", "c"]


def test_a_table_of_patients_leaves_splits_as_they_are(
    tmp_path: Path, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "patients.csv").write_text("image,patient_id\na,p1\nb,p1\nc,p2\n")

    images = find_images(source, settings(split=str(tmp_path / "patients.csv"))).images

    assert [(image.split, image.group) for image in images] == [("", "p1"), ("", "p1"), ("", "p2")]
    assert "patients are in several" not in caplog.text


@pytest.mark.parametrize(
    ("splits", "warnings"), [("train,val", 1), ("val,unlabelled", 1), ("test,val", 1), ("train,unlabelled", 0)]
)
def test_a_patient_on_both_sides_of_a_split_is_told(
    tmp_path: Path, source: Path, caplog: pytest.LogCaptureFixture, splits: str, warnings: int
) -> None:
    first, second = splits.split(",")
    (tmp_path / "splits.csv").write_text(f"image,split,patient_id\na,{first},p1\nb,{second},p1\nc,train,p2\n")

    find_images(source, settings(split=str(tmp_path / "splits.csv")))

    assert caplog.text.count("1 patients are in several of train, val and test, such as p1") == warnings


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("image,part\na,train\n", "columns image and split"),
        ("", "columns image and split"),
        ("name,patient_id\na,p\n", "columns image and split, or image and patient_id"),
        ("image,split\na,train\nb,trian\n", "row 3, column split"),
        ("image,split\na,train\n", "no row for the image b"),
    ],
)
def test_bad_tables_of_splits_are_told(tmp_path: Path, source: Path, table: str, told: str) -> None:
    (tmp_path / "splits.csv").write_text(table)

    with pytest.raises(ConfigError, match=told):
        find_images(source, settings(split=str(tmp_path / "splits.csv")))
    (tmp_path / "splits.csv").write_text("image,split\na,train\na,val\n")
    with pytest.raises(DataError, match="rows 2 and 3 are both of the image a"):
        find_images(source, settings(split=str(tmp_path / "splits.csv")))


def test_names_that_do_not_fit_are_told(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    (source / "labels" / "a.png").rename(source / "labels" / "x.png")
    find_images(source, settings())
    assert "1 label images belong to no image" in caplog.text

    (source / "labels" / "b.png").unlink()
    with pytest.raises(DataError, match="no label image has the name"):
        find_images(source, settings())
    (source / "images" / "a.jpg").touch()
    with pytest.raises(DataError, match=r"the same name as a\.jpg"):
        find_images(source, settings())


def test_labels_that_do_not_fit_are_told(tmp_path: Path, source: Path) -> None:
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(source / "labels" / "b.png")

    with pytest.raises(DataError, match="3x3 pixels, its image 50x20"):
        ingest(source, tmp_path / "s.zarr", settings())
    with pytest.raises(DataError, match="0 to 253"):
        ingest(source, tmp_path / "s.zarr", settings(labels_as="classes"))
    with pytest.raises(DataError, match="holds the class"):
        ingest(source, tmp_path / "s.zarr", settings(labels_as="classes", classes=["a", "b"]))
    (source / "images" / "b.png").write_text("no image")
    with pytest.raises(SlideError, match="not an image"):
        ingest(source, tmp_path / "s.zarr", settings())
    assert not (tmp_path / "s.zarr").exists()


def test_the_meaning_of_labels_must_be_said(source: Path) -> None:
    with pytest.raises(ConfigError, match="--labels-as instances"):
        find_images(source, settings(labels_as=None))
    with pytest.raises(ValueError, match=r"there is no layout 'pictures'; known: images, monuseg, .*, volumes"):
        settings(layout="pictures")
    with pytest.raises(ValueError, match="one class at most"):
        settings(classes=["background", "a", "b"])
    with pytest.raises(NothingMatchedError):
        find_images(source / "labels", settings())


def test_images_without_labels_are_taken(tmp_path: Path, source: Path) -> None:
    for file in (source / "labels").iterdir():
        file.unlink()

    ingest(source, tmp_path / "s.zarr", settings(labels_as=None, mpp="unknown"))

    store = PatchStore.open(tmp_path / "s.zarr")
    assert store.layers == {}
    assert store.mpp is None


def test_a_second_run_does_nothing_unless_something_differs(tmp_path: Path, source: Path) -> None:
    assert not ingest(source, tmp_path / "s.zarr", settings()).was_done
    assert ingest(source, tmp_path / "s.zarr", settings()).was_done

    with pytest.raises(StoreError, match="other images or with other settings"):
        ingest(source, tmp_path / "s.zarr", settings(mpp=0.25))
    (source / "labels" / "a.png").unlink()
    with pytest.raises(StoreError, match="other images"):
        ingest(source, tmp_path / "s.zarr", settings())
    assert not ingest(source, tmp_path / "s.zarr", settings(), overwrite=True).was_done
    with locked(tmp_path / ".t.zarr.lock"), pytest.raises(StoreError, match="another process"):
        ingest(source, tmp_path / "t.zarr", settings())


def test_the_nuclei_of_the_data_folder(tmp_path: Path, data_dir: Path) -> None:
    ingest(data_dir / "nuclei_dsb2018", tmp_path / "s.zarr", settings(classes=["nucleus"], patch_size=128))

    store = PatchStore.open(tmp_path / "s.zarr")
    assert len(store) == 75 * 2 * 3
    assert store.is_labelled("labels").all()
    assert store.read_labels("labels", range(6)).max() > 10
