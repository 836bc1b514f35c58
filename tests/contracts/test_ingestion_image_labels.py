"""Patches whose labels say what they show become stores that know it, whatever the layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from wsiseg.errors import ConfigError, DataError, NothingMatchedError
from wsiseg.ingestion import IngestSettings, find_images
from wsiseg.labels import IGNORE
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks.ingest import ingest
from wsiseg.white import WhiteRule

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LUAD = {
    "train": ("7-0-0-[1 0 0 1].png", "7-0-224-[0 1 0 0].png", "8-0-0-[0 0 0 0].png"),
    "val": ("7-99-0.png", "9-0-0.png"),
    "test": ("9-0-0.png",),
}


def settings(**changes: Any) -> IngestSettings:  # noqa: ANN401 - any of the settings
    return IngestSettings.model_validate(changes)


def write_image(path: Path, size: tuple[int, int] = (12, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(path)


def write_mask(path: Path, *, highest: int, size: tuple[int, int] = (12, 16)) -> None:
    """Write a palette PNG whose colours say nothing about its indices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    indices = (np.arange(size[0] * size[1]) % (highest + 1)).astype(np.uint8).reshape(size)
    image = Image.fromarray(indices)
    image.putpalette([9, 9, 9] * 256)
    image.save(path)


def make_source(folder: Path, names: Mapping[str, tuple[str, ...]], *, train: str = "train", highest: int = 4) -> Path:
    for part, files in names.items():
        for name in files:
            if part == "train":
                write_image(folder / train / name)
            else:
                write_image(folder / part / "img" / name)
                write_mask(folder / part / "mask" / name, highest=highest)
    return folder


@pytest.mark.parametrize("train", ["train", "training", "train/img"])
def test_labels_come_from_names_and_masks_from_palettes(tmp_path: Path, train: str) -> None:
    source = make_source(tmp_path / "src", LUAD, train=train)

    report = ingest(source, tmp_path / "s.zarr", settings(layout="luad-histoseg"))

    assert (report.images, report.labelled, report.classified) == (6, 3, 3)
    assert "3 labelled, 3 with image labels" in str(report)
    store = PatchStore.open(tmp_path / "s.zarr")
    assert store.splits.tolist() == ["train"] * 3 + ["val"] * 2 + ["test"]
    assert store.groups.tolist() == ["7", "7", "8", "7", "9", "9"]
    assert len(set(store.parents)) == 6
    assert store.mpp == 1.0
    info = store.image_layers["labels"]
    assert info.white == WhiteRule()
    assert [(label.name, label.colour) for label in info.labels.labels][::3] == [
        ("tumour epithelium", (205, 51, 51)),
        ("tumour-associated stroma", (255, 165, 0)),
    ]
    assert store.read_image_labels("labels", range(6)).tolist() == [
        [1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], *[[IGNORE] * 4] * 3,
    ]  # fmt: skip
    assert store.layers["labels"].labels == info.labels
    assert store.is_labelled("labels").tolist() == [False] * 3 + [True] * 3
    masks = store.read_labels("labels", [3])[0]
    np.testing.assert_array_equal(masks.ravel()[:6], [0, 1, 2, 3, IGNORE, 0])


def test_known_data_sets_have_their_classes_scale_and_white(tmp_path: Path) -> None:
    name = "TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500+0[1101].png"
    bcss = make_source(tmp_path / "bcss", {"train": (name, name.replace("+0[1101]", "+1[0001]"))})
    luad = make_source(tmp_path / "luad", {"train": ("436219-1-2-[1, 0, 1].png",), "val": ("00.png",)}, highest=3)

    ingest(bcss, tmp_path / "b.zarr", settings(layout="bcss-wsss"))
    ingest(luad, tmp_path / "l.zarr", settings(layout="wsss4luad", mpp=0.9, white={"gray_above": 210}))

    breast, lung = PatchStore.open(tmp_path / "b.zarr"), PatchStore.open(tmp_path / "l.zarr")
    assert (breast.mpp, lung.mpp) == (0.25, 0.9)
    assert breast.image_layers["labels"].white is None
    assert lung.image_layers["labels"].white == WhiteRule(gray_above=210)
    assert breast.image_layers["labels"].labels.names == ("tumour", "stroma", "lymphocytic infiltrate", "necrosis")
    assert lung.image_layers["labels"].labels.names == ("tumour", "stroma", "normal")
    assert breast.layers == {}
    assert breast.groups.tolist() == ["TCGA-A1-A0SK"] * 2
    assert lung.groups.tolist() == ["436219", "val/00"]
    assert lung.read_labels("labels", [1])[0].ravel()[:4].tolist() == [0, 1, 2, IGNORE]


