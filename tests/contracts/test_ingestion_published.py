"""Data sets in the folders that their makers publish become stores of objects, with their splits and patients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from typer.testing import CliRunner

from wsiseg.cli.app import app
from wsiseg.errors import DataError, NothingMatchedError
from wsiseg.ingestion import IngestSettings, find_images
from wsiseg.rasters import read_labels
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks.ingest import ingest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

HEIGHT, WIDTH = 20, 30
TRAIN = "MoNuSeg 2018 Training Data/MoNuSeg 2018 Training Data"
TEST = "MoNuSegTestData"
BARCODES = ("TCGA-A7-A13E-01Z-00-DX1", "TCGA-A7-A13F-01Z-00-DX1", "TCGA-2Z-A9J9-01A-01-TS1")
# Left, top, right, bottom.
BOXES = ((2, 3, 8, 9), (6, 5, 12, 11), (20, 12, 34, 25))


def settings(layout: str, **changes: Any) -> IngestSettings:  # noqa: ANN401 - any of the settings
    return IngestSettings.model_validate({"layout": layout} | changes)


def write_image(path: Path, *, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(path)


def write_ids(path: Path, *, size: tuple[int, int] = (HEIGHT, WIDTH), highest: int = 3) -> NDArray[np.uint8]:
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = (np.arange(size[0] * size[1]) * (highest + 1) // (size[0] * size[1])).astype(np.uint8).reshape(size)
    Image.fromarray(ids).save(path)
    return ids


def write_xml(path: Path, boxes: Sequence[tuple[float, float, float, float]] = BOXES) -> None:
    """Write boxes as ImageScope writes regions; a second, empty layer of annotations follows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    regions = ""
    for number, (left, top, right, bottom) in enumerate(boxes, start=1):
        corners = ((left, top), (right, top), (right, bottom), (left, bottom))
        vertices = "".join(f'<Vertex X="{x:.6f}" Y="{y:.6f}" Z="0.000000"/>' for x, y in corners)
        regions += (
            f'<Region Id="{number}" Type="0" NegativeROA="0"><Attributes/><Vertices>{vertices}</Vertices></Region>'
        )
    path.write_text(
        '<Annotations MicronsPerPixel="0.252000">\n'
        f'<Annotation Id="1" Name="" Type="4"><Attributes/><Regions><RegionAttributeHeaders/>{regions}</Regions>'
        '<Plots/></Annotation><Annotation Id="2"><Regions/></Annotation></Annotations>'
    )


@pytest.fixture
def monuseg(tmp_path: Path) -> Path:
    """Return the two archives of MoNuSeg, unpacked side by side."""
    folder = tmp_path / "src"
    for name in BARCODES[:2]:
        write_image(folder / TRAIN / "Tissue Images" / f"{name}.tif")
        write_xml(folder / TRAIN / "Annotations" / f"{name}.xml")
    write_image(folder / TEST / f"{BARCODES[2]}.tif")
    write_xml(folder / TEST / f"{BARCODES[2]}.xml")
    return folder


def test_outlines_become_objects_and_barcodes_patients(tmp_path: Path, monuseg: Path) -> None:
    report = ingest(monuseg, tmp_path / "s.zarr", settings("monuseg"))

    store = PatchStore.open(tmp_path / "s.zarr")
    assert (report.images, report.labelled) == (3, 3)
    assert store.parents.tolist() == list(BARCODES)
    assert store.groups.tolist() == ["TCGA-A7-A13E", "TCGA-A7-A13F", "TCGA-2Z-A9J9"]
    assert store.splits.tolist() == ["train", "train", "test"]
    assert store.mpp == 0.25
    assert store.layers["labels"].kind == "instances"
    assert store.layers["labels"].labels.names == ("background", "nucleus")
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.int32)
    for number, (left, top, right, bottom) in reversed(list(enumerate(BOXES, start=1))):
        expected[top:bottom, left:right] = number
    for labels in store.read_labels("labels", range(3)):
        np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize(("part", "split"), [(TRAIN, "train"), (TEST, "test"), (f"{TRAIN}/..", "train")])
def test_a_part_alone_knows_its_split(monuseg: Path, part: str, split: str) -> None:
    assert {image.split for image in find_images(monuseg / part, settings("monuseg")).images} == {split}


