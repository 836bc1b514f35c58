"""Published networks compute, layer by layer and dropout by dropout, what plain functions of their weights do."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.plain_networks import deeplab, resnet38d, scramble
from wsiseg.nets.classifiers import build_classifier
from wsiseg.nets.deeplab import DeepLabV3Plus, EncoderBackbone, build_deeplab
from wsiseg.nets.resnet38d import ResNet38d

if TYPE_CHECKING:
    from torch import Tensor


class Means(nn.Module):
    """Gives an image at two smaller sizes, as a backbone gives features."""

    low_channels = deep_channels = 3

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return functional.adaptive_avg_pool2d(images, (12, 15)), functional.adaptive_avg_pool2d(images, (20, 22))


def ready(net: nn.Module, *, is_training: bool) -> nn.Module:
    """Return a network with random weights in the given mode, its norms in evaluation."""
    scramble(net)
    net.double().train(is_training)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    return net


@pytest.mark.parametrize("is_training", [False, True])
def test_resnet38d_is_what_its_layers_are_in_a_row(*, is_training: bool) -> None:
    net = ready(ResNet38d(4, width=1), is_training=is_training)
    assert isinstance(net, ResNet38d)
    images = torch.rand(2, 3, 32, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    torch.manual_seed(2)
    taps, logits = net.tapped(images)

    # From here dropout draws the same channels.
    torch.manual_seed(2)
    features, expected = resnet38d(images, net.state_dict(), is_training=is_training)
    for name, tap in zip(net.tap_names, taps, strict=True):
        torch.testing.assert_close(tap, features[name])
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("is_training", [False, True])
def test_deeplab_is_what_its_layers_are_in_a_row(*, is_training: bool) -> None:
    backbone = Means()
    net = ready(DeepLabV3Plus(cast("EncoderBackbone", backbone), 3), is_training=is_training)
    assert isinstance(net, DeepLabV3Plus)
    images = torch.rand(2, 3, 40, 52, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    torch.manual_seed(2)
    found = net.decoded(images)

    torch.manual_seed(2)
    low, deep = backbone(images)
    features, coarse, logits = deeplab(low, deep, (40, 52), net.state_dict(), is_training=is_training)
    torch.testing.assert_close(found.features, features)
    torch.testing.assert_close(found.coarse, coarse)
    torch.testing.assert_close(found.logits, logits)
    torch.manual_seed(2)
    torch.testing.assert_close(net(images), logits)


def test_dropout_has_the_published_rates() -> None:
    with torch.device("meta"):
        nets = {"resnet38d": build_classifier("resnet38d", 4), "resnet101": build_deeplab("resnet101", 4)}
    rates = {
        name: {place: layer.p for place, layer in net.named_modules() if isinstance(layer, nn.Dropout | nn.Dropout2d)}
        for name, net in nets.items()
    }

    assert rates == {
        "resnet38d": {"dropout7": 0.5, "b6.dropout": 0.3, "b7.dropout": 0.5},
        "resnet101": {"aspp.dropout": 0.5, "decoder.last_conv.3": 0.5, "decoder.last_conv.7": 0.1},
    }
    # Whole channels at once.
    assert all(isinstance(nets["resnet38d"].get_submodule(place), nn.Dropout2d) for place in rates["resnet38d"])


def test_networks_of_the_published_width_take_images_that_are_not_square() -> None:
    with torch.device("meta"):
        classifier, segmenter = build_classifier("resnet38d", 4), build_deeplab("resnet101", 4)
        images = torch.zeros(2, 3, 96, 128)
        taps, logits = classifier.tapped(images)

    assert [tuple(tap.shape) for tap in taps] == [(2, 512, 12, 16), (2, 1024, 12, 16), (2, 4096, 12, 16)]
    assert logits.shape == (2, 4)
    assert segmenter(images).shape == (2, 4, 96, 128)
