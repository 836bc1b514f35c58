"""Windows of volumes: where they are cut, how they are turned, and how their intensities change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wsiseg.training.augmentation import Augmentation

# What may change in volumes; the rest is about colours and lenses.
CHANGES: Final = ("symmetries", "brightness", "contrast", "noise")
# Rows and columns whose distances differ by no more may take each other's place.
_ALIKE: Final = 0.1
# Mirrored from the fifth on, then turned by quarters, as images are; those without quarter turns are every other one.
_ALL: Final = tuple(range(8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A window of a volume, and how it is turned.

    Parameters
    ----------
    start
        First voxel along each axis; below 0 where the window begins before the volume does.
    size
        Voxels along each axis before it is turned.
    symmetry
        0 … 7: mirrored left and right from 4 on, then turned by quarters in the plane of the last two axes.
    """

    start: tuple[int, ...]
    size: tuple[int, ...]
    symmetry: int

    def box(self, shape: Sequence[int]) -> tuple[slice, slice, slice]:
        """Return what of the window lies in a volume of `shape`."""
        depth, height, width = (
            slice(max(0, at), min(side, at + own)) for at, own, side in zip(self.start, self.size, shape, strict=True)
        )
        return depth, height, width

    def finish(self, inside: NDArray[Any], *, outside: float) -> NDArray[Any]:
        """Return the whole window, turned, for what of it lies in the volume; around that everything is `outside`."""
        margins = []
        for at, own, side in zip(self.start, self.size, inside.shape, strict=True):
            before = max(0, -at)
            margins.append((before, own - before - side))
        whole = np.pad(inside, margins, constant_values=outside)
        mirrored = whole[:, :, ::-1] if self.symmetry >= 4 else whole  # noqa: PLR2004 - four turns, with and without mirror
        return np.ascontiguousarray(np.rot90(mirrored, self.symmetry % 4, axes=(1, 2)))


def symmetries_of(spacing_mm: Sequence[float] | None) -> tuple[int, ...]:
    """Return the symmetries of the plane of a volume, the last two axes.

    Quarter turns are among them only where rows are as far apart as columns, or nobody knows: they would make long
    structures short, and give distances along one axis to the other.

    Parameters
    ----------
    spacing_mm
        Distances of voxels along (D, H, W), or None where unknown.
    """
    if spacing_mm is None:
        return _ALL
    smaller, larger = sorted(spacing_mm[1:])
    return _ALL if larger <= (1 + _ALIKE) * smaller else _ALL[::2]


def draw_cut(
    shape: Sequence[int], patch: Sequence[int], rng: np.random.Generator, *, symmetries: Sequence[int] = (0,)
) -> Cut:
    """Return a random window of a volume.

    Any place where the window fits comes with equal chance, the last included. Along an axis that is shorter than the
    window, this holds the whole volume, anywhere.

    Parameters
    ----------
    shape
        Of the volume, (D, H, W).
    patch
        Of the window once it is turned.
    rng
        Draws place and symmetry.
    symmetries
        Those that may come, each as often as any other; see `Cut`.
    """
    symmetry = symmetries[int(rng.integers(len(symmetries)))]
    depth, height, width = patch
    size = (depth, width, height) if symmetry % 2 else (depth, height, width)
    slack = [side - own for side, own in zip(shape, size, strict=True)]
    start = tuple(int(rng.integers(min(0, more), max(0, more) + 1)) for more in slack)
    return Cut(start=start, size=size, symmetry=symmetry)


def changed(window: NDArray[np.float32], settings: Augmentation, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a window with other intensities: stretched about 0, moved, and in half of the cases with noise.

    Parameters
    ----------
    window
        float32, normalised, so that 0 is the usual intensity and 1 its standard deviation.
    settings
        `contrast`, `brightness` and `noise` are the most that each may be.
    rng
        Draws how much it is.
    """
    contrast, brightness, noise = (
        most * rng.uniform(-1, 1) for most in (settings.contrast, settings.brightness, settings.noise)
    )
    found = window * np.float32(1 + contrast) + np.float32(brightness)
    if noise > 0:
        found += np.float32(noise) * rng.standard_normal(window.shape, dtype=np.float32)
    return found
