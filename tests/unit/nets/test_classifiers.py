"""Classifiers with taps have the published shapes, hold still where they are frozen, and learn elsewhere."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from wsiseg.errors import MethodError
from wsiseg.nets.classifiers import EncoderClassifier, build_classifier
from wsiseg.nets.encoders import Encoder
from wsiseg.nets.resnet38d import ResNet38d

if TYPE_CHECKING:
    from wsiseg.nets.taps import TapClassifier

SMALL = ("resnet38d", "resnet18")


def small(backbone: str, num_classes: int = 4) -> TapClassifier:
    """Return a classifier that is fast on a CPU."""
    torch.manual_seed(0)
    net = ResNet38d(num_classes, width=2) if backbone == "resnet38d" else build_classifier(backbone, num_classes)
    for norm in norms(net):
        # Encoders may start with branches that are switched off.
        nn.init.ones_(norm.weight)
    return net


def norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]


def one_update(net: TapClassifier) -> None:
    """Change the weights by one step on random images."""
    torch.manual_seed(1)
    net.train()
    learnt = [value for value in net.parameters() if value.requires_grad]
    loss = nn.functional.multilabel_soft_margin_loss(net(torch.rand(3, 3, 32, 32)), torch.eye(4)[:3])
    torch.autograd.backward(loss)
    torch.optim.SGD(learnt, lr=1).step()


def test_resnet38d_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        net = build_classifier("resnet38d", 4)
    sizes = {name: value.numel() for name, value in net.named_parameters()}

    assert sum(sizes.values()) == 105_087_296
    assert sum(size for name, size in sizes.items() if "bn" in name) == 47_744


def test_resnet38d_has_the_published_taps_at_an_eighth_of_the_resolution() -> None:
    with torch.device("meta"):
        net = build_classifier("resnet38d", 4)
        taps, logits = net.tapped(torch.zeros(2, 3, 224, 224))

    assert [tuple(tap.shape) for tap in taps] == [(2, 512, 28, 28), (2, 1024, 28, 28), (2, 4096, 28, 28)]
    assert logits.shape == (2, 4)
    assert net.tap_names == ("b4_5", "b5_2", "bn7")


def test_resnet38d_has_the_published_names() -> None:
    names = {name for name, _ in ResNet38d(4, width=1).named_parameters()}
    blocks = {name.partition(".")[0] for name in names}

    assert blocks == {
        *("conv1a", "b2", "b2_1", "b2_2", "b3", "b3_1", "b3_2", "b4", "b4_1", "b4_2", "b4_3", "b4_4", "b4_5"),
        *("b5", "b5_1", "b5_2", "b6", "b7", "bn7", "fc8"),
    }
    assert {name.partition(".")[0] for name in names if "conv_branch1." in name} == {"b2", "b3", "b4", "b5", "b6", "b7"}
    assert {name.partition(".")[2] for name in names if name.startswith("b7.")} == {
        *("bn_branch2a.weight", "bn_branch2a.bias", "conv_branch2a.weight"),
        *("bn_branch2b1.weight", "bn_branch2b1.bias", "conv_branch2b1.weight"),
        *("bn_branch2b2.weight", "bn_branch2b2.bias", "conv_branch2b2.weight", "conv_branch1.weight"),
    }
    assert {"conv1a.weight", "bn7.weight", "bn7.bias", "fc8.weight", "b4_5.conv_branch2b1.weight"} <= names


def test_resnet38d_dilates_its_last_stages() -> None:
    net = ResNet38d(4, width=1)
    dilated = {
        name: layer.dilation[0]
        for name, layer in net.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.dilation != (1, 1)
    }

    assert dilated == {
        "b5.conv_branch2b1": 2,
        "b5_1.conv_branch2a": 2,
        "b5_1.conv_branch2b1": 2,
        "b5_2.conv_branch2a": 2,
        "b5_2.conv_branch2b1": 2,
        "b6.conv_branch2b1": 4,
        "b7.conv_branch2b1": 4,
    }


@pytest.mark.parametrize("backbone", SMALL)
def test_images_need_not_be_square(backbone: str) -> None:
    net = small(backbone).eval()

    with torch.no_grad():
        taps, logits = net.tapped(torch.rand(1, 3, 96, 128))

    assert [tap.shape[-2:] for tap in taps] == [(12, 16)] * 3
    assert net.stride == 8
    assert logits.shape == (1, 4)


@pytest.mark.parametrize("backbone", SMALL)
def test_logits_are_the_mean_of_the_deepest_tap_through_the_classifier(backbone: str) -> None:
    net, images = small(backbone).eval(), torch.rand(2, 3, 32, 40)

    with torch.no_grad():
        taps, logits = net.tapped(images)

        torch.testing.assert_close(net(images), logits)
        torch.testing.assert_close(taps[-1].mean(dim=(2, 3)) @ net.fc8.weight.flatten(1).T, logits)


@pytest.mark.parametrize("backbone", ["resnet18", "tf_efficientnet_lite0"])
def test_what_is_classified_is_never_negative(backbone: str) -> None:
    net = small(backbone).train()
    images = torch.rand(2, 3, 64, 64)

    assert net.taps(images)[-1].min() == 0
    # The last stage of light encoders ends with a projection, which makes values of either sign.
    assert isinstance(net, EncoderClassifier)
    assert (net.encoder(images)[-1].min() < 0) == (backbone != "resnet18")


@pytest.mark.parametrize("backbone", SMALL)
def test_frozen_networks_keep_their_norms_and_first_layers(backbone: str) -> None:
    net = small(backbone)
    net.freeze()
    before = copy.deepcopy(net.state_dict())
    early = {name for name, value in net.named_parameters() if not value.requires_grad}

    one_update(net)

    assert not any(norm.training for norm in norms(net))
    assert net.dropout7.training
    kinds = dict(net.named_modules())
    held = {name for name in before if isinstance(kinds[name.rpartition(".")[0]], nn.BatchNorm2d)} | early
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == set(before) - held


def test_the_first_layers_of_resnet38d_are_frozen_down_to_half_the_resolution() -> None:
    net = small("resnet38d")
    net.freeze()
    frozen = {name for name, value in net.named_parameters() if not value.requires_grad and "bn" not in name}

    assert {name.partition(".")[0] for name in frozen} == {"conv1a", "b2", "b2_1", "b2_2"}


def test_the_first_layers_of_an_encoder_are_found_without_their_names() -> None:
    net = small("resnet18")
    net.freeze()
    net.freeze()
    held = {id(value) for norm in norms(net) for value in norm.parameters()}

    frozen = {name for name, value in net.named_parameters() if not value.requires_grad and id(value) not in held}
    assert frozen == {"encoder.features.conv1.weight"}
    assert all(norm.num_batches_tracked == 0 for norm in norms(net))


def test_encoders_see_colours_as_their_published_weights_did() -> None:
    encoder = Encoder("tf_efficientnet_lite0", output_stride=16).eval()
    images = torch.rand(1, 3, 64, 64)

    for found, expected in zip(encoder(images), encoder.features(images * 2 - 1), strict=True):
        torch.testing.assert_close(found, expected)
    assert not {"mean", "std"} & set(encoder.state_dict())


@pytest.mark.parametrize("backbone", SMALL)
def test_random_networks_learn_everywhere(backbone: str) -> None:
    net = small(backbone)
    before = copy.deepcopy(net.state_dict())

    one_update(net)

    assert all(norm.training for norm in norms(net))
    assert [name for name, value in net.state_dict().items() if torch.equal(value, before[name])] == []


def test_evaluation_and_training_can_be_chained() -> None:
    net = small("resnet38d")

    assert net.eval().train() is net


def test_an_encoder_that_cannot_dilate_keeps_its_own_stride() -> None:
    net = build_classifier("densenet121", 2)

    assert net.stride == 32


def test_an_encoder_dilates_to_the_stride_that_is_asked_for() -> None:
    net = build_classifier("resnet18", 2, output_stride=16)

    assert net.stride == 16
    assert net.tap_names == ("layer2", "layer3", "layer4")


def test_unknown_backbones_are_named_with_what_was_meant() -> None:
    with pytest.raises(MethodError, match=r"no encoder 'resnt18'\. Did you mean resnet18"):
        build_classifier("resnt18", 4)


def test_resnet38d_has_no_weights_to_download() -> None:
    with pytest.raises(MethodError, match=r"no weights of resnet38d.*--set options\.init_segmenter=imagenet"):
        build_classifier("resnet38d", 4, weights="imagenet")


def test_weights_that_cannot_be_downloaded_give_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    create = timm.create_model

    def offline(name: str, *, pretrained: bool, features_only: bool, output_stride: int) -> object:
        if pretrained:
            raise ConnectionError("no route to host")
        return create(name, features_only=features_only, output_stride=output_stride)

    monkeypatch.setattr(timm, "create_model", offline)

    with pytest.raises(MethodError, match=r"resnet18 cannot be had \(no route to host\)"):
        build_classifier("resnet18", 4, weights="imagenet")
