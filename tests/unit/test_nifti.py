"""Volumes are the same however their files order the axes, and go back where they came from."""

from __future__ import annotations

import sys
from itertools import permutations, product
from typing import TYPE_CHECKING

import nibabel
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.volume_makers import make_case, write_nifti
from wsiseg.errors import ConfigError, DataError
from wsiseg.nifti import VolumeGrid, nifti_stem, read_label_volume, read_volume, write_volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

VOLUME, LABELS = make_case(0, (5, 6, 7))
SPACING = (3.0, 2.0, 1.0)


def turned(axes: tuple[int, ...], signs: tuple[int, ...]) -> nibabel.Nifti1Image:
    """Return the volume in a file whose axes run elsewhere, with an affine that says so."""
    start = nibabel.Nifti1Image(VOLUME.transpose(2, 1, 0), np.diag([1.0, 2.0, 3.0, 1.0]))
    return start.as_reoriented(np.stack([axes, signs], axis=1))


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_a_volume_is_the_same_in_any_order_of_axes(
    tmp_path: Path, axes: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    nibabel.save(turned(axes, signs), tmp_path / "case.nii.gz")

    voxels, grid = read_volume(tmp_path / "case.nii.gz")

    np.testing.assert_array_equal(voxels, VOLUME)
    assert grid.spacing_mm == pytest.approx(SPACING)


@pytest.mark.parametrize(("axes", "signs"), list(product([(0, 1, 2), (2, 0, 1)], [(1, 1, 1), (-1, 1, -1)])))
def test_what_is_written_lies_where_the_volume_does(
    tmp_path: Path, axes: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    original = turned(axes, signs)
    nibabel.save(original, tmp_path / "case.nii.gz")
    _, grid = read_volume(tmp_path / "case.nii.gz")

    write_volume(tmp_path / "copy.nii.gz", VOLUME, grid)
    write_volume(tmp_path / "channels.nii.gz", np.stack([VOLUME, -VOLUME]), grid)

    copy, channels = nibabel.load(tmp_path / "copy.nii.gz"), nibabel.load(tmp_path / "channels.nii.gz")
    np.testing.assert_array_equal(copy.get_fdata(), original.get_fdata())
    np.testing.assert_allclose(copy.affine, original.affine)
    np.testing.assert_array_equal(channels.get_fdata()[..., 1], -original.get_fdata())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case.nii.gz", "channels.nii.gz", "copy.nii.gz"]


def test_numbers_keep_their_type_unless_the_file_scales_them(tmp_path: Path) -> None:
    scaled = nibabel.Nifti1Image(np.arange(24).reshape(2, 3, 4) / 7.0, np.eye(4))
    scaled.header.set_data_dtype(np.int16)
    nibabel.save(scaled, tmp_path / "scaled.nii.gz")

    labels, _ = read_volume(write_nifti(tmp_path / "labels.nii", LABELS))
    values, _ = read_volume(tmp_path / "scaled.nii.gz")

    assert labels.dtype == np.uint8
    assert values.dtype == np.float32
    np.testing.assert_allclose(values.transpose(2, 1, 0).ravel(), np.arange(24) / 7, atol=1e-3)


def test_labels_may_be_stored_as_floats(tmp_path: Path) -> None:
    labels, _ = read_label_volume(write_nifti(tmp_path / "labels.nii.gz", LABELS.astype(np.float32)))

    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize("strange", [np.float32(0.5), np.float32(np.nan), np.int16(-1), np.int16(256)])
def test_labels_that_are_no_small_whole_numbers_are_refused(tmp_path: Path, strange: np.generic) -> None:
    path = write_nifti(tmp_path / "labels.nii.gz", np.full((2, 2, 2), strange))

    with pytest.raises(DataError, match="whole numbers from 0 to 255"):
        read_label_volume(path)


def test_a_last_axis_of_one_channel_is_none(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(VOLUME.transpose(2, 1, 0)[..., None], np.eye(4)), tmp_path / "case.nii.gz")

    np.testing.assert_array_equal(read_volume(tmp_path / "case.nii.gz")[0], VOLUME)


def test_several_channels_are_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5, 2), np.float32), np.eye(4)), tmp_path / "case.nii.gz")

    with pytest.raises(DataError, match="3 x 4 x 5 x 2 values"):
        read_volume(tmp_path / "case.nii.gz")


@pytest.mark.parametrize("how", ["missing", "rubbish", "torn"])
def test_a_file_that_cannot_be_read_is_told_in_one_line(tmp_path: Path, how: str) -> None:
    path = tmp_path / "case.nii.gz"
    if how == "rubbish":
        path.write_bytes(b"this is no volume")
    if how == "torn":
        write_nifti(path, VOLUME)
        path.write_bytes(path.read_bytes()[:-200])

    with pytest.raises(DataError, match="no such volume" if how == "missing" else "cannot be read as a NIfTI"):
        read_volume(path)


