"""Flows computed for all objects at once are those of the slow definition, and so are the objects."""

from __future__ import annotations

import numpy as np
import pytest

from tests.nuclei_makers import aji, ellipses, perfect
from wsiseg.heads.diffusion import centre_flows
from wsiseg.heads.flow import FlowHead, FlowOptions


def slow_flows(labels: np.ndarray) -> np.ndarray:
    """Diffuse one object after the other, pixel by pixel, in float64."""
    flows = np.zeros((2, *labels.shape))
    for number in np.unique(labels[labels > 0]):
        inside = np.pad(labels == number, 1)
        y, x = np.nonzero(inside)
        nearest = np.argmin((y - y.mean()) ** 2 + (x - x.mean()) ** 2)
        heat = np.zeros(inside.shape)
        for _ in range(2 * int(np.ptp(y) + 1 + np.ptp(x) + 1 + 2)):
            heat[y[nearest], x[nearest]] += 1
            spread = sum(np.roll(heat, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)) / 9
            heat = np.where(inside, spread, 0)
        level = np.log1p(heat)
        gradient = np.stack((level[y + 1, x] - level[y - 1, x], level[y, x + 1] - level[y, x - 1]))
        length = np.hypot(*gradient)
        flows[:, y - 1, x - 1] = np.where(length > 0, gradient / np.where(length > 0, length, 1), 0)
    return flows


def slow_objects(maps: np.ndarray, *, steps: int = 200) -> np.ndarray:
    """Follow interpolated flows in small steps and join the pixels that end within 2 pixels of each other."""
    from scipy import ndimage

    inside = maps[0] > 0
    flow = np.where(inside, maps[1:], 0) / 5
    at = np.array(np.nonzero(inside), dtype=np.float64)
    limit = np.array(inside.shape)[:, None] - 1
    for _ in range(steps):
        step = np.stack([ndimage.map_coordinates(part, at, order=1, mode="nearest") for part in flow])
        at = np.clip(at + step, 0, limit)
    count = np.zeros(inside.shape, dtype=np.int64)
    y, x = np.rint(at).astype(np.int64)
    np.add.at(count, (y, x), 1)
    seeds, _ = ndimage.label(ndimage.binary_dilation(count > 10), np.ones((3, 3)))
    labels = np.zeros(inside.shape, dtype=np.int32)
    labels[inside] = seeds[y, x]
    return labels


def test_flows_are_those_of_the_definition() -> None:
    labels = ellipses(12, 64, seed=0)

    fast, slow = centre_flows(labels), slow_flows(labels)

    # Far from the centre of an object differences of heat are tiny, in float32 more so.
    assert np.abs(fast - slow).max() < 0.02


def test_flows_have_length_one_in_objects_and_lead_inwards() -> None:
    labels = ellipses(20, 128, seed=1)
    flows = centre_flows(labels)
    length = np.hypot(*flows)

    assert not length[labels == 0].any()
    assert (np.abs(length[labels > 0] - 1) < 1e-5).mean() > 0.98
    for number in range(1, 10):
        y, x = np.nonzero(labels == number)
        inwards = (y.mean() - y) * flows[0, y, x] + (x.mean() - x) * flows[1, y, x]
        assert (inwards > -0.5).mean() > 0.95


def test_an_object_of_one_pixel_or_of_the_whole_image_has_finite_flows() -> None:
    single = np.zeros((5, 5), dtype=np.int32)
    single[2, 2] = 9

    assert not centre_flows(single).any()
    assert np.isfinite(centre_flows(np.ones((9, 300), dtype=np.int32))).all()
    assert centre_flows(np.zeros((0, 4), dtype=np.int32)).shape == (2, 0, 4)