def test_parts_without_labels_are_taken_without(tmp_path: Path, monuseg: Path) -> None:
    (monuseg / TEST / f"{BARCODES[2]}.xml").unlink()
    ids = write_ids(tmp_path / "plain" / "labelled" / "labels" / "latest_7.png")
    write_image(tmp_path / "plain" / "labelled" / "images" / "latest_7.png")
    write_image(tmp_path / "plain" / "unlabelled" / "images" / "b.png")

    ingest(monuseg, tmp_path / "s.zarr", settings("monuseg"))
    ingest(tmp_path / "plain", tmp_path / "p.zarr", settings("monuseg"))

    assert PatchStore.open(tmp_path / "s.zarr").is_labelled("labels").tolist() == [True, True, False]
    plain = PatchStore.open(tmp_path / "p.zarr")
    assert plain.splits.tolist() == ["", "unlabelled"]
    assert plain.groups.tolist() == ["latest_7", "b"]
    assert plain.is_labelled("labels").tolist() == [True, False]
    np.testing.assert_array_equal(plain.read_labels("labels", [0])[0], ids)


def test_one_lost_annotation_is_told_and_left_over_ones_are_warned_of(
    monuseg: Path, caplog: pytest.LogCaptureFixture
) -> None:
    annotations = monuseg / TRAIN / "Annotations"
    write_xml(annotations / "TCGA-18-5592-01Z-00-DX1.xml")
    find_images(monuseg, settings("monuseg"))
    assert "1 labels belong to no image, such as TCGA-18-5592-01Z-00-DX1.xml" in caplog.text

    (annotations / f"{BARCODES[1]}.xml").unlink()
    with pytest.raises(DataError, match=f"{BARCODES[1]}.tif: there are no labels of this name.*--split TABLE.csv"):
        find_images(monuseg, settings("monuseg"))
    (annotations / f"{BARCODES[0]}.xml").unlink()
    with pytest.raises(DataError, match="others beside it have theirs, and 1 more are so"):
        find_images(monuseg, settings("monuseg"))


@pytest.mark.parametrize("layout", ["monuseg", "dsb2018"])
def test_images_that_are_marked_as_unlabelled_may_lie_beside_others(
    tmp_path: Path, layout: str, request: pytest.FixtureRequest
) -> None:
    source = request.getfixturevalue(layout)
    images = find_images(source, settings(layout)).images
    train = [image for image in images if image.split == "train"]
    lost, kept = train[0], train[1]
    assert lost.labels is not None
    lost.labels.rename(tmp_path / "elsewhere")

    def table(split: str) -> Path:
        rows = [f"{image.name},{split if image == lost else image.split}" for image in images]
        path = tmp_path / f"{split}.csv"
        path.write_text("\n".join(("image,split", *rows)))
        return path

    with pytest.raises(DataError, match="mark images without as unlabelled"):
        find_images(source, settings(layout, split=str(table("train"))))
    ingest(source, tmp_path / "s.zarr", settings(layout, split=str(table("unlabelled"))))

    store = PatchStore.open(tmp_path / "s.zarr")
    at = {name: number for number, name in enumerate(store.parents.tolist())}
    is_labelled = store.is_labelled("labels")
    assert store.splits[at[lost.name]] == "unlabelled"
    assert not is_labelled[at[lost.name]]
    assert is_labelled[at[kept.name]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<Annotations><Annotation>", "broken XML"),
        ("", "broken XML"),
        ("<ASAP_Annotations/>", "not Aperio XML: begins with ASAP_Annotations"),
        ('<Annotations><Region><Vertex X="1"/></Region></Annotations>', "region 1 has a vertex without X or Y"),
        ('<Annotations><Region><Vertex X="1" Y="a"/></Region></Annotations>', "region 1 has a vertex without X or Y"),
        (
            '<Annotations><Region><Vertex X="1" Y="nan"/></Region></Annotations>',
            "region 1 has a vertex that is nowhere",
        ),
    ],
)
def test_broken_annotations_are_told(tmp_path: Path, monuseg: Path, text: str, told: str) -> None:
    (monuseg / TEST / f"{BARCODES[2]}.xml").write_text(text)

    with pytest.raises(DataError, match=f"{BARCODES[2]}.xml: {told}"):
        ingest(monuseg, tmp_path / "s.zarr", settings("monuseg"))
    assert not (tmp_path / "s.zarr").exists()