def test_a_patch_in_which_nothing_occurs_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    find_images(make_source(tmp_path, LUAD), settings(layout="luad-histoseg"))

    assert "in 1 images no class occurs, such as 8-0-0-[0 0 0 0].png" in caplog.text


def test_sources_that_do_not_fit_are_told(tmp_path: Path) -> None:
    source = make_source(tmp_path / "src", LUAD)
    named = settings(layout="luad-histoseg")
    with pytest.raises(DataError, match=r"7-0-0-\[1 0 0 1\]\.png: the name carries no label of 3 classes"):
        find_images(source, settings(layout="wsss4luad"))
    (source / "val" / "mask" / "extra.png").touch()
    with pytest.raises(DataError, match=r"extra\.png: no image has the name"):
        find_images(source, named)
    (source / "val" / "mask" / "extra.png").unlink()
    (source / "test" / "mask" / "9-0-0.png").unlink()
    with pytest.raises(DataError, match=r"img.9-0-0\.png: there is no label image"):
        find_images(source, named)
    write_mask(source / "test" / "mask" / "9-0-0.png", highest=5)
    with pytest.raises(DataError, match="holds the class 5"):
        ingest(source, tmp_path / "s.zarr", named)
    Image.new("RGB", (16, 12)).save(source / "test" / "mask" / "9-0-0.png")
    with pytest.raises(DataError, match="one whole number per pixel"):
        ingest(source, tmp_path / "s.zarr", named)
    for folder in (tmp_path / "gone", source / "val" / "img"):
        with pytest.raises(NothingMatchedError):
            find_images(folder, named)


def test_a_part_may_have_no_masks_at_all(tmp_path: Path) -> None:
    write_image(tmp_path / "src" / "test" / "img" / "9-0-0.png")
    write_image(tmp_path / "src" / "val" / "9-0-0.png")
    (tmp_path / "src" / "val" / "notes.txt").touch()

    images = find_images(tmp_path / "src", settings(layout="luad-histoseg", split="unlabelled")).images

    assert [(image.name, image.labels, image.occurs) for image in images] == [
        ("val/9-0-0", None, None), ("test/9-0-0", None, None),
    ]  # fmt: skip
    assert {image.split for image in images} == {"unlabelled"}


def test_a_table_of_splits_beats_the_folders(tmp_path: Path) -> None:
    source = make_source(tmp_path / "src", {"train": LUAD["train"]})
    table = tmp_path / "splits.csv"
    table.write_text("image,split,patient_id\n" + "\n".join(f"{name},val,p" for name in LUAD["train"]))

    images = find_images(source, settings(layout="luad-histoseg", split=str(table))).images

    assert {(image.split, image.group) for image in images} == {("val", "p")}


