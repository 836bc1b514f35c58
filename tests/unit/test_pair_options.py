"""A pair's second network follows the first, unless it is told otherwise."""

from __future__ import annotations

import pytest

from wsiseg.methods.pair_options import PairOptions


@pytest.mark.parametrize(
    ("backbone", "segmenter", "expected"),
    [("resnet38d", None, "resnet101"), ("resnet18", None, "resnet18"), ("resnet38d", "resnet50", "resnet50")],
)
def test_the_published_backbones_stand_beside_each_other(backbone: str, segmenter: str | None, expected: str) -> None:
    assert PairOptions(backbone=backbone, segmenter=segmenter).segmenter_backbone == expected


@pytest.mark.parametrize(
    ("init", "init_segmenter", "expected"),
    [
        ("none", None, "none"),
        ("imagenet", None, "imagenet"),
        # A file of the classifier fits no other backbone.
        ("weights.pth", None, "none"),
        ("weights.pth", "imagenet", "imagenet"),
        ("imagenet", "none", "none"),
        ("none", "deeplab.pth", "deeplab.pth"),
    ],
)
def test_a_file_is_for_one_backbone(init: str, init_segmenter: str | None, expected: str) -> None:
    assert PairOptions(init=init, init_segmenter=init_segmenter).segmenter_init == expected


@pytest.mark.parametrize(
    ("segmenter", "init_segmenter", "expected"),
    [
        (None, None, "weights.pth"),
        ("resnet18", None, "weights.pth"),
        ("resnet50", None, "none"),
        (None, "none", "none"),
    ],
)
def test_a_file_of_the_backbone_that_both_have_begins_both(
    segmenter: str | None, init_segmenter: str | None, expected: str
) -> None:
    chosen = PairOptions(backbone="resnet18", segmenter=segmenter, init="weights.pth", init_segmenter=init_segmenter)

    assert chosen.segmenter_init == expected
