"""DeepLabV3 is DeepLabV3+ without its decoder: the same pyramid under a classifier of single positions."""

from __future__ import annotations

import pytest
import torch

from wsiseg.nets.deeplab import build_deeplab
from wsiseg.nets.deeplabv3 import DeepLabV3
from wsiseg.nets.gated import GatedSpec, build_gated


def network() -> DeepLabV3:
    torch.manual_seed(0)
    return DeepLabV3(build_deeplab("resnet18", 3, output_stride=8), 3).eval()


def test_it_sees_an_eighth_of_the_resolution_with_the_published_shapes() -> None:
    with torch.device("meta"):
        net = DeepLabV3(build_deeplab("resnet101", 4, output_stride=8), 4)
        found = net.decoded(torch.zeros(2, 3, 224, 224))

    assert net.stride == 8
    assert found.features.shape == (2, 256, 28, 28)
    assert found.coarse.shape == (2, 4, 28, 28)
    assert found.logits.shape == (2, 4, 224, 224)
    assert not any(name.startswith("decoder") for name, _ in net.named_parameters())


@pytest.mark.parametrize("size", [(96, 128), (65, 50)])
def test_the_output_has_the_size_of_the_input(size: tuple[int, int]) -> None:
    with torch.no_grad():
        assert network()(torch.rand(1, 3, *size)).shape == (1, 3, *size)


def test_logits_follow_from_the_features_one_by_one() -> None:
    net = network()
    with torch.no_grad():
        found = net.decoded(torch.rand(2, 3, 64, 64))
        weights = dict(net.classifier.named_parameters())
        each = torch.einsum("bdhw,cd->bchw", found.features, weights["weight"][:, :, 0, 0])

    torch.testing.assert_close(found.coarse, each + weights["bias"][None, :, None, None])
    # Corners of the output are corners of what it is made from.
    torch.testing.assert_close(found.logits[..., 0, -1], found.coarse[..., 0, -1])


def test_a_description_without_a_decoder_makes_it() -> None:
    spec = GatedSpec(backbone="resnet18", output_stride=8, decoder="none", classifier=None)

    assert isinstance(build_gated(spec, 3).segmenter, DeepLabV3)
    # Models of before the choice go on as they were.
    described = {name: value for name, value in spec.model_dump().items() if name != "decoder"}
    assert GatedSpec.model_validate(described).decoder == "v3plus"
