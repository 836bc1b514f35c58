"""Small volumes and the files that hold them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def make_case(seed: int, shape: tuple[int, int, int] = (12, 14, 16)) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return a volume (D, H, W), above 0 throughout, and the labels 0, 1 and 2 of two bright ellipsoids in it."""
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij"))
    labels = np.zeros(shape, dtype=np.uint8)
    for label, centre in ((1, -0.45), (2, 0.45)):
        middle = np.array([0, 0, centre]) + rng.uniform(-0.1, 0.1, 3)
        labels[((places - middle[:, None, None, None]) ** 2 / 0.12).sum(axis=0) < 1] = label
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 1)
    volume = 100 + 60 * labels + 20 * smooth
    return volume.clip(min=1).astype(np.float32), labels


def write_nifti(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64] | None = None) -> Path:
    """Write (D, H, W) as a NIfTI file that runs to the right, the front and the head, 1 mm a voxel unless told."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels.transpose(2, 1, 0), np.eye(4) if affine is None else affine), path)
    return path


def write_cases(folder: Path, count: int, *, unlabelled: int = 0) -> Path:
    """Write volumes into ``images`` and the labels of all but the last few into ``labels``."""
    for number in range(count):
        volume, labels = make_case(number)
        write_nifti(folder / "images" / f"case{number}.nii.gz", volume)
        if number < count - unlabelled:
            write_nifti(folder / "labels" / f"case{number}.nii.gz", labels)
    return folder
