"""Insides and boundaries are cut as published, and grow back to what they were cut from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.nuclei_makers import ellipses, perfect
from wsiseg.heads.registry import make_head
from wsiseg.heads.ternary import BOUNDARY, INSIDE
from wsiseg.losses.shape_attention import segmentation
from wsiseg.training.sources import Patch, random_crop

if TYPE_CHECKING:
    from numpy.typing import NDArray


def square(side: int = 9, *, at: int = 8, size: int = 25) -> NDArray[np.int32]:
    labels = np.zeros((size, size), dtype=np.int32)
    labels[at : at + side, at : at + side] = 1
    return labels


def classes(labels: NDArray[np.int32], **options: int) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = make_head("ternary", **options).targets(labels, np.ones(labels.shape, bool))["classes"]
    return found


def test_a_square_has_the_published_inside_and_boundary() -> None:
    found = classes(square())

    assert (found == INSIDE).sum() == 25
    assert (found == BOUNDARY).sum() == 52
    assert (found[square() == 0] == 0).all()


@pytest.mark.parametrize(("dilation_px", "iou"), [(2, 0.852), (4, 0.591)])
def test_growing_gives_the_published_part_of_the_square_back(dilation_px: int, iou: float) -> None:
    head = make_head("ternary", dilation_px=dilation_px)

    found = head.decode(perfect(head, square())).labels > 0

    shared, joint = (found & (square() > 0)).sum(), (found | (square() > 0)).sum()
    assert shared / joint == pytest.approx(iou, abs=1e-3)
    if dilation_px == 2:
        assert found.sum() == 69


def test_objects_that_touch_stay_apart() -> None:
    labels = square(size=30)
    labels[8:17, 17:26] = 2
    head = make_head("ternary")

    found = head.decode(perfect(head, labels))

    assert classes(labels)[12, 16] == classes(labels)[12, 17] == BOUNDARY
    assert len(found) == 2
    assert found.labels[12, 16] != found.labels[12, 17]


def test_an_object_that_is_cut_by_the_border_of_the_image_has_no_boundary_there() -> None:
    whole = square(at=4)

    np.testing.assert_array_equal(classes(whole[:, 8:])[:, 3:], classes(whole)[:, 11:])
    assert classes(whole[:, 8:])[8, 0] == INSIDE


@pytest.mark.parametrize("erosion_px", [1, 3])
@pytest.mark.parametrize("scale", [1.0, 0.8])
def test_padding_makes_no_boundary_where_an_object_is_cut(erosion_px: int, scale: float) -> None:
    labels = ellipses(8, 32, seed=3, radii=(6, 9))
    whole = Patch(image=np.zeros((32, 32, 3), np.uint8), labels=labels, valid=np.ones(labels.shape, bool))
    head = make_head("ternary", erosion_px=erosion_px)
    stretched = random_crop(whole, crop_px=round(32 / scale), scale=scale, rng=np.random.default_rng(0))

    crop = random_crop(whole, crop_px=round(48 / scale), scale=scale, rng=np.random.default_rng(0))
    found = head.targets(crop.labels, crop.valid)["classes"]

    alone = head.targets(stretched.labels, stretched.valid)["classes"]
    assert (alone == INSIDE).any()
    assert (found == INSIDE).sum() == pytest.approx((alone == INSIDE).sum(), rel=0.0 if scale == 1 else 0.1)
    assert (found == BOUNDARY).sum() == pytest.approx((alone == BOUNDARY).sum(), rel=0.0 if scale == 1 else 0.1)


def test_an_object_beside_what_is_not_known_may_go_on_there() -> None:
    labels, valid = square(), np.ones((25, 25), bool)
    labels[:, 13:], valid[:, 13:] = 0, False

    found = make_head("ternary").targets(labels, valid)["classes"]

    np.testing.assert_array_equal(found[:, :13], classes(square())[:, :13])


def test_a_thicker_cut_leaves_less_inside() -> None:
    found = classes(square(13), erosion_px=3)

    assert (found == INSIDE).sum() == 5**2
    assert (found == BOUNDARY).sum() == 7**2 + 4 * 7 - 5**2


def test_insides_are_numbered_where_labels_are_known() -> None:
    labels = ellipses(8, 64, seed=1)
    valid = np.ones(labels.shape, dtype=np.bool_)
    valid[:, :32] = False

    targets = make_head("ternary").targets(labels, valid)

    assert targets["objects"].dtype == np.int32
    np.testing.assert_array_equal(targets["objects"] > 0, targets["classes"] == INSIDE)
    assert (targets["classes"][:, :32] == 255).all()
    assert targets["objects"].max() > 1
    for number in range(1, targets["objects"].max() + 1):
        assert len(np.unique(labels[targets["objects"] == number])) == 1


def test_small_insides_are_dropped_and_larger_ones_keep_to_themselves() -> None:
    maps = np.zeros((3, 20, 20), dtype=np.float32)
    maps[0] = 5
    maps[INSIDE, 2:6, 2:7] = 9
    maps[INSIDE, 2:6, 9:14] = 9
    maps[INSIDE, 12:16, 2:6] = 9

    found = make_head("ternary", min_area_px=20).decode(maps)

    assert len(found) == 2
    # The gap of two pixels goes to the later object, but no inside does.
    assert (found.labels[3] == [1] * 7 + [2] * 9 + [0] * 4).all()


def test_its_loss_is_that_of_the_method_on_labels() -> None:
    head = make_head("ternary")
    labels = ellipses(8, 32, seed=1)
    valid = np.ones(labels.shape, dtype=np.bool_)
    valid[:9] = False
    targets = {name: torch.from_numpy(values)[None] for name, values in head.targets(labels, valid).items()}
    outputs = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    losses = head.loss(outputs, targets)

    expected = segmentation(outputs, targets["classes"].long())
    torch.testing.assert_close(losses, expected)
