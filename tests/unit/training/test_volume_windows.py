"""Windows of volumes lie anywhere, are turned where that keeps distances, and change no more than they may."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.volume_makers import make_case
from wsiseg.training.augmentation import Augmentation
from wsiseg.training.batches import turned
from wsiseg.training.volume_windows import changed, draw_cut, symmetries_of


def test_windows_begin_anywhere_the_last_place_included() -> None:
    shape, patch = (6, 9, 8), (4, 5, 5)

    cuts = [draw_cut(shape, patch, np.random.default_rng(seed)) for seed in range(300)]

    assert {cut.start[0] for cut in cuts} == {0, 1, 2}
    assert {cut.start[1] for cut in cuts} == {0, 1, 2, 3, 4}
    assert {cut.start[2] for cut in cuts} == {0, 1, 2, 3}
    assert {cut.symmetry for cut in cuts} == {0}


def test_all_symmetries_come_evenly_none_of_them_the_more() -> None:
    symmetries = symmetries_of((5, 1, 1.05))
    rng = np.random.default_rng(0)

    drawn = Counter(draw_cut((9, 9, 9), (4, 4, 4), rng, symmetries=symmetries).symmetry for _ in range(4000))

    assert set(drawn) == set(range(8))
    assert min(drawn.values()) > 420
    assert max(drawn.values()) < 580


@pytest.mark.parametrize("spacing", [(1, 1, 5), (1, 1.2, 1), (0.5, 0.7, 0.6)])
def test_rows_and_columns_of_other_distances_never_take_each_others_place(spacing: tuple[float, float, float]) -> None:
    plane = np.arange(12).reshape(1, 3, 4)

    seen = {
        draw_cut((1, 3, 4), (1, 3, 4), np.random.default_rng(0), symmetries=(one,)) for one in symmetries_of(spacing)
    }
    turned_planes = {cut.finish(plane, outside=0).tobytes() for cut in seen}

    as_expected = (plane, plane[:, ::-1], plane[:, :, ::-1], plane[:, ::-1, ::-1])
    assert turned_planes == {np.ascontiguousarray(one).tobytes() for one in as_expected}


def test_volumes_of_unknown_distances_are_turned() -> None:
    assert symmetries_of(None) == symmetries_of((3, 1, 1)) == tuple(range(8))


def test_a_volume_that_is_smaller_than_the_window_is_seen_as_a_whole_and_anywhere_in_it() -> None:
    volume = np.ones((3, 9, 9), dtype=np.float32)

    cuts = [draw_cut(volume.shape, (8, 4, 4), np.random.default_rng(seed)) for seed in range(100)]

    assert {cut.start[0] for cut in cuts} == {-5, -4, -3, -2, -1, 0}
    for cut in cuts:
        window = cut.finish(volume[cut.box(volume.shape)], outside=-7)
        assert window.shape == (8, 4, 4)
        assert (window == 1).sum() == 3 * 4 * 4
        assert (window == -7).sum() == 5 * 4 * 4


@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7)),
    st.integers(0, 10_000),
)
def test_a_window_is_a_part_of_the_volume_in_its_surroundings_then_turned_as_images_are(
    shape: tuple[int, int, int], patch: tuple[int, int, int], seed: int
) -> None:
    volume, labels = make_case(seed, shape)
    cut = draw_cut(shape, patch, np.random.default_rng(seed), symmetries=range(8))
    surrounded = np.pad(volume, 20, constant_values=-3)
    depth, height, width = (slice(at + 20, at + 20 + own) for at, own in zip(cut.start, cut.size, strict=True))
    expected = [turned(plane, cut.symmetry) for plane in surrounded[depth, height, width]]

    window, mask = (
        cut.finish(array[cut.box(shape)], outside=around) for array, around in ((volume, -3), (labels, 255))
    )

    assert window.shape == patch
    np.testing.assert_array_equal(window, expected)
    # The labels lie where their voxels do.
    assert set(window[mask == 2].tolist()) <= set(volume[labels == 2].tolist())
    np.testing.assert_array_equal(mask == 255, window == -3)


def test_intensities_are_stretched_moved_and_made_noisy_by_no_more_than_told() -> None:
    window = np.linspace(-2, 2, 4000, dtype=np.float32).reshape(10, 20, 20)
    off = Augmentation.none()

    def all_of(**most: float) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        how = off.model_copy(update=most)
        return [changed(window, how, np.random.default_rng(seed)) for seed in range(100)]

    np.testing.assert_array_equal(changed(window, off, np.random.default_rng(0)), window)
    slopes = [np.polyfit(window.ravel(), found.ravel(), 1) for found in all_of(contrast=0.2)]
    assert 0.8 <= min(slope for slope, _ in slopes) < 0.85
    assert 1.15 < max(slope for slope, _ in slopes) <= 1.2
    assert max(abs(offset) for _, offset in slopes) < 1e-5
    moves = [found - window for found in all_of(brightness=0.3)]
    assert all(np.ptp(move) < 1e-6 for move in moves)
    assert -0.301 <= min(move.mean() for move in moves) < -0.2
    assert 0.2 < max(move.mean() for move in moves) <= 0.301
    spreads = [(found - window).std() for found in all_of(noise=0.5)]
    assert 35 < sum(spread == 0 for spread in spreads) < 65
    assert 0.4 < max(spreads) < 0.52
    assert all(found.dtype == np.float32 for found in all_of(noise=0.5, contrast=0.1))
