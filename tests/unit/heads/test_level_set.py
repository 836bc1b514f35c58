"""Objects that touch are parted where their level sets have a pass, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.nuclei_makers import aji, ellipses, perfect
from wsiseg.heads.level_set import LevelSetHead, LevelSetOptions
from wsiseg.losses.mutual import distance

if TYPE_CHECKING:
    from numpy.typing import NDArray


def pair(gap: int) -> NDArray[np.int32]:
    """Return two discs of radius 10 whose centres are so many pixels apart, as one object each."""
    y, x = np.mgrid[:48, :64]
    first, second = np.hypot(y - 24, x - 20), np.hypot(y - 24, x - 20 - gap)
    return np.where(np.minimum(first, second) <= 10, 1 + (second < first), 0).astype(np.int32)


@pytest.mark.parametrize("zero_ring", [True, False])
@pytest.mark.parametrize("longest_px", [8.0, 64.0])
def test_objects_come_back_whatever_the_scale(longest_px: float, *, zero_ring: bool) -> None:
    head = LevelSetHead(LevelSetOptions(longest_px=longest_px, zero_ring=zero_ring))
    labels = ellipses(24, 128, seed=1, radii=(5, 14))

    assert aji(head.decode(perfect(head, labels)).labels, labels) > 0.98


def test_a_level_set_of_the_whole_is_parted_at_necks_only() -> None:
    head = LevelSetHead(LevelSetOptions())
    for gap, count in ((4, 1), (17, 2)):
        whole = (pair(gap) > 0).astype(np.int32)

        found = head.decode(perfect(head, whole))

        assert len(found) == count
        np.testing.assert_array_equal(found.labels > 0, whole > 0)
        if count == 2:
            assert aji(found.labels, pair(gap)) > 0.9


def test_shallow_objects_are_found_as_they_are() -> None:
    head = LevelSetHead(LevelSetOptions(min_area_px=1))
    labels = np.zeros((32, 32), dtype=np.int32)
    labels[4:6, 4:20] = 1

    np.testing.assert_array_equal(head.decode(perfect(head, labels)).labels, labels)


def test_the_loss_of_distances_is_that_of_other_methods() -> None:
    head = LevelSetHead(LevelSetOptions())
    valid = np.random.default_rng(0).random((64, 64)) < 0.99
    targets = {name: torch.from_numpy(one)[None] for name, one in head.targets(ellipses(6, 64, seed=1), valid).items()}
    outputs = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    expected = distance(outputs[:, 2:].tanh(), targets["maps"][:, 1:], targets["settled"][:, None])

    torch.testing.assert_close(head.loss(outputs, targets)["distance"], 0.3 * expected)