def test_flows_do_not_depend_on_the_other_objects_or_the_place() -> None:
    labels = ellipses(12, 96, seed=2)
    number = labels[48, 48] or labels[labels > 0][0]
    alone = np.roll(np.pad(np.where(labels == number, 1, 0).astype(np.int32), 20), (7, -5), (0, 1))

    there = np.roll(np.pad(centre_flows(labels) * (labels == number), ((0, 0), (20, 20), (20, 20))), (7, -5), (1, 2))

    np.testing.assert_array_equal(centre_flows(alone), there)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_objects_are_those_of_the_slow_way(noise: float) -> None:
    labels = ellipses(24, 128, seed=3)
    head = FlowHead(FlowOptions())
    maps = perfect(head, labels)
    maps += np.random.default_rng(0).normal(0, noise, maps.shape).astype(np.float32)

    fast = head.decode(maps).labels

    assert aji(fast, slow_objects(maps)) > 0.95
    assert aji(fast, labels) > 0.95


def test_short_flows_still_reach_the_centre_and_large_objects_stay_whole() -> None:
    labels = ellipses(6, 192, seed=4, radii=(24, 30))
    head = FlowHead(FlowOptions())
    maps = perfect(head, labels)
    maps[1:] *= 0.6

    assert aji(head.decode(maps).labels, labels) > 0.99


def test_pixels_too_far_from_their_centre_are_left_out() -> None:
    labels = np.zeros((40, 160), dtype=np.int32)
    labels[10:30, 10:150] = 1
    head = FlowHead(FlowOptions(reach_px=20))

    found = head.decode(perfect(head, labels))

    assert all(x1 - x0 <= 2 * (20 + 8) + 1 for x0, _, x1, _ in found.bbox)


def test_small_objects_are_dropped() -> None:
    labels = np.zeros((32, 32), dtype=np.int32)
    labels[4:8, 4:8] = 1
    labels[16:24, 16:24] = 2
    maps = perfect(FlowHead(FlowOptions()), labels)

    assert len(FlowHead(FlowOptions(min_area_px=17)).decode(maps)) == 1
    assert len(FlowHead(FlowOptions(min_area_px=16)).decode(maps)) == 2


def test_objects_whose_flows_do_not_suit_their_shape_are_dropped_if_asked() -> None:
    labels = np.zeros((48, 96), dtype=np.int32)
    labels[12:36, 8:32] = 1
    labels[12:36, 56:80] = 2
    maps = perfect(FlowHead(FlowOptions()), labels)
    maps[1:, :, 48:] = 0
    maps[2, 12:36, 56:80] = 5

    lenient = FlowHead(FlowOptions()).decode(maps)
    strict = FlowHead(FlowOptions(max_flow_error=0.4)).decode(maps)

    assert len(lenient) == 2
    assert len(strict) == 1
    assert strict.bbox[0].tolist() == [8, 12, 32, 36]
    assert strict.scores[0] == pytest.approx(lenient.scores[0], abs=0.05)


@pytest.mark.parametrize("limit", [None, 0.25])
def test_half_of_the_certainty_is_left_at_the_limit_of_the_flow_error(limit: float | None) -> None:
    head = FlowHead(FlowOptions(max_flow_error=limit))
    maps = perfect(head, ellipses(8, 96, seed=1))
    found = FlowHead(FlowOptions()).decode(maps)
    share = []
    for error in (0, limit or 0.4, 2 * (limit or 0.4), 0.9):
        shorter = maps.copy()
        shorter[1:] *= 1 - np.sqrt(error)
        share.append(head.certainty(shorter, found) / found.scores)

    assert len(found) > 4
    np.testing.assert_allclose(share[:3], np.repeat([[1], [0.5], [0]], len(found), axis=1), atol=0.02)
    assert not share[3].any()


def test_pixels_below_the_last_row_do_not_change_objects_cut_by_the_first() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        maps = rng.normal(0, 3, (3, 24, 24)).astype(np.float32)
        more = np.concatenate([maps, np.full((3, 8, 24), -9, dtype=np.float32)], axis=1)
        head = FlowHead(FlowOptions(min_area_px=1, reach_px=4))

        np.testing.assert_array_equal(head.decode(more).labels[:24], head.decode(maps).labels)
