"""Masks as level sets: how far each pixel lies inside or outside, negative inside, in any number of dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    _Measure = Callable[[NDArray[np.bool_], NDArray[np.float64]], NDArray[np.float64]]

Norm = Literal["crop", "truncated"]


def level_set(
    mask: NDArray[np.bool_ | np.integer],
    *,
    norm: Norm = "truncated",
    longest: float = 32.0,
    zero_ring: bool = True,
    spacing: Sequence[float] | None = None,
) -> NDArray[np.float32]:
    """Return the signed distance to the border of a mask, -1 … 1.

    Pixels up to 0 are exactly those of the mask. The border of the array is no border of the mask;
    where there is none at all the level set is 1 (nothing inside) or -1 (nothing outside) everywhere.

    Parameters
    ----------
    mask
        bool, or integer where positive ids are objects: each pixel then looks for what is not of its own
        object, so that objects that touch have a border between them.
    norm
        ``crop`` divides distances by the longest of the array, inside and outside each by its own.
        ``truncated`` divides all by `longest` and cuts off what is beyond, so that values do not depend on
        the array.
    longest
        Distance that becomes 1, in pixels or in the unit of `spacing`.
    zero_ring
        Pixels of the mask that touch its outside by a face are 0, as published. Otherwise the level set
        crosses 0 halfway between pixels, along each axis and in between, and no pixel lies on it.
    spacing
        Distance of neighbours along each axis; 1 where None.

    Returns
    -------
    NDArray[np.float32]
        Of the shape of `mask`.

    References
    ----------
    .. [1] Xue et al., "Shape-Aware Organ Segmentation by Predicting Signed Distance Maps", AAAI 2020.
    .. [2] Zhang et al., "Uncertainty-guided mutual consistency learning for semi-supervised medical image
       segmentation", Artificial Intelligence in Medicine 2022.
    """
    ids = mask.astype(np.int32)
    is_inside = ids > 0
    if is_inside.all() and (ids == ids.flat[0]).all():
        return np.full(ids.shape, np.float32(-1))
    if not is_inside.any():
        return np.ones(ids.shape, dtype=np.float32)
    steps = np.ones(ids.ndim) if spacing is None else np.asarray(spacing, dtype=np.float64)
    measure = _distance if zero_ring else _border_distance
    depth, away = _depths(ids, steps, measure), measure(~is_inside, steps)
    found = _scaled(away) - _scaled(depth) if norm == "crop" else np.clip((away - depth) / longest, -1, 1)
    if zero_ring:
        found[_rings(ids)] = 0
    exact: NDArray[np.float32] = found.astype(np.float32)
    return exact


def level_sets(
    labels: NDArray[np.integer],
    num_classes: int,
    *,
    norm: Norm = "truncated",
    longest: float = 32.0,
    zero_ring: bool = True,
    spacing: Sequence[float] | None = None,
) -> NDArray[np.float32]:
    """Return the level set of each class but the first, against all others; see `level_set`.

    Parameters
    ----------
    labels
        Class indices; those that are no class belong to none.
    num_classes
        Classes 0 … n - 1; class 0 is the background.

    Returns
    -------
    NDArray[np.float32]
        (n - 1, *labels.shape).
    """
    return np.stack(
        [
            level_set(labels == label, norm=norm, longest=longest, zero_ring=zero_ring, spacing=spacing)
            for label in range(1, num_classes)
        ]
    )


def settled(
    mask: NDArray[np.bool_ | np.integer],
    valid: NDArray[np.bool_],
    *,
    longest: float = 32.0,
    spacing: Sequence[float] | None = None,
) -> NDArray[np.bool_]:
    """Return where a truncated level set is what it is, whatever lies where nothing is known.

    Parameters
    ----------
    mask, longest, spacing
        See `level_set`.
    valid
        bool, of the shape of `mask`: where the mask is known.
    """
    if valid.all():
        return np.ones(valid.shape, dtype=np.bool_)
    ids = mask.astype(np.int32)
    is_inside = ids > 0
    steps = np.ones(ids.ndim) if spacing is None else np.asarray(spacing, dtype=np.float64)
    away = _distance(~is_inside, steps) if is_inside.any() else np.full(ids.shape, np.inf)
    apart = np.where(is_inside, _depths(ids, steps, _distance), away)
    # Borders lie up to half a step before pixels: of those that are farther away, some may lie nearer by so much.
    coarse, fine = float(steps.max()), float(steps.min())
    found: NDArray[np.bool_] = np.minimum(apart + (coarse - fine) / 2, longest + coarse / 2) < _distance(valid, steps)
    return found


def _distance(is_there: NDArray[np.bool_], steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each pixel that is there is from the nearest that is not, 0 without any of the latter."""
    if is_there.all():
        return np.zeros(is_there.shape)
    found: NDArray[np.float64] = ndimage.distance_transform_edt(is_there, sampling=steps)
    return found


