"""Rays end where the object ends."""

from __future__ import annotations

import numpy as np

from tests.nuclei_makers import ellipses
from wsiseg.heads.rays import edge_distances, ray_lengths, unit_rays


def test_rays_of_a_box_are_known_by_hand() -> None:
    labels = np.zeros((7, 9), dtype=np.int32)
    labels[1:4, 2:7] = 3
    labels[4:6, 2:7] = 4

    right, down, left, up = ray_lengths(labels, 4)[:, 1, 2]

    assert (right, down, left, up) == (4.5, 2.5, 0.5, 0.5)


def test_rays_are_those_of_walking_one_by_one() -> None:
    labels = ellipses(5, 40, seed=1)
    lengths = ray_lengths(labels, 8)
    slow = np.zeros_like(lengths)
    for y, x in np.argwhere(labels > 0):
        for ray, (dy, dx) in enumerate(unit_rays(8)):
            steps = 0
            while True:
                v, u = (int(np.floor((steps + 1) * step + 0.5)) for step in (dy, dx))
                inside = 0 <= y + v < 40 and 0 <= x + u < 40
                if not inside or labels[y + v, x + u] != labels[y, x]:
                    break
                steps += 1
            slow[ray, y, x] = steps + 0.5

    np.testing.assert_array_equal(lengths, slow)


def test_depth_is_one_in_the_middle_and_touching_objects_have_their_own() -> None:
    labels = np.ones((5, 10), dtype=np.int32)
    labels[:, 5:] = 2

    depth = edge_distances(labels)

    np.testing.assert_allclose(depth[2], [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3] * 2, rtol=1e-6)
    assert not edge_distances(np.zeros((4, 4), dtype=np.int32)).any()
