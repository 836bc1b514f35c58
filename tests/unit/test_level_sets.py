"""Level sets say which side of the border a pixel lies on, exactly, and how far from it."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.level_sets import Norm, level_set, level_sets, settled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NORMS: tuple[Norm, ...] = get_args(Norm)
every_kind = pytest.mark.parametrize(("norm", "zero_ring"), list(product(NORMS, (True, False))))


def blobs(shape: tuple[int, ...], *, seed: int, share: float = 0.4) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(shape) < share


def square() -> NDArray[np.bool_]:
    mask = np.zeros((7, 7), dtype=np.bool_)
    mask[2:5, 2:5] = True
    return mask


def test_a_square_has_the_published_level_set() -> None:
    found = level_set(square(), norm="crop")

    ring = square()
    ring[3, 3] = False
    assert found.dtype == np.float32
    assert (found[ring] == 0).all()
    assert found[3, 3] == -1
    assert (found[[0, 0, 6, 6], [0, 6, 0, 6]] == 1).all()
    assert found[0, 3] == pytest.approx(0.7071, abs=1e-4)
    assert found[1, 1] == pytest.approx(0.5, abs=1e-4)
    assert found[1, 3] == pytest.approx(0.3536, abs=1e-4)


@every_kind
@pytest.mark.parametrize("shape", [(9, 13), (5, 7, 6)])
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1))
@settings(max_examples=20)
def test_pixels_up_to_zero_are_the_mask(
    shape: tuple[int, ...], norm: Norm, *, zero_ring: bool, seed: int, share: float
) -> None:
    mask = blobs(shape, seed=seed, share=share)

    found = level_set(mask, norm=norm, zero_ring=zero_ring)

    np.testing.assert_array_equal(found <= 0, mask)
    assert np.abs(found).max() <= 1
    assert (found == 0).any() == (zero_ring and 0 < mask.mean() < 1)


@every_kind
@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 3)])
def test_nothing_and_everything_have_no_border(shape: tuple[int, ...], norm: Norm, *, zero_ring: bool) -> None:
    assert (level_set(np.zeros(shape, dtype=np.bool_), norm=norm, zero_ring=zero_ring) == 1).all()
    assert (level_set(np.ones(shape, dtype=np.bool_), norm=norm, zero_ring=zero_ring) == -1).all()


def pairs(mask: NDArray[np.bool_], spacing: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far each pixel is from the nearest of the other side, from its centre and from its faces."""
    places = np.argwhere(np.ones_like(mask))
    ways = np.abs(places[:, None] - places)
    centres, faces = (np.linalg.norm(way * np.array(spacing), axis=2) for way in (ways, np.maximum(ways - 0.5, 0)))
    is_other = mask.ravel()[:, None] != mask.ravel()
    first, second = (np.where(is_other, far, np.inf).min(axis=1).reshape(mask.shape) for far in (centres, faces))
    return first, second


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0), (2.0, 2.0)])
def test_distances_are_those_of_brute_force(spacing: tuple[float, float] | None) -> None:
    mask = blobs((11, 9), seed=3)
    apart, _ = pairs(mask, spacing or (1, 1))

    expected = np.where(mask, -1, 1) * (apart - (spacing or (1, 1))[0] / 2)

    found = level_set(mask, longest=16, zero_ring=False, spacing=spacing)
    np.testing.assert_allclose(found, np.clip(expected / 16, -1, 1), atol=1e-6)
    signed = np.where(mask, -apart, apart)
    ringed = level_set(mask, longest=16, spacing=spacing)
    np.testing.assert_allclose(ringed[ringed != 0], np.clip(signed / 16, -1, 1)[ringed != 0], atol=1e-6)


@pytest.mark.parametrize("spacing", [(5, 1, 1), (1, 2.5, 0.5), (1, 1, 1)])
@given(seed=st.integers(0, 10_000), share=st.floats(0.02, 0.98))
@settings(max_examples=10)
def test_borders_are_no_nearer_than_faces_and_no_farther_than_half_a_step_before_centres(
    spacing: tuple[float, float, float], seed: int, share: float
) -> None:
    mask = blobs((4, 6, 5), seed=seed, share=share)
    mask[0, 0, 0], mask[3, 5, 4] = True, False
    centres, faces = pairs(mask, spacing)

    found = level_set(mask, longest=100, zero_ring=False, spacing=spacing) * 100

    np.testing.assert_array_equal(found <= 0, mask)
    assert (np.abs(found) >= faces - 1e-4).all()
    assert (np.abs(found) <= centres - min(spacing) / 2 + 1e-4).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_border_is_halfway_along_each_axis_whatever_the_distances(axis: int) -> None:
    spacing = (5, 1, 2)
    mask = np.zeros((9, 9, 9), dtype=np.bool_)
    mask[(slice(None),) * axis + (slice(4, None),)] = True

    found = level_set(mask, longest=100, zero_ring=False, spacing=spacing) * 100

    along = np.moveaxis(found, axis, 0)
    expected = (3.5 - np.arange(9)) * spacing[axis]
    np.testing.assert_allclose(along, np.broadcast_to(expected[:, None, None], (9, 9, 9)), atol=1e-4)


