"""What is done to a volume before a network sees it; travels in stores of volumes and in models.

Volumes are arrays (D, H, W), from feet to head, back to front and left to right. The last two axes may be mirrored, and
turned where their voxels are as far apart; the first may not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from wsiseg.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

Side: TypeAlias = Annotated[int, Field(gt=0, le=1024)]
Shape: TypeAlias = tuple[Side, Side, Side]
# Windows share a third of their sides with the next: 96 voxels move by 64.
_SHARE: Final = 3


class IntensityRule(BaseModel):
    """How intensities become what a network sees.

    The default is the usual preparation of magnetic resonance volumes, in which nothing is 0. For computed tomography
    take `normalise` ``all`` and no `crop`; for volumes that are prepared already, take ``none`` and neither of the
    others.

    Parameters
    ----------
    crop
        Leave out what lies outside the box of all voxels that are not 0.
    clip
        Quantile of the box above which intensities are cut off, 0 … 1; None cuts off none.
    normalise
        Voxels whose mean is subtracted and by whose standard deviation is divided: the ``positive`` ones, ``all``, or
        ``none`` to leave intensities as they are.

    References
    ----------
    .. [1] Luo et al., SSL4MIS, preparation of BraTS 2019; Zhang et al., "Uncertainty-guided mutual consistency learning
       for semi-supervised medical image segmentation", Artificial Intelligence in Medicine 2022. The published code
       leaves out the last slice of the box along each axis, which is kept here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop: bool = True
    clip: float | None = Field(default=0.999, gt=0, le=1)
    normalise: Literal["positive", "all", "none"] = "positive"


class VolumeInput(BaseModel):
    """What a network of volumes is given.

    Parameters
    ----------
    patch
        Voxels of a window, (D, H, W).
    spacing_mm
        Millimetres from voxel to voxel along each axis, (D, H, W), of most of the volumes it was trained on; None where
        unknown. Volumes are not resampled: a network is used on the grid of the volume.
    intensities
        How intensities were prepared for training, and have to be for prediction.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    patch: Shape
    spacing_mm: tuple[float, float, float] | None = None
    intensities: IntensityRule = IntensityRule()

    @property
    def stride(self) -> Shape:
        """Return by how many voxels windows move along each axis where nothing else is asked for."""
        depth, height, width = (max(1, side - side // _SHARE) for side in self.patch)
        return depth, height, width


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A volume as a network sees it.

    Parameters
    ----------
    voxels
        float32, the part of the volume inside `box`.
    box
        Where it lies in the volume.
    """

    voxels: NDArray[np.float32]
    box: tuple[slice, slice, slice]


def prepare(volume: NDArray[np.number], rule: IntensityRule, *, where: Path | str) -> Prepared:
    """Return a volume as a network sees it.

    Parameters
    ----------
    volume
        Any numbers, (D, H, W).
    rule
        What is done, in the order of its fields.
    where
        The volume, for messages.

    Raises
    ------
    DataError
        If the volume holds what is no number, or no voxel whose intensity could be the measure of others.
    """
    box = (
        _box(volume) if rule.crop else (slice(0, volume.shape[0]), slice(0, volume.shape[1]), slice(0, volume.shape[2]))
    )
    voxels = volume[box].astype(np.float32)
    if not np.isfinite(voxels).all():
        raise DataError("the volume holds values that are no numbers (NaN or infinite)", where=where)
    if rule.clip is not None:
        np.minimum(voxels, np.float32(np.quantile(voxels, rule.clip)), out=voxels)
    if rule.normalise != "none":
        measure = voxels[voxels > 0] if rule.normalise == "positive" else voxels
        if measure.size == 0:
            raise DataError("the volume holds no intensity above 0", where=where)
        mean, spread = measure.mean(dtype=np.float64), measure.std(dtype=np.float64)
        voxels -= np.float32(mean)
        # A volume of one intensity is all zeros then.
        voxels /= np.float32(spread if spread > 0 else 1.0)
    return Prepared(voxels=voxels, box=box)


def _box(volume: NDArray[np.number | np.bool_]) -> tuple[slice, slice, slice]:
    """Return the box of all voxels that are not 0; of a volume of zeros, all of it."""
    is_something = volume != 0
    edges = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(is_something.any(axis=others))
        edges.append(slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, volume.shape[axis]))
    depth, height, width = edges
    return depth, height, width
