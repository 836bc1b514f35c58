"""Consistency-based selection takes one patch of each kind, the one that is alike all over and like its kind."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from tests.selection_makers import stored, whole
from wsiseg.selection.patch_scores import ConsistencyOptions, by_consistency, cluster_twice, score_parts

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from numpy.typing import NDArray

KINDS = 3


def textures(count: int = 120, *, dimensions: int = 16, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return features of quadrants (n, 4, D) of three kinds of texture, and which patches mix two of them."""
    rng = np.random.default_rng(seed)
    kinds = rng.normal(0, 4, (KINDS, dimensions))
    kind = np.repeat(np.arange(count)[:, None] % KINDS, 4, axis=1)
    is_mixed = rng.random(count) < 0.2
    kind[is_mixed, 2:] = (kind[is_mixed, 2:] + 1) % KINDS
    return (kinds[kind] + rng.normal(0, 0.4, (count, 4, dimensions))).astype(np.float32), is_mixed


def test_one_patch_of_each_kind_is_chosen_and_none_that_mixes_two(tmp_path: Path) -> None:
    quadrants, is_mixed = textures()

    choice = by_consistency(whole(stored(tmp_path / "f.zarr", quadrants)), KINDS, ConsistencyOptions(), seed=42)

    best = [int(group.places[0]) for group in choice.groups]
    assert len({place % KINDS for place in best}) == KINDS
    assert not is_mixed[best].any()
    assert [group.number for group in choice.groups] == list(range(KINDS))
    assert sum(group.members for group in choice.groups) == len(quadrants)


def test_the_same_patches_are_chosen_again_from_disk_and_from_other_chunks(tmp_path: Path) -> None:
    quadrants, _ = textures(1200, seed=4)
    first = by_consistency(whole(stored(tmp_path / "a.zarr", quadrants)), KINDS, ConsistencyOptions(), seed=1)

    for name, chunk, memory_bytes in (("b", 32, 0), ("c", 7, None), ("d", 999, 0)):
        store = stored(tmp_path / f"{name}.zarr", quadrants, chunk=chunk)
        again = by_consistency(whole(store, memory_bytes=memory_bytes), KINDS, ConsistencyOptions(), seed=1)
        for one, other in zip(first.groups, again.groups, strict=True):
            np.testing.assert_array_equal(one.places, other.places)
            np.testing.assert_array_equal(one.scores["score"], other.scores["score"])


def test_scores_are_those_of_the_formula(tmp_path: Path) -> None:
    quadrants, _ = textures()
    options = ConsistencyOptions(representativeness=0.5, dominance=2, spread=1.5)
    features = whole(stored(tmp_path / "f.zarr", quadrants))
    choice = by_consistency(features, KINDS, options, seed=42)
    clustering = cluster_twice(features, KINDS, options, seed=42)
    places = np.arange(len(quadrants))
    exact_patches = features.read("patches", places).astype(np.float64)
    exact = features.read("quadrants", places).astype(np.float64)

    for group in choice.groups:
        scores = {}
        for place in np.flatnonzero(clustering.is_candidate & (clustering.cluster == group.number)).tolist():
            near = np.linalg.norm(exact_patches[place] - clustering.centres[group.number])
            dominance = np.mean([np.linalg.norm(q - clustering.dominant[group.number]) for q in exact[place]])
            spread = max(np.linalg.norm(one - other) for one in exact[place] for other in exact[place])
            scores[place] = 0.5 * near + 2 * dominance + 1.5 * spread
        assert min(scores, key=scores.__getitem__) == group.places[0]
        np.testing.assert_allclose(group.scores["score"], [scores[place] for place in group.places.tolist()], rtol=1e-4)
        assert all(one <= other for one, other in pairwise(group.scores["score"].tolist()))


def test_the_order_of_quadrants_changes_no_score(tmp_path: Path) -> None:
    quadrants, _ = textures()
    features = whole(stored(tmp_path / "a.zarr", quadrants))
    turned = whole(stored(tmp_path / "b.zarr", quadrants[:, [2, 0, 3, 1]]))
    clustering = cluster_twice(features, KINDS, ConsistencyOptions(), seed=0)

    for name, values in score_parts(features, clustering).items():
        np.testing.assert_allclose(values, score_parts(turned, clustering)[name], rtol=1e-3)
    chosen, again = (by_consistency(one, KINDS, ConsistencyOptions(), seed=0) for one in (features, turned))
    assert [group.places[0] for group in chosen.groups] == [group.places[0] for group in again.groups]


def test_every_candidate_has_a_quadrant_of_its_cluster_s_largest_kind(tmp_path: Path) -> None:
    # The first kind is the largest; ten patches are of others, ten have one quadrant of it, the rest only such.
    kind = np.zeros((60, 4), np.int64)
    kind[:5], kind[5:10] = 1, 2
    kind[10:20, 1:] = 1
    centres = np.eye(KINDS, 8, dtype=np.float32) * 10
    quadrants = (centres[kind] + np.random.default_rng(2).normal(0, 0.1, (60, 4, 8))).astype(np.float32)
    options = ConsistencyOptions(sub_clusters=KINDS, restarts=40)

    (group,) = by_consistency(whole(stored(tmp_path / "f.zarr", quadrants)), 1, options, seed=0).groups

    assert sorted(group.places.tolist()) == list(range(10, 60))


def test_of_equal_scores_the_first_patch_is_chosen(tmp_path: Path) -> None:
    quadrants = np.repeat(textures(6, seed=1)[0][:2], 4, axis=0)

    choice = by_consistency(whole(stored(tmp_path / "f.zarr", quadrants)), 2, ConsistencyOptions(), seed=0)

    assert sorted(group.places.tolist() for group in choice.groups) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_pool_of_equal_patches_gives_fewer_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    quadrants = np.ones((5, 4, 3), np.float32)

    choice = by_consistency(whole(stored(tmp_path / "f.zarr", quadrants)), 3, ConsistencyOptions(), seed=0)

    assert len(choice.groups) == 1
    assert "only 1 different kinds of patches, not 3" in caplog.text


def test_memory_does_not_grow_by_the_features_of_more_patches(tmp_path: Path) -> None:
    dimensions = 32

    def peak(count: int) -> int:
        quadrants, _ = textures(count, dimensions=dimensions)
        features = whole(stored(tmp_path / f"{count}.zarr", quadrants, chunk=1024), memory_bytes=0)
        tracemalloc.start()
        by_consistency(features, KINDS, ConsistencyOptions(sub_clusters=2, restarts=2), seed=0)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    # The first run makes what stays.
    peak(2000)
    few, many = peak(20_000), peak(100_000)

    # Some numbers for each patch, and not even one of its five vectors of float16.
    assert (many - few) / 80_000 < 0.9 * 2 * dimensions
