"""A classifier with residual attention says what it sees and where, and can stand before a segmentation network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from wsiseg.nets.attending import ATTENDING, AttendingClassifier, AttentionMaps
from wsiseg.nets.classifiers import build_classifier
from wsiseg.nets.factory import build_described
from wsiseg.nets.gated import GATED, GatedDeepLab

if TYPE_CHECKING:
    from torch import Tensor

SPEC: dict[str, object] = {"arch": ATTENDING, "backbone": "resnet18", "output_stride": 16}
CLASSES = 3


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand((2, 3, 64, 96), generator=torch.Generator().manual_seed(0))


def built(**changes: Any) -> AttentionMaps:  # noqa: ANN401 - fields of AttendingSpec
    torch.manual_seed(0)
    net = build_described({**SPEC, **changes}, 3, CLASSES).eval()
    assert isinstance(net, AttentionMaps)
    return net


@pytest.mark.parametrize("heads", [1, 4])
def test_logits_are_the_sum_of_what_positions_add(images: Tensor, heads: int) -> None:
    classifier = built(heads=heads).classifier
    with torch.inference_mode():
        found, logits = classifier.attended(images), classifier(images)

    assert found.scores.shape == (2, heads, CLASSES, 4, 6)
    torch.testing.assert_close(found.logits, logits)
    torch.testing.assert_close(found.parts.sum(dim=(1, 3, 4)), logits)


def test_the_published_trunk_sees_an_eighth_of_the_resolution() -> None:
    with torch.device("meta"):
        net = build_described({"arch": ATTENDING, "backbone": "resnet38d"}, 3, 4)
        assert isinstance(net, AttentionMaps)
        for height, width in ((224, 224), (96, 128)):
            found = net.classifier.attended(torch.zeros(2, 3, height, width))
            assert found.scores.shape == found.attention.shape == (2, 1, 4, height // 8, width // 8)
            assert found.logits.shape == (2, 4)
    assert net.stride == 8


def test_without_a_residual_weight_logits_are_mean_scores(images: Tensor) -> None:
    classifier = built(residual_weight=0).classifier
    with torch.inference_mode():
        found = classifier.attended(images)

    torch.testing.assert_close(found.logits, found.scores.mean(dim=(1, 3, 4)))


def test_the_trunk_has_no_classifier_of_its_own() -> None:
    names = {name for name, _ in built().named_parameters()}

    assert "classifier.head.weight" in names
    assert not any("fc8" in name for name in names)


def test_a_frozen_trunk_learns_neither_norms_nor_first_layers() -> None:
    classifier = AttendingClassifier(build_classifier("resnet18", CLASSES, output_stride=16), CLASSES)
    classifier.trunk.freeze()
    classifier.train()

    norms = [layer for layer in classifier.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert not any(layer.training for layer in norms)
    assert classifier.head.weight.requires_grad
    assert any(not value.requires_grad for value in classifier.trunk.parameters() if value.ndim > 1)
    assert any(value.requires_grad for value in classifier.trunk.parameters())


def test_pixels_go_to_classes_that_are_seen_there(images: Tensor) -> None:
    net = built(threshold=0.25)
    with torch.inference_mode():
        weight = net.classifier.head.weight
        # Class 1 has positive scores everywhere, and class 2 has none.
        weight[:, 1], weight[:, 2] = weight[:, 1].abs(), -weight[:, 1].abs()
        shares = net(images).softmax(dim=1)

    assert shares.shape == (2, CLASSES, 64, 96)
    assert torch.isfinite(shares).all()
    assert (shares[:, 2] < 1e-3).all()
    assert (shares.argmax(dim=1) == 1).any()


def test_it_shuts_classes_out_of_a_segmentation_network(images: Tensor) -> None:
    torch.manual_seed(0)
    spec = {"arch": GATED, "backbone": "resnet18", "output_stride": 16, "classifier": SPEC, "epsilon": 0.1}
    net = build_described(spec, 3, CLASSES).eval()
    assert isinstance(net, GatedDeepLab)
    assert isinstance(net.classifier, AttendingClassifier)
    with torch.inference_mode():
        head = net.classifier.head.weight
        # Rows have length 1; of positive features one negative row makes scores that rule a class out.
        head[:] = head.abs()
        head[:, 0] *= -1
        prob, seen = net(images).softmax(dim=1), net.classifier(images).sigmoid()

    is_open = seen > 0.1
    assert is_open[:, 1:].all()
    assert ((prob > 0).all(dim=(2, 3)) == is_open).all()
