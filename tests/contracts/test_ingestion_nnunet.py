"""A raw data set of nnU-Net becomes a store with its classes, splits and ignored pixels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from wsiseg.errors import DataError, NothingMatchedError, StoreError
from wsiseg.ingestion import IngestSettings, find_images
from wsiseg.labels import IGNORE
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks.ingest import ingest

if TYPE_CHECKING:
    from pathlib import Path

LABELS: dict[str, Any] = {"background": 0, "tumour": 1, "stroma": 2, "ignore": 3}


def settings(**changes: Any) -> IngestSettings:  # noqa: ANN401 - any of the settings
    return IngestSettings.model_validate({"layout": "nnunet", "mpp": 0.5} | changes)


def write(path: Path, pixels: Any) -> None:  # noqa: ANN401 - what numpy takes
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)


def describe(source: Path, labels: Any) -> None:  # noqa: ANN401 - whatever JSON can say
    (source / "dataset.json").write_text(json.dumps({"channel_names": {"0": "R"}, "labels": labels}))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a data set of two training images, of which one is grey, and a test image without labels."""
    folder = tmp_path / "Dataset501_Tissue"
    rng = np.random.default_rng(0)
    write(folder / "imagesTr" / "a_0000.png", rng.integers(0, 256, (10, 12, 3)))
    write(folder / "imagesTr" / "TCGA-A1-A0SK-DX1_0000.tif", rng.integers(0, 256, (10, 12)))
    write(folder / "imagesTs" / "c_0000.bmp", rng.integers(0, 256, (10, 12, 3)))
    write(folder / "labelsTr" / "a.png", np.arange(120).reshape(10, 12) % 4)
    write(folder / "labelsTr" / "TCGA-A1-A0SK-DX1.tif", np.ones((10, 12)))
    describe(folder, LABELS)
    return folder


def test_classes_come_from_the_data_set(tmp_path: Path, source: Path) -> None:
    ingest(source, tmp_path / "s.zarr", settings())

    store = PatchStore.open(tmp_path / "s.zarr")
    assert store.parents.tolist() == ["TCGA-A1-A0SK-DX1", "a", "c"]
    assert store.groups.tolist() == ["TCGA-A1-A0SK", "a", "c"]
    assert store.splits.tolist() == ["train", "train", "test"]
    assert store.is_labelled("labels").tolist() == [True, True, False]
    assert store.layers["labels"].kind == "classes"
    assert store.layers["labels"].labels.names == ("background", "tumour", "stroma")
    assert store.read_labels("labels", [1])[0].ravel()[:5].tolist() == [0, 1, 2, IGNORE, 0]


def test_labels_of_test_images_are_taken_where_they_are(source: Path) -> None:
    write(source / "labelsTs" / "c.png", np.zeros((10, 12)))

    test = find_images(source, settings()).images[-1]

    assert (test.name, test.split, test.labels) == ("c", "test", source / "labelsTs" / "c.png")


def test_labels_as_the_first_version_wrote_them_mean_the_same(source: Path) -> None:
    found = find_images(source, settings())
    describe(source, {str(index): name for name, index in LABELS.items()})

    again = find_images(source, settings())

    assert (again.labels, again.excluded) == (found.labels, found.excluded)


def test_other_classes_make_another_store(tmp_path: Path, source: Path) -> None:
    ingest(source, tmp_path / "s.zarr", settings())
    assert ingest(source, tmp_path / "s.zarr", settings()).was_done
    describe(source, {"background": 0, "fat": 1, "stroma": 2, "ignore": 3})

    with pytest.raises(StoreError, match="other images or with other settings"):
        ingest(source, tmp_path / "s.zarr", settings())


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"background": 0, "all": [1, 2], "tumour": 1}, "regions of several classes are not read"),
        ({"background": 0, "tumour": "1"}, "names no classes"),
        ({"background": 0, "tumour": True}, "names no classes"),
        ({}, "names no classes"),
        ([], "names no classes"),
        ({"background": 0, "tumour": 2}, "not 0 to 1 without gaps"),
        ({"background": 0, "tumour": 2, "ignore": 1}, "not 0 to 1 without gaps"),
        ({"background": 0, "tumour": 1, "ignore": 1}, "'ignore' is not the highest label"),
        ({str(index): index for index in range(255)}, "names 255 classes, which are too many"),
    ],
)
def test_classes_that_cannot_be_read_are_told(source: Path, labels: object, told: str) -> None:
    describe(source, labels)

    with pytest.raises(DataError, match=rf"dataset\.json: .*{told}"):
        find_images(source, settings())


def test_what_is_missing_or_spread_is_told(tmp_path: Path, source: Path) -> None:
    (source / "labelsTr" / "a.png").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a_0000\.png: there are no labels of this name"):
        find_images(source, settings())
    write(source / "labelsTr" / "a.png", np.zeros((9, 12)))
    with pytest.raises(DataError, match=r"labelsTr.a\.png: the label image has 12x9 pixels, its image 12x10"):
        ingest(source, tmp_path / "s.zarr", settings())
    write(source / "imagesTr" / "a_0001.png", np.zeros((10, 12)))
    with pytest.raises(DataError, match=r"a_0001\.png: channel 1 of the image has a file of its own"):
        find_images(source, settings())
    (source / "imagesTr" / "a_0001.png").rename(source / "imagesTr" / "b.png")
    with pytest.raises(DataError, match=r"b\.png: the name tells no channel"):
        find_images(source, settings())
    (source / "dataset.json").write_text("{")
    with pytest.raises(DataError, match=r"dataset\.json: names no classes"):
        find_images(source, settings())
    with pytest.raises(DataError, match="SRC is the folder DatasetNNN_NAME"):
        find_images(tmp_path, settings())
    describe(tmp_path, LABELS)
    with pytest.raises(NothingMatchedError, match="imagesTr/CASE_0000"):
        find_images(tmp_path, settings())
    with pytest.raises(NothingMatchedError, match="no such folder"):
        find_images(tmp_path / "gone", settings())


def test_the_scale_must_be_told() -> None:
    with pytest.raises(ValueError, match="mpp"):
        IngestSettings.model_validate({"layout": "nnunet"})