def test_annotations_of_another_size_are_told(tmp_path: Path, monuseg: Path) -> None:
    write_xml(monuseg / TEST / f"{BARCODES[2]}.xml", [(1, 1, 5, 5), (40, 5, 50, 9)])

    with pytest.raises(DataError, match=f"{BARCODES[2]}.xml: 1 of 2 outlines lie outside the image of 30x20 pixels"):
        ingest(monuseg, tmp_path / "s.zarr", settings("monuseg"))


def test_outlines_without_pixels_are_warned_of(tmp_path: Path, monuseg: Path, caplog: pytest.LogCaptureFixture) -> None:
    hidden, tiny = (3, 4, 7, 8), (15.6, 15.6, 16.4, 16.4)
    write_xml(monuseg / TEST / f"{BARCODES[2]}.xml", [BOXES[0], hidden, tiny])

    ingest(monuseg, tmp_path / "s.zarr", settings("monuseg"))

    assert f"{BARCODES[2]}.xml: 2 of 3 outlines have no pixel of their own" in caplog.text
    assert set(np.unique(PatchStore.open(tmp_path / "s.zarr").read_labels("labels", [2]))) == {0, 1}


def make_glas(folder: Path, *, grades: str | None) -> Path:
    for name in ("train_1", "train_2", "testA_1", "testB_1"):
        write_image(folder / f"{name}.bmp")
        write_ids(folder / f"{name}_anno.bmp", highest=5)
    if grades is not None:
        (folder / "Grade.csv").write_text(grades)
    return folder


GRADES = """name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)
testA_1,4, benign, adenomatous
testB_1,2, malignant, poorly differentiated
train_1,4, benign, healthy
train_2,9, malignant, moderately differentiated
"""


