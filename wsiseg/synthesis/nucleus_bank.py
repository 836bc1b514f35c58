"""The nuclei of an annotated patch, as stamps to lay out new masks with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from wsiseg.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

BORDER_PX: Final = 6
SMALLEST_NUCLEUS_PX: Final = 30
# The widest gap that is kept between nuclei, beyond their radius.
WIDEST_GAP_PX: Final = 5
# Quarter turns, each as it is and mirrored.
SYMMETRIES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stamp:
    """A nucleus, and how far pixels around it are away.

    Parameters
    ----------
    distance_px
        float32 (2 r + 1, 2 r + 1): distance to the nearest pixel of the nucleus, 0 on it. The nucleus's middle pixel
        lies in the centre, and beyond the square everything is further away than any gap that is asked for.
    radius_px
        Distance from the middle to the farthest pixel of the nucleus.
    """

    distance_px: NDArray[np.float32]
    radius_px: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NucleusBank:
    """The nuclei of a patch that are whole, each in all symmetries, and what a patch with them looks like.

    Parameters
    ----------
    stamps
        `SYMMETRIES` for each whole nucleus.
    nuclei
        Number of all nuclei that are large enough, those at the border included.
    coverage
        Share of the patch that nuclei cover.
    side_px
        Side of the patch.
    """

    stamps: tuple[Stamp, ...]
    nuclei: int
    coverage: float
    side_px: int


def bank_of(labels: NDArray[np.integer], *, where: str = "") -> NucleusBank:
    """Return the nuclei of a patch.

    Nuclei of which a pixel lies within `BORDER_PX` of the border may be cut off and are no stamps; those below
    `SMALLEST_NUCLEUS_PX` pixels are none either, and are not counted.

    Parameters
    ----------
    labels
        Integer (S, S), 0 = background, an id for each nucleus.
    where
        The patch, for messages.

    Raises
    ------
    DataError
        If no nucleus is whole.
    """
    side = labels.shape[0]
    found = [(at + 1, box) for at, box in enumerate(ndimage.find_objects(labels)) if box is not None]
    shapes = [labels[box] == number for number, box in found]
    large = [at for at, shape in enumerate(shapes) if shape.sum() >= SMALLEST_NUCLEUS_PX]
    whole = [at for at in large if _is_whole(found[at][1], labels.shape)]
    if not whole:
        raise DataError(
            f"no nucleus of {SMALLEST_NUCLEUS_PX} pixels or more lies {BORDER_PX} pixels or more from the border",
            where=where,
            mend="Choose a patch with whole nuclei",
        )
    turned = [_symmetric(shapes[at], symmetry) for at in whole for symmetry in range(SYMMETRIES)]
    largest = max(_middle(shape)[1] for shape in turned)
    return NucleusBank(
        stamps=tuple(_stamp(shape, reach=int(np.ceil(largest)) + WIDEST_GAP_PX + 1) for shape in turned),
        nuclei=len(large),
        coverage=float((labels > 0).mean()),
        side_px=side,
    )


def _is_whole(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    ends = zip(box, shape, strict=True)
    return all(part.start >= BORDER_PX and part.stop <= length - BORDER_PX for part, length in ends)


def _symmetric(shape: NDArray[np.bool_], symmetry: int) -> NDArray[np.bool_]:
    turned = np.rot90(shape, symmetry % 4)
    return turned.T if symmetry >= SYMMETRIES // 2 else turned


def _middle(shape: NDArray[np.bool_]) -> tuple[tuple[int, int], float]:
    """Return the pixel nearest to the centroid, and the distance from it to the farthest pixel."""
    pixels = np.argwhere(shape)
    middle = np.round(pixels.mean(axis=0))
    radius = float(np.hypot(*(pixels - middle).T).max())
    return (int(middle[0]), int(middle[1])), radius


def _stamp(shape: NDArray[np.bool_], *, reach: int) -> Stamp:
    (y, x), radius = _middle(shape)
    # The farthest that anything is compared with lies `reach` beyond the nucleus.
    half = int(np.ceil(radius)) + reach
    outside = np.ones((2 * half + 1, 2 * half + 1), dtype=np.bool_)
    outside[half - y : half - y + shape.shape[0], half - x : half - x + shape.shape[1]] = ~shape
    distance = ndimage.distance_transform_edt(outside).astype(np.float32)
    return Stamp(distance_px=distance, radius_px=radius)
