"""Volumes as NIfTI files, which say where in the body their voxels lie.

Files hold axes in any order and direction. Here volumes are (D, H, W): axes are permuted and mirrored, never resampled,
so that slices run from feet to head, rows from back to front and columns from left to right, as closely as they can.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from wsiseg.atomic import atomic_path
from wsiseg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NIFTI_SUFFIXES: Final = (".nii.gz", ".nii")
_AXES: Final = 3
# Millimetres in the units of headers; where none is told it is what everybody takes it for.
_UNITS: Final = {"unknown": 1.0, "mm": 1.0, "micron": 0.001, "meter": 1000.0}
# Fields of a header that say where voxels lie: by quaternions, by rows of an affine, or by sizes alone.
_PLACE: Final = (
    "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
    "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VolumeGrid:
    """How voxels of a file lie in space.

    Parameters
    ----------
    shape
        Voxels along each axis of the file.
    affine
        (4, 4) float64: from voxels of the file to millimetres to the right, the front and the head.
    place
        The same as the file's header says it, by its own fields: programs differ in which of them they believe.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    place: dict[str, NDArray[Any]]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Return the millimetres from voxel to voxel along each axis of (D, H, W)."""
        sizes = np.sqrt((self.affine[:_AXES, :_AXES] ** 2).sum(axis=0))
        depth, height, width = (float(sizes[axis]) for axis in self._order)
        return depth, height, width

    def upright(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """Return voxels as the file holds them as (D, H, W), without a copy."""
        turned = voxels.transpose(self._order)
        return turned[tuple(slice(None, None, step) for step in self._steps)]

    def as_filed(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """Return (…, D, H, W) in the axes of the file, (x, y, z, …): what `upright` undoes."""
        others = voxels.ndim - _AXES
        turned = voxels[(*[slice(None)] * others, *(slice(None, None, step) for step in self._steps))]
        back = [others + self._order.index(axis) for axis in range(_AXES)]
        return turned.transpose(*back, *range(others))

    def is_like(self, other: Self) -> bool:
        """Tell whether voxels of both lie in the same places, up to the order of axes and the rounding of headers."""
        turn = self._turn(other)
        sides = np.empty(_AXES, dtype=np.int64)
        sides[turn[:, 0]] = other.shape
        if tuple(sides.tolist()) != self.shape:
            return False
        theirs = other.affine @ _nibabel().orientations.inv_ornt_aff(turn, other.shape)
        tolerance = 0.01 * min(*self.spacing_mm, *other.spacing_mm)
        corners = np.array([(*corner, 1) for corner in product(*((0, side) for side in self.shape))]).T
        return bool(np.abs(self.affine @ corners - theirs @ corners).max() <= tolerance)

    def aligned(self, voxels: NDArray[Any], other: Self) -> NDArray[Any]:
        """Return (D, H, W) as `other` has them upright as this grid has them upright, voxel by voxel.

        The two differ where axes run nearly halfway between directions of the body, so that rounding decides.

        Parameters
        ----------
        voxels
            Of the grid `other`, which is like this one.
        """
        return self.upright(_nibabel().apply_orientation(other.as_filed(voxels), self._turn(other)))

    def _turn(self, other: Self) -> NDArray[np.int64]:
        """Return for each axis of the file of `other` the nearest of this one, and whether they run one way, (3, 2)."""
        between = np.linalg.inv(self.affine) @ other.affine
        turn: NDArray[np.int64] = _nibabel().io_orientation(between).astype(np.int64)
        return turn

    @property
    def _order(self) -> tuple[int, ...]:
        # From head, front, right to the axis of the file that runs there.
        to_space = _nibabel().io_orientation(self.affine)[:, 0].astype(int).tolist()
        return tuple(to_space.index(axis) for axis in reversed(range(_AXES)))

    @property
    def _steps(self) -> tuple[int, ...]:
        directions = _nibabel().io_orientation(self.affine)[:, 1].astype(int).tolist()
        return tuple(directions[axis] for axis in self._order)


def is_nifti(path: Path) -> bool:
    """Tell whether a file's name is that of a NIfTI volume."""
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def nifti_stem(path: Path) -> str:
    """Return the name of a NIfTI file without its suffix, which may have two parts."""
    suffix = next((suffix for suffix in NIFTI_SUFFIXES if path.name.lower().endswith(suffix)), path.suffix)
    return path.name[: len(path.name) - len(suffix)]


def read_volume(path: Path) -> tuple[NDArray[Any], VolumeGrid]:
    """Return the voxels of a NIfTI file, and how they lie in space.

    Returns
    -------
    tuple[NDArray[Any], VolumeGrid]
        (D, H, W), in the file's own type, or float32 where the file scales its numbers.

    Raises
    ------
    DataError
        If the file is missing or damaged, or holds anything but one volume of one channel with voxels of some size.
    ConfigError
        If nibabel is not installed.
    """
    nibabel = _nibabel()
    try:
        image = nibabel.load(path)
        proxy = image.dataobj
        scaled = proxy.slope not in (None, 1.0) or proxy.inter not in (None, 0.0)
        voxels = np.asarray(proxy, dtype=np.float32) if scaled else np.asarray(proxy.get_unscaled())
        unit = _UNITS[image.header.get_xyzt_units()[0]]
        affine = np.diag([unit, unit, unit, 1.0]) @ np.array(image.affine, dtype=np.float64)
        place = {name: np.array(image.header[name]) for name in _PLACE}
    except FileNotFoundError as error:
        raise DataError("there is no such volume", where=path) from error
    except Exception as error:  # damaged headers and streams end in errors of many kinds
        raise DataError("cannot be read as a NIfTI volume", where=path, mend="Write or copy it anew") from error
    while voxels.ndim > _AXES and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim != _AXES or voxels.size == 0 or voxels.dtype.kind not in "iuf":
        raise DataError(
            f"holds {' x '.join(map(str, voxels.shape))} values of type {voxels.dtype}, not a volume of one channel",
            where=path,
            mend="Save each channel as a volume of its own",
        )
    if not np.isfinite(affine).all() or not abs(np.linalg.det(affine[:_AXES, :_AXES])) > 0:
        raise DataError("the header gives voxels no size", where=path, mend="Write the file anew with a valid affine")
    width, height, depth = voxels.shape
    grid = VolumeGrid(shape=(width, height, depth), affine=affine, place=place)
    native = voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    return grid.upright(native), grid


def read_label_volume(path: Path) -> tuple[NDArray[np.uint8], VolumeGrid]:
    """Return the labels of a NIfTI file, (D, H, W), and how they lie in space.

    Raises
    ------
    DataError
        As `read_volume`, and if the volume holds anything but whole numbers from 0 to 255.
    ConfigError
        If nibabel is not installed.
    """
    voxels, grid = read_volume(path)
    return whole_labels(voxels, where=path), grid


def whole_labels(voxels: NDArray[Any], *, where: Path | str) -> NDArray[np.uint8]:
    """Return labels of any type as uint8.

    Raises
    ------
    DataError
        If there is anything but whole numbers from 0 to 255.
    """
    labels = (
        voxels.astype(np.uint8)
        if voxels.dtype.kind in "biu"
        else np.nan_to_num(voxels).round().clip(0, 255).astype(np.uint8)
    )
    if not np.array_equal(labels, voxels):
        raise DataError(
            "the labels are not whole numbers from 0 to 255", where=where, mend="Save class indices, 0 for background"
        )
    return labels


def write_volume(path: Path, voxels: NDArray[Any], grid: VolumeGrid) -> None:
    """Write a volume that lies where another one does, as its header says it; it appears whole or not at all.

    Parameters
    ----------
    path
        Ends in ``.nii.gz``.
    voxels
        (D, H, W), or (C, D, H, W) for several channels, which become the last axis of the file.
    grid
        How the voxels of the other file lie.

    Raises
    ------
    ConfigError
        If nibabel is not installed.
    """
    nibabel = _nibabel()
    filed = np.ascontiguousarray(grid.as_filed(voxels))
    header = nibabel.Nifti1Header()
    header.set_data_shape(filed.shape)
    header.set_data_dtype(filed.dtype)
    for name, value in grid.place.items():
        header[name] = value
    image = nibabel.Nifti1Image(filed, None, header)
    with atomic_path(path) as temporary, gzip.open(temporary, "wb", compresslevel=1) as file:
        image.to_stream(file)


def _nibabel() -> Any:  # noqa: ANN401 - the library tells few types
    try:
        import nibabel
    except ImportError as error:
        raise ConfigError(
            "NIfTI volumes need nibabel, which is not installed", mend="Run: pip install 'wsiseg[volumes]'"
        ) from error
    return nibabel
