"""Patches are as uncertain as what was predicted of them, and those that are chosen lie apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.geometry import Canvas, Scale, Size
from wsiseg.labels import LabelMap
from wsiseg.selection.uncertainty import by_uncertainty, mean_uncertainty
from wsiseg.stores.mask_store import MaskStore

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.stores.mask_layers import Layer

SIZE = Size(90, 70)


def test_the_uncertainty_of_a_box_is_the_mean_of_its_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (SIZE.height, SIZE.width)).astype(np.uint8)
    canvas, labels = Canvas(SIZE, Scale(1.0), 0.5), LabelMap.from_names(("background", "nucleus"))
    layers: tuple[Layer, ...] = ("classes", "uncertainty")
    store = MaskStore.create(tmp_path / "p.zarr", canvas=canvas, labels=labels, layers=layers, band_px=16)
    for band in range(store.bands):
        window = store.shard(band, 0)
        store.write("uncertainty", window, values[window.slices])
    corners = rng.integers(0, 60, (30, 2)).astype(float)
    boxes = np.concatenate((corners, corners + rng.integers(1, 40, (30, 2))), axis=1)
    boxes[:3, 1::2] = boxes[0, 1::2]

    found = mean_uncertainty(store, boxes + rng.uniform(-0.4, 0.4, boxes.shape))

    parts = [values[int(y0) : int(y1), int(x0) : int(x1)] for x0, y0, x1, y1 in boxes]
    np.testing.assert_allclose(found, [part.mean() / 255 for part in parts], rtol=1e-5)
    assert mean_uncertainty(store, np.array([[90.0, 70.0, 95.0, 75.0]])).tolist() == [0]


def grid(side: int, *, image: int = 0) -> NDArray[np.int64]:
    """Return side × side patches of 10 px on an image."""
    y, x = (10 * axis.ravel() for axis in np.mgrid[:side, :side])
    return np.column_stack((np.full(x.shape, image), x, y, x + 10, y + 10))


def centres(boxes: NDArray[np.int64], places: list[int]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = (boxes[places, 1:3] + boxes[places, 3:]) / 2
    return found


@given(st.integers(1, 6), st.integers(0, 1000))
def test_each_choice_weighs_uncertainty_against_nearness(count: int, seed: int) -> None:
    boxes = np.concatenate((grid(6), grid(4, image=1)))
    uncertainty = np.random.default_rng(seed).uniform(0.1, 1, len(boxes)).astype(np.float32)

    choice = by_uncertainty(boxes, uncertainty, count)

    chosen = [int(group.places[0]) for group in choice.groups]
    diameter = 2 * np.sqrt(100 * len(boxes) / np.pi / count)
    for number in range(count):
        gains = []
        for place in range(len(boxes)):
            near = [one for one in chosen[:number] if boxes[one, 0] == boxes[place, 0]]
            apart = np.linalg.norm(centres(boxes, near) - centres(boxes, [place]), axis=1)
            gains.append(uncertainty[place] * min(1, float(apart.min(initial=np.inf)) / diameter))
        assert gains[chosen[number]] >= max(gains) - 1e-5
    for group in choice.groups:
        members = np.flatnonzero(choice.cluster == group.number)
        assert sorted(group.places.tolist()) == members.tolist()
        assert len({int(image) for image in boxes[members, 0]}) == 1
        assert (np.diff(group.scores["uncertainty"][1:]) <= 0).all()


def test_one_uncertain_spot_does_not_take_all() -> None:
    boxes = grid(12)
    uncertainty = np.full(144, 0.4, np.float32)
    corner = (boxes[:, 1] < 40) & (boxes[:, 2] < 40)
    uncertainty[corner] = np.linspace(0.5, 0.6, 16)

    chosen = [int(group.places[0]) for group in by_uncertainty(boxes, uncertainty, 6).groups]

    assert chosen[0] == np.flatnonzero(corner)[-1]
    assert 1 <= np.count_nonzero(corner[chosen]) <= 2
    apart = np.linalg.norm(centres(boxes, chosen)[:, None] - centres(boxes, chosen)[None], axis=2)
    assert apart[~np.eye(6, dtype=bool)].min() >= 25


def test_equal_patches_of_two_images_are_chosen_from_both() -> None:
    boxes = np.concatenate((grid(3), grid(3, image=1)))

    choice = by_uncertainty(boxes, np.zeros(18, np.float32), 2)

    assert {int(boxes[group.places[0], 0]) for group in choice.groups} == {0, 1}
    assert (choice.cluster >= 0).all()
    alone = by_uncertainty(boxes, np.zeros(18, np.float32), 1)
    # Nothing stands by for it on an image where nothing was chosen.
    assert np.count_nonzero(alone.cluster < 0) == 9
