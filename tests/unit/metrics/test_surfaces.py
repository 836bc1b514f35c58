"""Overlaps and surface distances equal those of a search over all pairs of surface voxels, and published examples."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from wsiseg.metrics import SURFACE_SCORES, surface_scores

if TYPE_CHECKING:
    from numpy.typing import NDArray


def square(*bounds: slice) -> NDArray[np.bool_]:
    mask = np.zeros((20, 20), dtype=np.bool_)
    mask[bounds] = True
    return mask


A = square(slice(5, 15), slice(5, 15))
SHIFTED, LARGER = square(slice(5, 15), slice(7, 17)), square(slice(4, 16), slice(4, 16))


def surface_points(mask: NDArray[np.bool_]) -> list[tuple[int, ...]]:
    """Return the places in a mask with a face neighbour outside the mask or the array."""
    inside = {tuple(int(value) for value in place) for place in np.argwhere(mask)}
    steps = [step for step in product((-1, 0, 1), repeat=mask.ndim) if sum(map(abs, step)) == 1]
    return [
        place
        for place in sorted(inside)
        if any(tuple(a + b for a, b in zip(place, step, strict=True)) not in inside for step in steps)
    ]


def slow_scores(pred: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: tuple[float, ...]) -> dict[str, float]:
    """Return the scores by comparing every surface voxel with every other."""
    ours, theirs = (np.array(surface_points(mask)) * spacing for mask in (pred, truth))
    distances = np.linalg.norm(ours[:, None] - theirs[None], axis=2)
    there, back = distances.min(axis=1), distances.min(axis=0)
    shared, either = (pred & truth).sum(), (pred | truth).sum()
    return {
        "dice": 2 * shared / (pred.sum() + truth.sum()),
        "jaccard": shared / either,
        "hd95": float(np.percentile([*there, *back], 95)),
        "asd": there.mean(),
        "assd": (there.mean() + back.mean()) / 2,
    }


def blob(seed: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return some smooth structure that touches the border now and then, never empty."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    mask: NDArray[np.bool_] = noise > np.quantile(noise, 0.7)
    return mask


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (SHIFTED, {"dice": 0.8, "jaccard": 2 / 3, "hd95": 2.0, "asd": 1.0}),
        (LARGER, {"dice": 0.81967, "jaccard": 0.69444, "hd95": 1.02071, "asd": 1.0}),
    ],
)
def test_squares_score_as_published(other: NDArray[np.bool_], expected: dict[str, float]) -> None:
    scores = surface_scores(A, other)

    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-5)


def test_the_mean_distance_has_a_direction() -> None:
    there, back = surface_scores(A, LARGER), surface_scores(LARGER, A)

    assert [there["asd"], back["asd"]] == pytest.approx([1.0, 1.03766], abs=1e-5)
    assert there["assd"] == back["assd"] == pytest.approx((1.0 + 1.03766) / 2, abs=1e-5)


@settings(max_examples=25)
@given(
    st.integers(0, 1000),
    st.sampled_from([((9, 12), (1.0, 1.0)), ((9, 12), (0.7, 2.5)), ((5, 7, 6), (3.0, 1.0, 0.5))]),
)
def test_scores_equal_those_of_a_search_over_all_pairs(
    seed: int, grid: tuple[tuple[int, ...], tuple[float, ...]]
) -> None:
    shape, spacing = grid
    pred, truth = blob(seed, shape), blob(seed + 5000, shape)

    assert surface_scores(pred, truth, spacing=spacing) == pytest.approx(slow_scores(pred, truth, spacing), abs=1e-9)


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_all_but_the_directed_distance_are_symmetric(seed: int) -> None:
    pred, truth = blob(seed, (6, 7, 8)), blob(seed + 5000, (6, 7, 8))

    there, back = (
        {name: scores[name] for name in SURFACE_SCORES if name != "asd"}
        for scores in (surface_scores(pred, truth), surface_scores(truth, pred))
    )

    assert there == pytest.approx(back)


@settings(max_examples=10)
@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_distances_grow_with_the_spacing(seed: int, factor: float) -> None:
    pred, truth = blob(seed, (8, 9)), blob(seed + 5000, (8, 9))

    voxels, millimetres = surface_scores(pred, truth), surface_scores(pred, truth, spacing=(factor, factor))

    assert millimetres["hd95"] == pytest.approx(voxels["hd95"] * factor)
    assert millimetres["dice"] == voxels["dice"]


def test_empty_masks_agree_and_one_alone_has_no_distances() -> None:
    empty = np.zeros_like(A)

    both, one = surface_scores(empty, empty), surface_scores(A, empty)

    assert tuple(both.values()) == (1, 1, 0, 0, 0)
    assert (one["dice"], one["jaccard"]) == (0, 0)
    assert np.isnan([one["hd95"], one["asd"], one["assd"]]).all()
    np.testing.assert_equal(surface_scores(empty, A), one)
