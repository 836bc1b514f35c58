"""What mutual consistency learns from labels: classes, and level sets of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage

from wsiseg.labels import IGNORE
from wsiseg.level_sets import level_sets, settled

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from wsiseg.methods.cards import ClassTargets
    from wsiseg.methods.ugmcl_options import LevelSetSettings
    from wsiseg.volumes import VolumeInput


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelSetTargets:
    """Makes targets for classes of pixels or voxels and their level sets.

    Parameters
    ----------
    classes
        Makes those for the classes.
    sdf
        How level sets are made, with nothing left open.
    spacing
        Distance of voxels along each axis; 1 where None.
    """

    classes: ClassTargets
    sdf: LevelSetSettings
    spacing: tuple[float, ...] | None = None

    def __call__(self, labels: NDArray[np.int32], valid: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        """Return ``classes``, uint8 (…), 255 where nothing may be learnt.

        Where they have a weight, ``level_sets``, float32 (K, …), and ``settled``, bool (K, …), where these do not
        depend on what is unknown, come with them. For the norm ``crop``, the box of all that is known is the crop:
        where a small volume lies in its padded window changes nothing.
        """
        targets = self.classes(labels, valid)
        if self.sdf.weight == 0:
            return targets
        known, count = targets["classes"], self.classes.num_classes
        longest = self.sdf.longest if self.sdf.norm == "truncated" else math.inf
        if longest is None:
            raise ValueError("how far level sets reach was left open")
        is_known = known != IGNORE
        box = _box(is_known) if self.sdf.norm == "crop" else (...,)
        whole = (count - 1, *known.shape)
        targets["level_sets"], targets["settled"] = np.ones(whole, np.float32), np.zeros(whole, np.bool_)
        targets["level_sets"][:, *box] = level_sets(
            known[box],
            count,
            norm=self.sdf.norm,
            longest=longest,
            zero_ring=self.sdf.zero_ring,
            spacing=self.spacing,
        )
        targets["settled"][:, *box] = [
            settled(known[box] == label, is_known[box], longest=longest, spacing=self.spacing)
            for label in range(1, count)
        ]
        return targets


def labels_of(targets: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return classes int64 (n, …), 255 where unknown, and level sets (n, K, …), for pixels or an instance head."""
    if "maps" in targets:
        foreground, truth = targets["maps"][:, 0], targets["maps"][:, 1:]
        return torch.where(targets["valid"] > 0, foreground.long(), IGNORE), truth
    return targets["classes"].long(), targets.get("level_sets")


def relative_spacing(volume: VolumeInput | None) -> tuple[float, ...] | None:
    """Return the distance of voxels along each axis, in the finest of them; None for images and where unknown."""
    if volume is None or volume.spacing_mm is None:
        return None
    finest = min(volume.spacing_mm)
    return tuple(side / finest for side in volume.spacing_mm)


def _box(is_known: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the smallest box that holds all that is known; of nothing, everything."""
    found = ndimage.find_objects(is_known.astype(np.uint8))
    return found[0] if found else (slice(None),) * is_known.ndim
