"""Every head gets back the objects it was shown, whatever the frame, and learns nothing from nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from tests.nuclei_makers import aji, ellipses, perfect
from wsiseg.errors import MethodError
from wsiseg.heads.registry import HEADS, make_head
from wsiseg.heads.symmetry import turned

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS = tuple(HEADS)
SIDE = 128


def batched(targets: dict[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values)[None] for name, values in targets.items()}


@pytest.mark.parametrize(
    ("kind", "least"),
    [("centre", 0.98), ("flow", 0.99), ("hv", 0.95), ("level-set", 0.99), ("star", 0.95), ("ternary", 0.9)],
)
@pytest.mark.parametrize("radii", [(4.5, 8.5), (10, 20)])
def test_decoding_targets_gives_the_objects_back(kind: str, least: float, radii: tuple[float, float]) -> None:
    head = make_head(kind)
    scores = []
    for seed in range(3):
        labels = ellipses(24, SIDE, seed=seed, radii=radii)
        scores.append(aji(head.decode(perfect(head, labels)).labels, labels))

    assert np.mean(scores) >= least


@pytest.mark.parametrize("kind", KINDS)
def test_objects_that_were_learnt_by_heart_are_certain(kind: str) -> None:
    head = make_head(kind)
    maps = perfect(head, ellipses(24, SIDE, seed=0))
    found = head.decode(maps)

    assert len(found) > 20
    assert head.certainty(maps, found).dtype == np.float32
    assert head.certainty(maps, found).min() > 0.9

    empty = perfect(head, np.zeros((64, 48), np.int32))
    assert len(head.certainty(empty, head.decode(empty))) == 0


@pytest.mark.parametrize(
    ("kind", "most"), [("centre", 0), ("flow", 0), ("hv", 0), ("level-set", 0.25), ("ternary", 0.5)]
)
def test_objects_in_noise_are_not_certain(kind: str, most: float) -> None:
    head = make_head(kind)
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(head.channels, 256, 256)), (0, 4, 4))
    maps = (noise / noise.std()).astype(np.float32)
    found = head.decode(maps)

    assert len(found) > 50
    assert (head.certainty(maps, found) >= 0.5).mean() <= most


@pytest.mark.parametrize("kind", KINDS)
def test_maps_have_the_number_of_channels_promised_and_the_foreground_first(kind: str) -> None:
    head = make_head(kind)
    labels = ellipses(10, SIDE, seed=3)

    maps = perfect(head, labels)

    assert head.kind == kind
    assert maps.shape == (head.channels, SIDE, SIDE)
    assert maps.dtype == np.float32
    prob = head.foreground(maps)
    assert prob.shape == (SIDE, SIDE)
    assert prob[labels > 0].mean() > 0.4
    assert prob[labels == 0].max() < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_image_has_no_objects_and_a_finite_loss(kind: str) -> None:
    head = make_head(kind)
    labels = np.zeros((64, 48), dtype=np.int32)
    maps = perfect(head, labels)

    found = head.decode(maps)
    loss = head.loss(torch.from_numpy(maps)[None], batched(head.targets(labels, np.ones((64, 48), dtype=np.bool_))))

    assert len(found) == 0
    assert found.labels.shape == (64, 48)
    assert found.labels.dtype == np.int32
    assert not found.labels.any()
    assert all(torch.isfinite(value) for value in loss.values())


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_is_known_to_be_there_are_no_objects(kind: str) -> None:
    head = make_head(kind)
    maps = np.tile(np.array(head.background, dtype=np.float32)[:, None, None], (1, 32, 40))

    assert len(maps) == head.channels
    assert len(head.decode(maps)) == 0
    assert head.foreground(maps).max() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_valid_gives_no_loss_and_no_gradient(kind: str) -> None:
    head = make_head(kind)
    targets = head.targets(ellipses(6, 64, seed=1), np.zeros((64, 64), dtype=np.bool_))
    outputs = torch.randn(1, head.channels, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    loss = head.loss(outputs, batched(targets))["loss"]
    (gradient,) = torch.autograd.grad(loss, outputs)

    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert not gradient.any()


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_that_are_not_valid_get_no_gradient(kind: str) -> None:
    head = make_head(kind)
    valid = np.ones((64, 64), dtype=np.bool_)
    valid[:, 30:40] = False
    outputs = torch.randn(1, head.channels, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    loss = head.loss(outputs, batched(head.targets(ellipses(6, 64, seed=1), valid)))["loss"]
    (gradient,) = torch.autograd.grad(loss, outputs)

    assert not gradient[..., 30:40].any()
    assert gradient[..., :30].any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_sum_of_its_parts_and_least_at_the_targets(kind: str) -> None:
    head = make_head(kind)
    labels = ellipses(12, SIDE, seed=5)
    targets = batched(head.targets(labels, np.ones(labels.shape, dtype=np.bool_)))
    best = torch.from_numpy(perfect(head, labels))[None]

    losses = head.loss(best, targets)
    worse = head.loss(best + 0.3 * torch.randn(best.shape, generator=torch.Generator().manual_seed(1)), targets)

    parts = sum(value.item() for name, value in losses.items() if name != "loss")
    assert losses["loss"].item() == pytest.approx(parts, rel=1e-5)
    assert losses["loss"] < worse["loss"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_does_not_depend_on_maps_beyond_the_halo(kind: str) -> None:
    head = make_head(kind, reach_px=12)
    labels = ellipses(70, 192, seed=2)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.3, (head.channels, 192, 192)).astype(np.float32)
    maps = perfect(head, labels) + noise
    top, left = 37, 21
    crop = maps[:, top : top + 140, left : left + 140]

    whole, part = head.decode(maps).labels, head.decode(np.ascontiguousarray(crop)).labels

    whole = whole[top : top + 140, left : left + 140]
    compared = 0
    for number in range(1, part.max() + 1):
        y, x = np.nonzero(part == number)
        if min(y.min(), x.min()) >= head.halo and max(y.max(), x.max()) < 140 - head.halo:
            same = whole == whole[y[0], x[0]]
            np.testing.assert_array_equal(part == number, same)
            compared += 1
    assert compared > 8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("symmetry", range(8))
def test_maps_of_a_turned_image_turn_back_into_those_of_the_image(kind: str, symmetry: int) -> None:
    head = make_head(kind)
    labels = ellipses(16, SIDE, seed=7, radii=(6, 12))
    there = turned(torch.from_numpy(labels)[None], symmetry)[0].numpy()
    maps = torch.from_numpy(perfect(head, np.ascontiguousarray(there)))[None]

    back = head.turned_back(maps, symmetry)[0].numpy()

    # Centres lie on whole pixels, so a few flows and positions differ where a centroid is halfway between two.
    difference = np.abs(back - perfect(head, labels)).max(axis=0)
    scale = 1.5 if kind == "star" else 1.0
    assert np.mean(difference < scale) > 0.97
    assert aji(head.decode(back).labels, labels) > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_probabilities_and_columns_describe_the_labels(kind: str) -> None:
    head = make_head(kind)
    found = head.decode(perfect(head, ellipses(14, SIDE, seed=4)))

    assert len(found) > 0
    assert ((found.scores > 0) & (found.scores <= 1)).all()
    assert (found.classes == 1).all()
    for number, (x0, y0, x1, y1) in enumerate(found.bbox, start=1):
        y, x = np.nonzero(found.labels == number)
        assert (x.min(), y.min(), x.max() + 1, y.max() + 1) == (x0, y0, x1, y1)
        assert found.area_px[number - 1] == len(y)
        assert found.cx[number - 1] == pytest.approx(x.mean() + 0.5)
        assert found.cy[number - 1] == pytest.approx(y.mean() + 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_may_have_gaps_and_ignored_ones_are_background(kind: str) -> None:
    head = make_head(kind)
    labels = ellipses(5, 64, seed=6)
    everything = np.ones((64, 64), dtype=np.bool_)
    odd = np.where(labels > 0, labels * 1000 + 7, -1).astype(np.int32)

    expected = head.targets(labels, everything)
    for name, found in head.targets(odd, everything).items():
        np.testing.assert_array_equal(found, expected[name])


def test_unknown_heads_and_options_are_named_with_what_was_meant() -> None:
    with pytest.raises(MethodError, match="Did you mean flow"):
        make_head("flows")
    with pytest.raises(MethodError, match="There are: centre, flow, "):
        make_head("maskrcnn")
    with pytest.raises(MethodError, match="Did you mean min_area_px"):
        make_head("hv", min_area=3)
    with pytest.raises(MethodError, match="odd"):
        make_head("hv", filter_px=10)
    with pytest.raises(MethodError, match="rays"):
        make_head("star", rays=30)
