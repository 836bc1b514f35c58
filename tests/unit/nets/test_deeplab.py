"""DeepLabV3+ has the published shapes, and its output the size of its input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from wsiseg.errors import MethodError
from wsiseg.nets.deeplab import DeepLabV3Plus, ResNet101, build_deeplab

if TYPE_CHECKING:
    from wsiseg.nets.deeplab import OutputStride


def published(output_stride: OutputStride = 16) -> DeepLabV3Plus:
    """Return the published network without memory for its weights."""
    with torch.device("meta"):
        return build_deeplab("resnet101", 4, output_stride=output_stride)


def dilations(stage: nn.Module) -> list[int]:
    """Return those of a stage's 3 × 3 convolutions."""
    return [
        layer.dilation[0] for layer in stage.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)
    ]


@pytest.mark.parametrize("output_stride", [8, 16])
def test_it_has_the_published_number_of_parameters(output_stride: OutputStride) -> None:
    assert sum(value.numel() for value in published(output_stride).parameters()) == 59_339_940


def test_it_has_the_published_names() -> None:
    names = {name for name, _ in published().named_parameters()}

    assert {name for name in names if name.startswith(("aspp.", "decoder."))} == {
        *(f"aspp.aspp{n}.atrous_conv.weight" for n in (1, 2, 3, 4)),
        *(f"aspp.aspp{n}.bn.{kind}" for n in (1, 2, 3, 4) for kind in ("weight", "bias")),
        *("aspp.global_avg_pool.1.weight", "aspp.global_avg_pool.2.weight", "aspp.global_avg_pool.2.bias"),
        *("aspp.conv1.weight", "aspp.bn1.weight", "aspp.bn1.bias"),
        *("decoder.conv1.weight", "decoder.bn1.weight", "decoder.bn1.bias"),
        *("decoder.last_conv.0.weight", "decoder.last_conv.1.weight", "decoder.last_conv.1.bias"),
        *("decoder.last_conv.4.weight", "decoder.last_conv.5.weight", "decoder.last_conv.5.bias"),
        *("decoder.last_conv.8.weight", "decoder.last_conv.8.bias"),
    }
    assert {"backbone.conv1.weight", "backbone.layer3.22.conv3.weight", "backbone.layer4.0.downsample.1.bias"} <= names
    assert not any("fc" in name for name in names)


@pytest.mark.parametrize(
    ("output_stride", "third", "fourth", "pyramid"),
    [(16, [1] * 23, [2, 4, 8], [1, 6, 12, 18]), (8, [2] * 23, [4, 8, 16], [1, 12, 24, 36])],
)
def test_resolution_is_kept_by_growing_dilations(
    output_stride: OutputStride, third: list[int], fourth: list[int], pyramid: list[int]
) -> None:
    net = published(output_stride)
    assert isinstance(net.backbone, ResNet101)

    assert dilations(net.backbone.layer3) == third
    assert dilations(net.backbone.layer4) == fourth
    branches = (net.aspp.aspp1, net.aspp.aspp2, net.aspp.aspp3, net.aspp.aspp4)
    assert [branch.atrous_conv.dilation[0] for branch in branches] == pyramid
    assert net.stride == output_stride


@pytest.mark.parametrize("output_stride", [8, 16])
def test_features_have_the_published_shapes(output_stride: OutputStride) -> None:
    net, images = published(output_stride), torch.zeros(2, 3, 224, 224, device="meta")

    low, deep = net.backbone(images)

    side = 224 // output_stride
    assert (low.shape, deep.shape) == ((2, 256, 56, 56), (2, 2048, side, side))
    assert net.aspp(deep).shape == (2, 256, side, side)
    assert net.decoder(low, net.aspp(deep)).shape == (2, 4, 56, 56)
    assert net(images).shape == (2, 4, 224, 224)


@pytest.mark.parametrize("size", [(96, 128), (65, 50)])
def test_the_output_has_the_size_of_the_input_on_another_encoder(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = build_deeplab("resnet18", 3).eval()

    with torch.no_grad():
        assert net(torch.rand(1, 3, *size)).shape == (1, 3, *size)


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    net = build_deeplab("resnet18", 3, output_stride=8)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            # The encoder starts with branches that are switched off.
            nn.init.ones_(layer.weight)

    net(torch.rand(2, 3, 64, 64)).square().mean().backward()

    assert all(value.grad is not None and value.grad.any() for value in net.parameters())


def test_corners_of_the_output_are_corners_of_what_it_is_made_from() -> None:
    torch.manual_seed(0)
    net, images = build_deeplab("resnet18", 3).eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        low, deep = net.backbone(images)
        coarse, fine = net.decoder(low, net.aspp(deep)), net(images)

    torch.testing.assert_close(fine[..., [0, 0, -1, -1], [0, -1, 0, -1]], coarse[..., [0, 0, -1, -1], [0, -1, 0, -1]])


def test_only_the_last_convolution_after_the_backbone_has_a_bias() -> None:
    net = build_deeplab("resnet18", 3)
    with_bias = [
        name
        for name, layer in net.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.bias is not None and not name.startswith("backbone")
    ]

    assert with_bias == ["decoder.last_conv.8"]


def test_encoders_without_features_at_a_quarter_are_refused() -> None:
    with pytest.raises(MethodError, match="no features at a quarter of the resolution"):
        build_deeplab("vit_tiny_patch16_224", 3)


def test_weights_that_cannot_be_downloaded_give_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.models

    def offline(**_: object) -> nn.Module:
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models, "resnet101", offline)

    with pytest.raises(MethodError, match=r"resnet101 cannot be had \(no route to host\)"):
        build_deeplab("resnet101", 3, weights="imagenet")


def test_features_are_those_that_the_logits_follow_from() -> None:
    torch.manual_seed(0)
    net = build_deeplab("resnet18", 3).eval()
    images = torch.rand(2, 3, 64, 72)
    with torch.inference_mode():
        found = net.decoded(images)
        coarse = net.decoder.last_conv[-1](found.features)

        assert found.features.shape == (2, 256, 16, 18)
        torch.testing.assert_close(found.coarse, coarse)
        torch.testing.assert_close(net(images), found.logits)
        assert found.logits.shape == (2, 3, 64, 72)