def _border_distance(is_there: NDArray[np.bool_], steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each pixel that is there is from the border, halfway to pixels that are not; see `_distance`."""
    if is_there.all():
        return np.zeros(is_there.shape)
    if (steps == steps[0]).all():
        isotropic: NDArray[np.float64] = np.maximum(_distance(is_there, steps) - steps[0] / 2, 0)
        return isotropic
    away, nearest = ndimage.distance_transform_edt(is_there, sampling=steps, return_indices=True)
    # Squares of the way to the nearest pixel along each axis; the step in its direction is between those of the axes.
    ways = np.moveaxis(nearest - np.indices(is_there.shape), 0, -1) ** 2 * steps**2
    found = away - np.sqrt(ways @ steps**2) / np.where(is_there, away, 1) / 2
    # A pixel that is farther away along a coarse axis may have the nearer border.
    for axis in np.flatnonzero(steps > steps.min()).tolist():
        np.minimum(found, (_steps_along(is_there, axis) - 0.5) * steps[axis], out=found)
    return np.where(is_there, found, 0)


def _steps_along(is_there: NDArray[np.bool_], axis: int) -> NDArray[np.float64]:
    """Return how many steps along an axis each pixel is from one that is not there, infinite without any."""
    missing = np.moveaxis(~is_there, axis, -1)
    places = np.arange(missing.shape[-1], dtype=np.float64)
    before = np.maximum.accumulate(np.where(missing, places, -np.inf), axis=-1)
    after = np.minimum.accumulate(np.where(missing, places, np.inf)[..., ::-1], axis=-1)[..., ::-1]
    return np.moveaxis(np.minimum(places - before, after - places), -1, axis)


def _scaled(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return distances as parts of the longest; of none but 0 they stay."""
    longest = float(np.max(distances))
    return distances / longest if longest > 0 else distances


def _depths(ids: NDArray[np.int32], steps: NDArray[np.float64], measure: _Measure) -> NDArray[np.float64]:
    """Return how far each pixel of an object is from what is not of it, 0 outside."""
    depths = np.zeros(ids.shape)
    is_inside = ids > 0
    numbers = np.zeros(ids.shape, dtype=np.int32)
    # Numbered without gaps, since the search for boxes takes the time and room of the largest number.
    numbers[is_inside] = np.unique(ids[is_inside], return_inverse=True)[1] + 1
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        # What is nearest to a pixel of an object and not of it lies in its bounding box or right beside it.
        wider = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
        is_own = numbers[wider] == number
        depths[wider][is_own] = measure(is_own, steps)[is_own]
    return depths


def _rings(ids: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return the pixels of objects that touch what is not of the same object by a face."""
    found = np.zeros(ids.shape, dtype=np.bool_)
    for axis in range(ids.ndim):
        here, there = (np.moveaxis(array, axis, 0) for array in (ids, found))
        differs = here[1:] != here[:-1]
        there[1:] |= differs
        there[:-1] |= differs
    return found & (ids > 0)