@pytest.mark.parametrize("changes", [{"classes": ["a"]}, {"labels": "labels.csv"}, {"labels_as": "instances"}])
def test_the_labels_of_known_data_sets_are_not_told_anew(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="what the labels of bcss-wsss are is known"):
        settings(layout="bcss-wsss", **changes)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return a folder of three images, the second larger, with a table of labels."""
    folder = tmp_path / "own"
    for name, size in (("a", (12, 16)), ("b", (20, 30)), ("c", (12, 16))):
        write_image(folder / "images" / f"{name}.png", size)
    (folder / "labels.csv").write_text("image,tumour,split,stroma\na.png,1,train,0\nb,1,val,0\n", encoding="utf-8")
    return folder


def test_a_table_labels_anybodys_images(tmp_path: Path, own: Path, caplog: pytest.LogCaptureFixture) -> None:
    ingest(own, tmp_path / "s.zarr", settings(mpp=0.5, labels=own / "labels.csv"))

    store = PatchStore.open(tmp_path / "s.zarr")
    info = store.image_layers["labels"]
    assert info.labels.names == ("tumour", "stroma")
    assert info.white == WhiteRule()
    assert (255, 255, 255) not in [label.colour for label in info.labels.labels]
    assert store.read_image_labels("labels", range(3)).tolist() == [[1, 0], [1, 0], [IGNORE, IGNORE]]
    assert store.layers == {}
    assert "has no row for 1 images, such as c.png" in caplog.text


def test_a_part_of_an_image_is_only_known_not_to_show_what_the_image_does_not(
    tmp_path: Path, own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ingest(own, tmp_path / "s.zarr", settings(mpp=0.5, labels=own / "labels.csv", patch_size=16))

    store = PatchStore.open(tmp_path / "s.zarr")
    labels = store.read_image_labels("labels", range(len(store)))
    assert labels[store.parents == "a"].tolist() == [[1, 0]]
    assert labels[store.parents == "b"].tolist() == [[IGNORE, 0]] * 4
    assert "1 images are cut" in caplog.text


def test_masks_beside_a_table_hold_the_same_classes(tmp_path: Path, own: Path) -> None:
    write_mask(own / "labels" / "a.png", highest=1)
    one = settings(mpp=0.5, labels=own / "labels.csv", labels_as="classes", classes=["stroma", "tumour"], white=False)

    ingest(own, tmp_path / "s.zarr", one)

    store = PatchStore.open(tmp_path / "s.zarr")
    assert store.layers["labels"].labels == store.image_layers["labels"].labels
    assert store.image_layers["labels"].white is None
    assert store.read_image_labels("labels", [0]).tolist() == [[0, 1]]
    write_mask(own / "labels" / "a.png", highest=2)
    with pytest.raises(DataError, match="holds the class 2"):
        ingest(own, tmp_path / "t.zarr", one)


def test_objects_beside_a_table_are_of_no_class(tmp_path: Path, own: Path) -> None:
    write_mask(own / "labels" / "a.png", highest=9)

    ingest(own, tmp_path / "s.zarr", settings(mpp=0.5, labels=own / "labels.csv", labels_as="instances"))

    store = PatchStore.open(tmp_path / "s.zarr")
    assert store.layers["labels"].labels.names == ("background", "object")
    assert store.image_layers["labels"].labels.names == ("tumour", "stroma")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_of_spreadsheets_are_read(own: Path, delimiter: str) -> None:
    rows = (("image", "tumour", '"fat, necrosis; both"'), ("a.png", "1", ""), ("b", "0", "1"), ("", "", ""))
    (own / "labels.csv").write_text("\n".join(delimiter.join(row) for row in rows))

    images = find_images(own, settings(mpp=0.5, labels=own / "labels.csv")).images

    second = "fat, necrosis; both"
    assert [image.occurs for image in images] == [{"tumour": 1, second: IGNORE}, {"tumour": 0, second: 1}, None]


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        ("image,x\na,2\n", DataError, "row 2, column x: '2' is none of 0, 1 and nothing"),
        ("image,x\nz,1\n", DataError, "no row has the name of an image"),
        ("image,x\na,1\nb,1\na,0\n", DataError, "rows 2 and 4 are both of the image a"),
        ("image,x\nb.png,1\nb,1\n", DataError, "rows 2 and 3 are both of the image b.png"),
        ("file,x\na,1\n", ConfigError, "no column 'image'"),
        ("image,split\na,train\n", ConfigError, "names no class"),
        ("", ConfigError, "no column 'image'"),
        ("\xff", ConfigError, "not a readable table"),
    ],
)
def test_bad_tables_of_labels_are_told(own: Path, text: str, kind: type[Exception], told: str) -> None:
    (own / "labels.csv").write_bytes(text.encode("latin-1"))

    with pytest.raises(kind, match=told):
        find_images(own, settings(mpp=0.5, labels=own / "labels.csv"))
    with pytest.raises(ConfigError, match="not a readable table"):
        find_images(own, settings(mpp=0.5, labels=own / "gone.csv"))


def test_a_class_without_a_column_is_told(own: Path) -> None:
    with pytest.raises(ConfigError, match="no column 'fat'"):
        find_images(own, settings(mpp=0.5, labels=own / "labels.csv", classes=["tumour", "fat"]))


def test_other_labels_make_another_store(tmp_path: Path, own: Path) -> None:
    one = settings(mpp=0.5, labels=own / "labels.csv")
    ingest(own, tmp_path / "s.zarr", one)
    assert ingest(own, tmp_path / "s.zarr", one).was_done
    (own / "labels.csv").write_text("image,tumour,stroma\na,0,0\n")

    assert not ingest(own, tmp_path / "s.zarr", one, overwrite=True).was_done
    assert PatchStore.open(tmp_path / "s.zarr").read_image_labels("labels", [0]).tolist() == [[0, 0]]


def test_the_patches_of_the_data_folder(tmp_path: Path, data_dir: Path) -> None:
    source = tmp_path / "src"
    (source / "val").mkdir(parents=True)
    tissue = data_dir / "tissue_luad"
    for link, target in (("train", "patch_label_examples"), ("val/img", "images"), ("val/mask", "masks")):
        (source / link).symlink_to(tissue / target)

    ingest(source, tmp_path / "s.zarr", settings(layout="wsss4luad", patch_size=288))

    store = PatchStore.open(tmp_path / "s.zarr")
    train = store.splits == "train"
    assert store.read_image_labels("labels", np.flatnonzero(train)).tolist() == [
        [0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1],
    ]  # fmt: skip
    assert sorted(set(store.groups[train])) == ["1003370", "436219", "449636"]
    assert len(set(store.parents[~train])) == 31
    assert store.is_labelled("labels").tolist() == (~train).tolist()
    assert set(np.unique(store.read_labels("labels", np.flatnonzero(~train)[:20]))) <= {0, 1, 2, IGNORE}
