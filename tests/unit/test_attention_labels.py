"""Labels from attention are classes of the patch, and the pixels with the highest attention are reliable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.errors import DataError
from wsiseg.methods.attention_labels import ReliabilitySettings, _bilinear, attention_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = (32, 32)


def random_maps(seed: int, classes: int = 4) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((classes, 8, 8), dtype=np.float32)


def some(*labels: int) -> NDArray[np.bool_]:
    return np.isin(np.arange(4), labels)


def stretched(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    large = torch.nn.functional.interpolate(torch.from_numpy(maps)[None], size=SIZE, mode="bilinear")[0].numpy()
    lowest, highest = large.min(axis=(1, 2), keepdims=True), large.max(axis=(1, 2), keepdims=True)
    result: NDArray[np.float32] = (large - lowest) / (highest - lowest)
    return result


@settings(max_examples=25)
@given(st.integers(0, 99), st.sets(st.integers(0, 3), min_size=1), st.booleans())
def test_labels_are_classes_of_the_patch_or_white(seed: int, present: set[int], has_white: bool) -> None:  # noqa: FBT001
    white = np.random.default_rng(seed).random(SIZE) < 0.3 if has_white else None

    found = attention_labels(random_maps(seed), some(*present), SIZE, white=white)

    assert set(np.unique(found.labels)) <= {*present, 255}
    np.testing.assert_array_equal(found.labels == 255, np.zeros(SIZE, bool) if white is None else white)
    assert not (found.is_reliable & (found.labels == 255)).any()
    np.testing.assert_array_equal(found.targets, np.where(found.is_reliable, found.labels, 255))
    np.testing.assert_array_equal(found.confidence == 255, found.labels == 255)


def test_the_class_with_the_highest_stretched_map_wins() -> None:
    maps = random_maps(0)
    # Stretching makes up for a map that is weak everywhere.
    weak = maps * np.array([1, 0.01, 1, 1], dtype=np.float32)[:, None, None]

    found = attention_labels(weak, some(1, 2), SIZE)

    expected = np.where(stretched(maps)[1] >= stretched(maps)[2], 1, 2)
    assert (found.labels == expected).mean() > 0.999
    # Its attention is the confidence, in percent.
    np.testing.assert_allclose(found.confidence, 100 * stretched(maps)[1:3].max(axis=0), atol=0.51)


def test_a_single_class_is_everywhere_and_reliable() -> None:
    found = attention_labels(random_maps(0), some(2), SIZE)

    assert (found.labels == 2).all()
    assert found.is_reliable.all()
    assert (found.confidence == 100).all()


def test_a_white_square_is_white_and_not_reliable() -> None:
    white = np.zeros(SIZE, dtype=bool)
    white[4:20, 4:20] = True

    for present in (some(1), some(0, 1)):
        found = attention_labels(random_maps(0), present, SIZE, white=white)
        np.testing.assert_array_equal(found.labels == 255, white)
        assert not found.is_reliable[white].any()


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 1.0])
def test_the_given_part_of_each_class_is_reliable_and_has_the_highest_attention(fraction: float) -> None:
    maps, present = random_maps(1), some(0, 1, 3)

    found = attention_labels(maps, present, SIZE, settings=ReliabilitySettings(fraction=fraction))

    attention = stretched(maps)
    for label in (0, 1, 3):
        eligible = (found.labels == label) & (attention[label] > 0.1)
        reliable = found.is_reliable & (found.labels == label)
        assert reliable.sum() == pytest.approx(fraction * eligible.sum(), abs=1)
        assert not (reliable & ~eligible).any()
        if 0 < reliable.sum() < eligible.sum():
            assert attention[label][reliable].min() >= attention[label][eligible & ~reliable].max()


def test_all_but_faint_pixels_can_be_reliable() -> None:
    maps = random_maps(2)
    maps[:2, :4] = 0

    found = attention_labels(maps, some(0, 1), SIZE, settings=ReliabilitySettings(fraction=1))

    faint = stretched(maps)[:2].max(axis=0) <= 0.1
    assert faint.any()
    np.testing.assert_array_equal(found.is_reliable, ~faint)


def test_where_two_classes_are_sure_neither_is_reliable() -> None:
    maps = random_maps(3)
    maps[:2, 2:5, 2:5] = 1
    both = (stretched(maps)[:2] > 0.9).all(axis=0)

    plain = attention_labels(maps, some(0, 1), SIZE, settings=ReliabilitySettings(fraction=1))
    strict = attention_labels(maps, some(0, 1), SIZE, settings=ReliabilitySettings(fraction=1, conflict=0.9))

    assert plain.is_reliable[both].all()
    np.testing.assert_array_equal(strict.is_reliable, plain.is_reliable & ~both)
    np.testing.assert_array_equal(strict.labels, plain.labels)


def test_the_last_epoch_decides_between_equals_and_between_them_only() -> None:
    maps = random_maps(4)
    maps[1, :4] = maps[0, :4] = 1
    last = np.zeros_like(maps)
    last[1, 0] = 1

    before = attention_labels(maps, some(0, 1), SIZE).labels
    after = attention_labels(maps, some(0, 1), SIZE, last=last).labels

    assert (before[:4] == 0).all()
    assert (after[:4] == 1).all()
    np.testing.assert_array_equal(after[16:], before[16:])


def test_maps_without_any_difference_give_numbers() -> None:
    found = attention_labels(np.zeros((4, 8, 8), np.float16), some(0, 1), SIZE)

    assert (found.labels == 0).all()
    assert not found.is_reliable.any()


def test_a_patch_without_a_class_is_refused() -> None:
    with pytest.raises(DataError, match="no class"):
        attention_labels(random_maps(0), some(), SIZE)


@pytest.mark.parametrize(("old", "new"), [(28, 224), (8, 8), (5, 12), (9, 4), (1, 6), (2, 7)])
def test_interpolation_agrees_with_torch(old: int, new: int) -> None:
    line = torch.rand(1, 1, old, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(line, size=new, mode="linear", align_corners=False)

    np.testing.assert_allclose(_bilinear(old, new) @ line[0, 0].numpy(), expected[0, 0], atol=1e-6)
