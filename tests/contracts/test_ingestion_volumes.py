"""Volumes are taken in as they lie on disk, prepared as the settings say, or refused with a reason."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import h5py
import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.listeners import Listener
from tests.volume_makers import make_case, write_cases, write_nifti
from wsiseg.cli.app import app
from wsiseg.errors import ConfigError, DataError, NothingMatchedError, StoreError
from wsiseg.ingestion.volumes import VolumeSettings
from wsiseg.stores.volume_store import VolumeStore
from wsiseg.tasks.ingest_volumes import ingest_volumes
from wsiseg.volumes import IntensityRule, prepare

if TYPE_CHECKING:
    from pathlib import Path

AS_IS = IntensityRule(crop=False, clip=None, normalise="none")


def taken(source: Path, **settings: Any) -> VolumeStore:  # noqa: ANN401 - any settings
    store = source.with_name("made.zarr")
    ingest_volumes(source, store, VolumeSettings(**settings), num_workers=1, overwrite=True)
    return VolumeStore.open(store)


def write_hdf5(path: Path, number: int, *, labels: bool = True) -> None:
    """Write a case whose arrays are (x, y, z)."""
    volume, truth = make_case(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["image"] = volume.transpose(2, 1, 0)
        if labels:
            file["label"] = truth.transpose(2, 1, 0)


def test_volumes_are_stored_as_networks_see_them(tmp_path: Path) -> None:
    volume, labels = make_case(0)
    hollow = np.pad(volume, 3)
    write_nifti(tmp_path / "src" / "images" / "case.nii.gz", hollow, np.diag([0.5, 1.0, 2.0, 1.0]))
    write_nifti(tmp_path / "src" / "labels" / "case.nii.gz", np.pad(labels, 3), np.diag([0.5, 1.0, 2.0, 1.0]))

    store = taken(tmp_path / "src", classes=("background", "head", "tail"))

    (entry,) = store.meta.volumes
    np.testing.assert_array_equal(store.read_voxels(0), prepare(hollow, IntensityRule(), where="case").voxels)
    np.testing.assert_array_equal(store.read_labels(0), labels)
    assert (entry.start, entry.whole) == ((3, 3, 3), hollow.shape)
    assert entry.spacing_mm == (2.0, 1.0, 0.5)
    assert entry.affine is not None
    assert np.array_equal(np.array(entry.affine), np.diag([0.5, 1.0, 2.0, 1.0]))
    assert store.meta.labels.names == ("background", "head", "tail")
    assert store.meta.intensities == IntensityRule()


def test_some_volumes_may_have_no_labels(tmp_path: Path) -> None:
    store = taken(write_cases(tmp_path / "src", 3, unlabelled=2))

    assert store.is_labelled().tolist() == [True, False, False]
    assert store.meta.labels.names == ("background", "class 1", "class 2")


def test_folders_may_have_the_names_of_nnunet(tmp_path: Path) -> None:
    volume, labels = make_case(0)
    for image, mask in (
        ("imagesTr/a_0000", "labelsTr/a"),
        ("imagesTr/b_0000", None),
        ("imagesTs/c_0000", "labelsTs/c"),
    ):
        write_nifti(tmp_path / "src" / f"{image}.nii.gz", volume)
        if mask is not None:
            write_nifti(tmp_path / "src" / f"{mask}.nii.gz", labels)
    (tmp_path / "src" / "imagesTr" / "._a_0000.nii.gz").write_bytes(b"left by another system")

    store = taken(tmp_path / "src")

    assert [(entry.name, entry.split, entry.is_labelled) for entry in store.meta.volumes] == [
        ("a", "", True),
        ("b", "", False),
        ("c", "test", True),
    ]


@pytest.mark.parametrize("folder", ["data", "."])
def test_hdf5_files_follow_their_lists(tmp_path: Path, folder: str) -> None:
    for number, name in enumerate("cbad"):
        write_hdf5(tmp_path / "src" / folder / f"{name}.h5", number, labels=name != "d")
    (tmp_path / "src" / "train.txt").write_bytes(b"b, first\r\na\r\nd\r\n")
    (tmp_path / "src" / "val.txt").write_bytes(b"c\r\n\r\n")

    store = taken(tmp_path / "src", intensities=AS_IS)

    assert [(entry.name, entry.split) for entry in store.meta.volumes] == [
        ("b", "train"),
        ("a", "train"),
        ("d", "train"),
        ("c", "val"),
    ]
    assert store.is_labelled().tolist() == [True, True, False, True]
    np.testing.assert_array_equal(store.read_voxels(0), make_case(1)[0])
    np.testing.assert_array_equal(store.read_labels(0), make_case(1)[1])


def test_hdf5_axes_are_what_the_user_says(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "src" / "a.h5", 0)

    store = taken(tmp_path / "src", axes="zyx", intensities=AS_IS)

    np.testing.assert_array_equal(store.read_voxels(0), make_case(0)[0].transpose(2, 1, 0))


def test_all_labels_may_mean_one_class(tmp_path: Path) -> None:
    store = taken(write_cases(tmp_path / "src", 1), binary=True, classes=("background", "tumour"))

    np.testing.assert_array_equal(store.read_labels(0), make_case(0)[1] > 0)


def test_a_table_splits_volumes_by_patients(tmp_path: Path) -> None:
    table = tmp_path / "splits.csv"
    table.write_text("image,split,patient_id\ncase0,train,P1\ncase1.nii.gz,val,P2\ncase2,train,P1\n", encoding="utf-8")

    store = taken(write_cases(tmp_path / "src", 3), split=str(table))

    assert store.splits.tolist() == ["train", "val", "train"]
    assert store.groups.tolist() == ["P1", "P2", "P1"]


def test_a_second_time_there_is_nothing_to_do_unless_something_changed(tmp_path: Path) -> None:
    source, store = write_cases(tmp_path / "src", 2), tmp_path / "made.zarr"
    first = ingest_volumes(source, store, VolumeSettings(), num_workers=1)
    second = ingest_volumes(source, store, VolumeSettings(), num_workers=1)

    assert (first.was_done, second.was_done) == (False, True)
    assert "2 volumes (2 labelled: background, class 1, class 2)" in str(second)
    with pytest.raises(StoreError, match="other settings"):
        ingest_volumes(source, store, VolumeSettings(intensities=AS_IS), num_workers=1)


def test_the_command_makes_a_store(tmp_path: Path) -> None:
    source = write_cases(tmp_path / "src", 2)
    arguments = ["ingest", str(source), "-o", str(tmp_path / "made.zarr"), "--layout", "volumes", "--num-workers", "0"]
    options = ["--classes", "background,head,tail", "--set", "intensities.clip=0.9"]

    result = CliRunner().invoke(app, ["--progress", "none", *arguments, *options], catch_exceptions=False)

    assert "2 volumes (2 labelled: background, head, tail)" in result.output
    assert VolumeStore.open(tmp_path / "made.zarr").meta.intensities.clip == 0.9
    with pytest.raises(ConfigError, match="unknown setting patch_size"):
        CliRunner().invoke(app, [*arguments, "--patch-size", "64"], catch_exceptions=False)


def test_intensities_below_zero_are_spoken_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_nifti(tmp_path / "src" / "images" / "case.nii.gz", make_case(0)[0] - 150)

    taken(tmp_path / "src")
    assert "1 volumes hold intensities below 0, such as case" in caplog.text

    caplog.clear()
    taken(tmp_path / "src", intensities=IntensityRule(crop=False, normalise="all"))
    assert caplog.text == ""


def test_labels_of_another_shape_are_refused(tmp_path: Path) -> None:
    source = write_cases(tmp_path / "src", 1)
    write_nifti(source / "labels" / "case0.nii.gz", make_case(0)[1][1:])

    with pytest.raises(DataError, match="11 x 14 x 16 voxels, their volume 12 x 14 x 16"):
        taken(source)


def test_labels_that_lie_elsewhere_are_refused(tmp_path: Path) -> None:
    source = write_cases(tmp_path / "src", 1)
    write_nifti(source / "labels" / "case0.nii.gz", make_case(0)[1], np.diag([2.0, 2.0, 2.0, 1.0]))

    with pytest.raises(DataError, match="do not lie where their volume does"):
        taken(source)


def test_labels_in_another_order_of_axes_lie_on_their_voxels(tmp_path: Path) -> None:
    source = write_cases(tmp_path / "src", 1)
    path = source / "labels" / "case0.nii.gz"
    nibabel.save(nibabel.load(path).as_reoriented(np.array([[1, -1], [0, 1], [2, -1]])), path)

    store = taken(source, intensities=AS_IS)

    np.testing.assert_array_equal(store.read_labels(0), make_case(0)[1])


@pytest.mark.parametrize(("settings", "is_told"), [({}, True), ({"axes": "xyz"}, False)])
def test_the_order_of_axes_that_nobody_told_is_spoken_of(
    tmp_path: Path, settings: dict[str, Any], *, is_told: bool
) -> None:
    write_hdf5(tmp_path / "src" / "a.h5", 0)
    progress = Listener()

    ingest_volumes(
        tmp_path / "src", tmp_path / "made.zarr", VolumeSettings(**settings), num_workers=0, progress=progress
    )

    assert [line for line in progress.heard if "taken for xyz" in line and "--set axes=zyx" in line] == (
        progress.heard if is_told else []
    )
    assert len(progress.heard) == is_told


def test_labels_beyond_the_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds the class 2, but there are 2\b.*binary=true"):
        taken(write_cases(tmp_path / "src", 1), classes=("background", "head"))


def test_labels_without_a_volume_are_refused_where_none_fits(tmp_path: Path) -> None:
    source = write_cases(tmp_path / "src", 2)
    for number in range(2):
        (source / "labels" / f"case{number}.nii.gz").rename(source / "labels" / f"mask{number}.nii.gz")

    with pytest.raises(DataError, match="no labels have the name of a volume"):
        taken(source)


@pytest.mark.parametrize(
    ("lists", "told"),
    [
        ({"train": "a\nb"}, "there is no volume b"),
        ({"train": "a", "test": "a"}, "a is in two lists"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path: Path, lists: dict[str, str], told: str) -> None:
    write_hdf5(tmp_path / "src" / "a.h5", 0)
    for name, text in lists.items():
        (tmp_path / "src" / f"{name}.txt").write_text(text, encoding="utf-8")

    with pytest.raises(DataError, match=told):
        taken(tmp_path / "src")


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    source = write_cases(tmp_path / "src", 2)
    (source / "images" / "case1.nii.gz").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"case1.nii.gz: cannot be read as a NIfTI volume"):
        taken(source)

    other = tmp_path / "other"
    other.mkdir()
    (other / "a.h5").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"a.h5: cannot be read as an HDF5 file"):
        taken(other)
    with h5py.File(other / "a.h5", "w") as file:
        file["volume"] = np.zeros((2, 2, 2))
    with pytest.raises(DataError, match="no data set 'image'"):
        taken(other)


def test_folders_without_volumes_are_told(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()

    with pytest.raises(NothingMatchedError, match="holds no volumes"):
        taken(tmp_path / "src")
    with pytest.raises(NothingMatchedError, match="no such folder"):
        taken(tmp_path / "nothing")


def test_who_lacks_h5py_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_hdf5(tmp_path / "src" / "a.h5", 0)
    monkeypatch.setitem(sys.modules, "h5py", None)

    with pytest.raises(ConfigError, match=r"pip install 'wsiseg\[volumes\]'"):
        taken(tmp_path / "src")


def test_real_volumes_come_in_with_their_labels(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "volumes_hippocampus"
    store = tmp_path / "hippocampus.zarr"

    report = ingest_volumes(
        source, store, VolumeSettings(classes=("background", "anterior", "posterior")), num_workers=1
    )

    opened = VolumeStore.open(store)
    about = json.loads((store / "zarr.json").read_text(encoding="utf-8"))["attributes"]["wsiseg"]
    assert (report.volumes, report.labelled) == (80, 80)
    assert len(about["volumes"]) == 80
    for index in (0, 41, 79):
        entry = opened.meta.volumes[index]
        image = nibabel.load(source / "images" / f"{entry.name}.nii.gz")
        truth = np.asarray(nibabel.load(source / "labels" / f"{entry.name}.nii.gz").dataobj).transpose(2, 1, 0)
        depth, height, width = (slice(at, at + side) for at, side in zip(entry.start, entry.shape, strict=True))
        assert entry.whole == image.shape[::-1]
        assert entry.spacing_mm == (1.0, 1.0, 1.0)
        np.testing.assert_array_equal(opened.read_labels(index), truth[depth, height, width])
        assert abs(float(opened.read_voxels(index).mean())) < 0.2