def test_grids_are_alike_but_for_the_rounding_of_headers() -> None:
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    grid = VolumeGrid(shape=(7, 6, 5), affine=affine, place={})

    assert grid.is_like(VolumeGrid(shape=(7, 6, 5), affine=affine + 1e-5, place={}))
    assert not grid.is_like(VolumeGrid(shape=(7, 6, 5), affine=np.eye(4), place={}))
    assert not grid.is_like(VolumeGrid(shape=(7, 6, 4), affine=affine, place={}))


def about_diagonal(degrees: float) -> NDArray[np.float64]:
    """Return an affine that turns about the diagonal of a cube, which stays where it is."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec(np.ones(3) / np.sqrt(3) * degrees, degrees=True).as_matrix()
    return affine


def test_grids_that_share_a_diagonal_are_not_alike() -> None:
    grid, other = (VolumeGrid(shape=(9, 9, 9), affine=about_diagonal(turn), place={}) for turn in (0, 30))

    assert not grid.is_like(other)
    assert not other.is_like(grid)


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_files_of_one_place_are_alike_whatever_the_order_of_their_axes(
    tmp_path: Path, axes: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    nibabel.save(turned((0, 1, 2), (1, 1, 1)), tmp_path / "image.nii.gz")
    nibabel.save(turned(axes, signs), tmp_path / "labels.nii.gz")
    (_, image), (found, labels) = (read_volume(tmp_path / f"{name}.nii.gz") for name in ("image", "labels"))

    assert image.is_like(labels)
    assert labels.is_like(image)
    np.testing.assert_array_equal(image.aligned(found, labels), VOLUME)
    moved = VolumeGrid(shape=labels.shape, affine=labels.affine + np.eye(4)[:, [1, 2, 3, 0]] * 0.5, place={})
    assert not image.is_like(moved)


def test_labels_lie_on_their_voxels_where_rounding_decides_about_the_order_of_axes(tmp_path: Path) -> None:
    for name, slip in (("image", 1e-5), ("labels", -1e-5)):
        affine = np.eye(4)
        affine[:3, :3] = Rotation.from_euler("z", np.pi / 4 + slip).as_matrix()
        write_nifti(tmp_path / f"{name}.nii.gz", VOLUME, affine)
    (voxels, image), (found, labels) = (read_volume(tmp_path / f"{name}.nii.gz") for name in ("image", "labels"))

    assert voxels.shape != found.shape
    assert image.is_like(labels)
    np.testing.assert_array_equal(image.aligned(found, labels), voxels)


@pytest.mark.parametrize(("unit", "size"), [("micron", 0.001), ("mm", 1), ("meter", 1000), ("unknown", 1)])
def test_distances_are_millimetres_whatever_the_unit_of_the_header(tmp_path: Path, unit: str, size: float) -> None:
    image = nibabel.Nifti1Image(VOLUME.transpose(2, 1, 0), np.diag([1 / size, 2 / size, 3 / size, 1]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "case.nii.gz")

    _, grid = read_volume(tmp_path / "case.nii.gz")
    write_volume(tmp_path / "copy.nii.gz", VOLUME, grid)

    copy = nibabel.load(tmp_path / "copy.nii.gz")
    assert grid.spacing_mm == pytest.approx(SPACING)
    assert copy.header.get_xyzt_units()[0] == unit
    np.testing.assert_allclose(copy.affine, image.affine, rtol=1e-6)


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 1), (1, 1), (2, 4)])
def test_programs_that_believe_another_part_of_the_header_find_labels_where_they_find_the_volume(
    tmp_path: Path, codes: tuple[int, int]
) -> None:
    image = nibabel.Nifti1Image(VOLUME.transpose(2, 1, 0), np.eye(4))
    image.set_sform(np.diag([-1.0, 2.0, 3.0, 1.0]) + np.eye(4)[:, [3, 0, 1, 2]] * 0.5, code=codes[1])
    image.set_qform(np.diag([1.0, -2.0, 3.0, 1.0]), code=codes[0])
    nibabel.save(image, tmp_path / "case.nii.gz")
    before = nibabel.load(tmp_path / "case.nii.gz")

    voxels, grid = read_volume(tmp_path / "case.nii.gz")
    write_volume(tmp_path / "copy.nii.gz", voxels, grid)

    copy = nibabel.load(tmp_path / "copy.nii.gz")
    np.testing.assert_array_equal(copy.get_fdata(), before.get_fdata())
    np.testing.assert_array_equal(copy.affine, before.affine)
    for form in ("get_qform", "get_sform"):
        (theirs, code), (ours, other) = (getattr(one, form)(coded=True) for one in (before.header, copy.header))
        assert code == other
        np.testing.assert_array_equal(ours, theirs)


def test_both_parts_of_the_suffix_belong_to_it(tmp_path: Path) -> None:
    assert [nifti_stem(tmp_path / name) for name in ("a.b.nii.gz", "a.nii", "A.NII.GZ")] == ["a.b", "a", "A"]


def test_who_lacks_the_library_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nibabel", None)

    with pytest.raises(ConfigError, match=r"pip install 'wsiseg\[volumes\]'"):
        read_volume(tmp_path / "case.nii.gz")
