"""Volumes as NIfTI files, which say where in the body their voxels lie.

Files hold axes in any order and direction. Here volumes are (D, H, W): axes are permuted and mirrored, never resampled,
so that slices run from feet to head, rows from back to front and columns from left to right, as closely as they can.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from wsiseg.atomic import atomic_path
from wsiseg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NIFTI_SUFFIXES: Final = (".nii.gz", ".nii")
_AXES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VolumeGrid:
    """How voxels of a file lie in space.

    Parameters
    ----------
    shape
        Voxels along each axis of the file.
    affine
        (4, 4) float64: from voxels of the file to millimetres to the right, the front and the head.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

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
        """Tell whether voxels of both lie in the same places, up to the rounding of headers."""
        if self.shape != other.shape:
            return False
        tolerance = 0.01 * min(*self.spacing_mm, *other.spacing_mm)
        # At the far corner all differences have added up.
        corners = np.array([[0, 0, 0, 1], [*self.shape, 1]], dtype=np.float64).T
        return bool(np.abs(self.affine @ corners - other.affine @ corners).max() <= tolerance)

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
        affine = np.array(image.affine, dtype=np.float64)
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
    grid = VolumeGrid(shape=(width, height, depth), affine=affine)
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
    """Write a volume that lies where another one does; it appears whole or not at all.

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
    image = nibabel.Nifti1Image(np.ascontiguousarray(grid.as_filed(voxels)), grid.affine)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        # The suffix decides about the format, and temporary files have another.
        named = temporary.with_name(f"{temporary.name}.nii.gz")
        try:
            nibabel.save(image, named)
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)


def _nibabel() -> Any:  # noqa: ANN401 - the library tells few types
    try:
        import nibabel
    except ImportError as error:
        raise ConfigError(
            "NIfTI volumes need nibabel, which is not installed", mend="Run: pip install 'wsiseg[volumes]'"
        ) from error
    return nibabel
