"""What a network sees of a volume is what its rule says, and comes from the part that is not empty."""

from __future__ import annotations

import numpy as np
import pytest

from wsiseg.errors import DataError
from wsiseg.volumes import IntensityRule, VolumeInput, prepare


def volume() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return noise from 1 on in a box of (3, 4, 5) voxels, with zeros around it."""
    voxels = np.zeros((6, 8, 9), dtype=np.float32)
    voxels[2:5, 1:5, 4:9] = np.random.default_rng(0).uniform(1, 100, (3, 4, 5))
    return voxels


def test_the_box_holds_the_last_slices_too() -> None:
    prepared = prepare(volume(), IntensityRule(), where="case")

    assert prepared.box == (slice(2, 5), slice(1, 5), slice(4, 9))
    assert prepared.voxels.shape == (3, 4, 5)


def test_the_brightest_are_cut_off_and_the_positive_are_the_measure() -> None:
    voxels = volume()
    voxels[3, 2, 5] = 1e6
    voxels[3, 3, 6] = 0
    inside = voxels[2:5, 1:5, 4:9]
    clipped = np.minimum(inside, np.quantile(inside, 0.999))
    positive = clipped[clipped > 0]

    prepared = prepare(voxels, IntensityRule(), where="case").voxels

    np.testing.assert_allclose(prepared, (clipped - positive.mean()) / positive.std(), rtol=1e-4, atol=1e-5)
    assert prepared[1, 2, 2] == prepared.min()


def test_all_voxels_may_be_the_measure_and_none() -> None:
    hounsfield = volume() - 50

    whole = prepare(hounsfield, IntensityRule(crop=False, clip=None, normalise="all"), where="case")
    untouched = prepare(hounsfield, IntensityRule(crop=False, clip=None, normalise="none"), where="case")

    assert [whole.voxels.mean(), whole.voxels.std()] == pytest.approx([0, 1], abs=1e-5)
    np.testing.assert_array_equal(untouched.voxels, hounsfield)


def test_a_volume_is_left_as_it_was() -> None:
    voxels = volume()

    prepare(voxels, IntensityRule(crop=False), where="case")

    np.testing.assert_array_equal(voxels, volume())


def test_a_volume_of_one_intensity_becomes_zeros() -> None:
    assert not prepare(np.full((2, 2, 2), 7, np.uint8), IntensityRule(), where="case").voxels.any()


@pytest.mark.parametrize(("value", "told"), [(np.nan, "no numbers"), (0.0, "no intensity above 0")])
def test_a_volume_that_cannot_be_measured_is_refused(value: float, told: str) -> None:
    with pytest.raises(DataError, match=told):
        prepare(np.full((2, 2, 2), value), IntensityRule(), where="case")


def test_windows_share_a_third_with_the_next() -> None:
    assert VolumeInput(patch=(96, 96, 96)).stride == (64, 64, 64)
    assert VolumeInput(patch=(1, 32, 16)).stride == (1, 22, 11)