def test_a_thin_slice_is_no_deeper_in_its_middle_than_it_is_thick() -> None:
    mask = np.zeros((5, 15, 15), dtype=np.bool_)
    mask[2, 2:13, 2:13] = True

    found = level_set(mask, longest=100, zero_ring=False, spacing=(5, 1, 1)) * 100

    np.testing.assert_allclose(found[:, 7, 7], (7.5, 2.5, -2.5, 2.5, 7.5), atol=1e-4)
    np.testing.assert_allclose(found[2, 7], [1.5, 0.5, -0.5, -1.5, *[-2.5] * 7, -1.5, -0.5, 0.5, 1.5], atol=1e-4)


def test_classes_are_each_against_all_others() -> None:
    labels = np.random.default_rng(1).integers(0, 4, (12, 10))
    labels[:2] = 255

    found = level_sets(labels, 4)

    assert found.shape == (3, 12, 10)
    for label, one in enumerate(found, start=1):
        np.testing.assert_array_equal(one, level_set(labels == label))
    assert (level_sets(np.where(labels == 2, 0, labels), 4)[1] == 1).all()


def test_a_mask_that_moves_takes_its_level_set_along() -> None:
    mask = np.zeros((40, 40), dtype=np.bool_)
    mask[10:16, 8:19] = blobs((6, 11), seed=0, share=0.8)
    moved = np.roll(mask, (5, 7), axis=(0, 1))

    found = np.roll(level_set(mask, longest=6), (5, 7), axis=(0, 1))

    np.testing.assert_array_equal(found, level_set(moved, longest=6))


def test_a_volume_of_one_layer_is_its_layer() -> None:
    mask = blobs((10, 12), seed=5)

    np.testing.assert_allclose(level_set(mask[None]), level_set(mask)[None], atol=1e-7)


def test_objects_that_touch_have_a_border_between_them() -> None:
    ids: NDArray[Any] = np.zeros((9, 16), dtype=np.int32)
    ids[2:7, 2:8], ids[2:7, 8:14] = 70_000, 3

    apart, joined = level_set(ids, zero_ring=False), level_set(ids > 0, zero_ring=False)

    np.testing.assert_array_equal(apart <= 0, ids > 0)
    np.testing.assert_array_equal(apart[ids == 0], joined[ids == 0])
    np.testing.assert_allclose(apart[4, 7:9] * 32, -0.5)
    np.testing.assert_allclose(joined[4, 7:9] * 32, -2.5)
    assert (level_set(ids)[2:7, 7:9] == 0).all()
    np.testing.assert_array_equal(level_set(ids)[4, 3:5] * 32, (-2, -3))


@pytest.mark.parametrize("spacing", [None, (3, 1)])
@pytest.mark.parametrize("zero_ring", [True, False])
@pytest.mark.parametrize("longest", [3, 32])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=20)
def test_what_is_settled_does_not_depend_on_what_is_unknown(
    longest: float, spacing: tuple[float, float] | None, *, zero_ring: bool, seed: int
) -> None:
    mask, other = blobs((14, 12), seed=seed, share=0.1), blobs((14, 12), seed=seed + 1, share=0.5)
    valid = blobs((14, 12), seed=seed + 2, share=0.95)
    other[valid] = mask[valid]

    where = settled(mask, valid, longest=longest, spacing=spacing)

    np.testing.assert_array_equal(where, settled(other, valid, longest=longest, spacing=spacing))
    assert not where[~valid].any()
    first, second = (level_set(one, longest=longest, zero_ring=zero_ring, spacing=spacing) for one in (mask, other))
    np.testing.assert_array_equal(first[where], second[where])


def test_what_is_known_everywhere_is_settled() -> None:
    mask, everything = blobs((9, 9), seed=0), np.ones((9, 9), dtype=np.bool_)

    assert settled(mask, everything).all()
    everything[0, 0] = False
    assert settled(np.zeros_like(mask), everything, longest=3)[5:, 5:].all()