@pytest.mark.parametrize("inside", [".", "Warwick QU Dataset (Released 2016_07_08)"])
def test_glas_has_its_splits_and_patients_from_names_and_table(
    tmp_path: Path, inside: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = make_glas((tmp_path / "src" / inside).resolve(), grades=GRADES)

    ingest(tmp_path / "src", tmp_path / "s.zarr", settings("glas"))

    store = PatchStore.open(tmp_path / "s.zarr")
    assert store.parents.tolist() == ["testA_1", "testB_1", "train_1", "train_2"]
    assert store.splits.tolist() == ["test", "test", "train", "train"]
    # A patient of both parts would keep the images to train on from being trained on.
    assert store.groups.tolist() == ["4 (test)", "2", "4 (train)", "9"]
    assert "1 of 3 patients have images on both sides of the published split" in caplog.text
    assert store.mpp == 0.62
    assert store.layers["labels"].labels.names == ("background", "gland")
    np.testing.assert_array_equal(store.read_labels("labels", [0])[0], read_labels(source / "testA_1_anno.bmp"))


@pytest.mark.parametrize("other", ["train_1,train\ntestA_1,test", "testA_1,train\ntrain_1,test"])
def test_a_split_of_ones_own_keeps_patients_of_glas_whole(
    tmp_path: Path, other: str, caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "split.csv"
    table.write_text(f"image,split\n{other}\ntrain_2,train\ntestB_1,test\n")

    images = find_images(make_glas(tmp_path / "src", grades=GRADES), settings("glas", split=str(table))).images

    assert [image.group for image in images] == ["4", "2", "4", "9"]
    assert "1 patients are in several of train, val and test, such as 4" in caplog.text
    assert "published split" not in caplog.text


def test_glas_without_grades_or_test_labels_is_taken(tmp_path: Path) -> None:
    source = make_glas(tmp_path, grades=None)
    (source / "testB_1_anno.bmp").unlink()

    images = find_images(source, settings("glas")).images

    assert [image.group for image in images] == ["testA_1", "testB_1", "train_1", "train_2"]
    assert [image.name for image in images if image.labels is None] == ["testB_1"]


@pytest.mark.parametrize(
    ("grades", "told"),
    [
        ("", "not a table with the columns name and patient ID"),
        ("image,patient\na,1\n", "not a table with the columns name and patient ID"),
        (GRADES.replace("train_2,9", "train_2,"), "tells no patient of train_2"),
        (GRADES.replace("train_2", "train_3"), "tells no patient of train_2"),
    ],
)
def test_grades_that_tell_no_patients_are_told(tmp_path: Path, grades: str, told: str) -> None:
    with pytest.raises(DataError, match=f"Grade.csv: {told}"):
        find_images(make_glas(tmp_path, grades=grades), settings("glas"))


@pytest.mark.parametrize(("annotation", "test"), [("Annotation", "valid"), ("Annotations", "test")])
def test_crag_is_tested_on_what_is_called_valid(tmp_path: Path, annotation: str, test: str) -> None:
    source = tmp_path / "src" / "CRAG"
    for part in ("train", test):
        write_image(source / part / "Images" / f"{part}_1.png")
        write_ids(source / part / annotation / f"{part}_1.png")
        write_image(source / part / "Overlay" / f"{part}_1.png")

    ingest(tmp_path / "src", tmp_path / "s.zarr", settings("crag"))

    store = PatchStore.open(tmp_path / "s.zarr")
    assert dict(zip(store.parents, store.splits, strict=True)) == {"train_1": "train", f"{test}_1": "test"}
    assert store.mpp == 0.5
    assert store.layers["labels"].labels.names == ("background", "gland")
    assert store.is_labelled("labels").all()


def test_maps_of_objects_come_from_matlab_files(tmp_path: Path) -> None:
    write_image(tmp_path / "src" / "train" / "Images" / "a.png")
    ids = write_ids(tmp_path / "ids.png", highest=9)
    annotation = tmp_path / "src" / "train" / "Annotation" / "a.mat"
    annotation.parent.mkdir()
    savemat(annotation, {"inst_map": ids.astype(np.float64)})

    ingest(tmp_path / "src", tmp_path / "s.zarr", settings("crag"))

    np.testing.assert_array_equal(PatchStore.open(tmp_path / "s.zarr").read_labels("labels", [0])[0], ids)
    for wrong, told in (
        ({"inst_map": ids - 0.5}, "no map of object ids"),
        ({"inst_map": ids[..., None].repeat(3, -1)}, "no map of object ids"),
        ({"other": ids}, "no variable inst_map"),
        ({"inst_map": ids[1:]}, "30x19 pixels, its image 30x20"),
    ):
        savemat(annotation, wrong)
        with pytest.raises(DataError, match=rf"a\.mat: .*{told}"):
            ingest(tmp_path / "src", tmp_path / "t.zarr", settings("crag"))
    annotation.write_bytes(b"MATLAB no more" * 20)
    with pytest.raises(DataError, match=r"a\.mat: cannot be read as a MATLAB file"):
        ingest(tmp_path / "src", tmp_path / "t.zarr", settings("crag"))


def write_mask(path: Path, box: tuple[int, int, int, int], *, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    left, top, right, bottom = box
    mask = np.zeros(size, np.uint8)
    mask[top:bottom, left:right] = 255
    Image.fromarray(mask).save(path)


@pytest.fixture
def dsb2018(tmp_path: Path) -> Path:
    """Return two stages, of which one has masks."""
    folder = tmp_path / "src"
    for stage, name in (("stage1_train", "0f"), ("stage1_train", "a1"), ("stage1_test", "c3")):
        write_image(folder / stage / name / "images" / f"{name}.png")
    for number, box in enumerate(BOXES[:2]):
        write_mask(folder / "stage1_train" / "0f" / "masks" / f"{number}e.png", box)
    write_mask(folder / "stage1_train" / "a1" / "masks" / "9.png", BOXES[0])
    return folder


def test_masks_of_single_objects_become_one_map(tmp_path: Path, dsb2018: Path) -> None:
    ingest(dsb2018, tmp_path / "s.zarr", settings("dsb2018"))

    store = PatchStore.open(tmp_path / "s.zarr")
    order = [store.parents.tolist().index(name) for name in ("0f", "a1", "c3")]
    assert store.splits[order].tolist() == ["train", "train", "test"]
    assert store.is_labelled("labels")[order].tolist() == [True, True, False]
    assert store.mpp is None
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.int32)
    expected[5:11, 6:12] = 2
    expected[3:9, 2:8] = 1
    np.testing.assert_array_equal(store.read_labels("labels", [order[0]])[0], expected)
    assert {image.split for image in find_images(dsb2018 / "stage1_train", settings("dsb2018")).images} == {"train"}
    with pytest.raises(NothingMatchedError, match="They lie in SRC/ID/images"):
        find_images(dsb2018 / "stage1_train" / "0f", settings("dsb2018"))


def test_another_mask_makes_another_store(tmp_path: Path, dsb2018: Path) -> None:
    ingest(dsb2018, tmp_path / "s.zarr", settings("dsb2018"))
    assert ingest(dsb2018, tmp_path / "s.zarr", settings("dsb2018")).was_done

    write_mask(dsb2018 / "stage1_train" / "a1" / "masks" / "10.png", BOXES[2])

    assert not ingest(dsb2018, tmp_path / "s.zarr", settings("dsb2018"), overwrite=True).was_done


def test_masks_that_do_not_fit_are_told(tmp_path: Path, dsb2018: Path) -> None:
    masks = dsb2018 / "stage1_train" / "a1" / "masks"
    write_mask(masks / "9.png", BOXES[0], size=(HEIGHT, HEIGHT))
    with pytest.raises(DataError, match=r"9\.png: the label image has 20x20 pixels, its image 30x20"):
        ingest(dsb2018, tmp_path / "s.zarr", settings("dsb2018"))

    (masks / "9.png").unlink()
    with pytest.raises(DataError, match=r"a1\.png: there are no labels of this name"):
        find_images(dsb2018, settings("dsb2018"))
    write_image(dsb2018 / "stage1_test" / "c3" / "images" / "other.png")
    with pytest.raises(DataError, match="holds 2 images instead of one"):
        find_images(dsb2018, settings("dsb2018"))


@pytest.mark.parametrize("layout", ["monuseg", "glas", "crag", "dsb2018"])
def test_nothing_to_take_and_names_taken_twice_are_told(tmp_path: Path, layout: str) -> None:
    with pytest.raises(NothingMatchedError, match="no such folder"):
        find_images(tmp_path / "gone", settings(layout))
    with pytest.raises(NothingMatchedError, match="holds no images"):
        find_images(tmp_path, settings(layout))
    for part in ("one", "two"):
        folder = {"glas": part, "dsb2018": f"{part}/train_1/images"}.get(layout, f"{part}/images")
        write_image(tmp_path / folder / "train_1.png")
    with pytest.raises(DataError, match="the same name as"):
        find_images(tmp_path, settings(layout))


def test_what_is_known_is_not_told_anew_but_the_scale_may_be() -> None:
    for changes in ({"classes": ["cell"]}, {"labels_as": "classes"}, {"labels": "labels.csv"}):
        with pytest.raises(ValueError, match="what the labels of monuseg are is known"):
            settings("monuseg", **changes)
    assert settings("monuseg", labels_as="instances", mpp=0.23).mpp == 0.23


def test_the_command_line_tells_in_one_line_what_is_wrong(tmp_path: Path, monuseg: Path) -> None:
    (monuseg / TEST / f"{BARCODES[2]}.xml").write_text("<Annotations>")

    result = CliRunner().invoke(app, ["ingest", str(monuseg), "-o", str(tmp_path / "s.zarr"), "--layout", "monuseg"])

    assert isinstance(result.exception, DataError)
    assert result.exception.exit_code == 5
    assert f"{BARCODES[2]}.xml: broken XML" in str(result.exception)


def test_the_nuclei_and_glands_of_the_data_folder(tmp_path: Path, data_dir: Path) -> None:
    ingest(data_dir / "nuclei_monuseg", tmp_path / "n.zarr", settings("monuseg", patch_size=500))

    nuclei = PatchStore.open(tmp_path / "n.zarr")
    assert len(nuclei) == 30 * 4
    assert set(nuclei.splits[nuclei.is_labelled("labels")]) == {""}
    assert set(nuclei.splits[~nuclei.is_labelled("labels")]) == {"unlabelled"}
    assert nuclei.is_labelled("labels").sum() == 13 * 4
    assert all(len(group) == len("TCGA-XX-XXXX") for group in nuclei.groups)
    assert len(find_images(data_dir / "glands_glas", settings("images", mpp=0.62, labels_as="instances")).images) == 85
