"""Tests of networks of a classifier and what it lets through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from wsiseg.checkpoint import ModelCard, Normalisation
from wsiseg.labels import LabelMap
from wsiseg.methods.predictor import NetPredictor, load_predictor
from wsiseg.nets.factory import build_described
from wsiseg.nets.gated import CAM, GATED, ActivationMaps, GatedDeepLab
from wsiseg.nets.taps import TapClassifier

if TYPE_CHECKING:
    from pathlib import Path

CLASSIFIER = {"arch": CAM, "backbone": "resnet18", "output_stride": 16, "threshold": 0.25}
PAIR = {"arch": GATED, "backbone": "resnet18", "output_stride": 16, "classifier": CLASSIFIER, "epsilon": 0.1}


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand((2, 3, 64, 96), generator=torch.Generator().manual_seed(0))


def test_activation_maps_share_pixels_out_by_what_is_seen(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    net = build_described(CLASSIFIER, 3, 3).eval()
    assert isinstance(net, ActivationMaps)
    with torch.inference_mode():
        # Class 1 is certain and class 2 is certainly absent, whatever their activation.
        net.classifier.fc8.weight[1] = net.classifier.fc8.weight[1].abs()
        net.classifier.fc8.weight[2] = -net.classifier.fc8.weight[1]
        shares = net(images).softmax(dim=1)
    assert shares.shape == (2, 3, 64, 96)
    assert torch.isfinite(shares).all()
    assert (shares[:, 2] < 1e-3).all()
    assert (shares.argmax(dim=1) == 1).any()


def test_where_nothing_is_seen_the_most_probable_class_is_the_guess(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    net = build_described(CLASSIFIER, 3, 3).eval()
    assert isinstance(net, ActivationMaps)
    with torch.inference_mode():
        net.classifier.fc8.weight[:] = (
            -net.classifier.fc8.weight.abs() * torch.tensor([3.0, 1.0, 2.0])[:, None, None, None]
        )
        assert (net(images).argmax(dim=1) == 1).all()


@pytest.mark.parametrize(("changes", "threshold"), [({}, 0.25), ({"threshold": 0.6}, 0.6)])
def test_classes_up_to_the_threshold_have_no_map(
    changes: dict[str, float], threshold: float, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = {key: value for key, value in CLASSIFIER.items() if key != "threshold"}
    net = build_described({**described, **changes}, 3, 3).eval()
    assert isinstance(net, ActivationMaps)
    net.classifier.fc8.weight.data.fill_(1)
    features = torch.ones(2, net.classifier.fc8.in_channels, 4, 6)
    # All classes are seen alike; the first and the last are certain.
    prob = torch.tensor([[0.99, threshold - 0.01, 0.99], [0.99, threshold + 0.01, 0.99]])
    monkeypatch.setattr(net.classifier, "tapped", lambda _: ((features,) * 3, prob.logit()))

    with torch.inference_mode():
        shares = net(images).softmax(dim=1)

    expected = torch.tensor([[1 / 2, 0, 1 / 2], [1 / 3, 1 / 3, 1 / 3]])[:, :, None, None].expand_as(shares)
    torch.testing.assert_close(shares, expected, rtol=0, atol=1e-4)


def test_a_pair_shuts_out_what_its_classifier_does_not_see(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    net = build_described(PAIR, 3, 3).eval()
    assert isinstance(net, GatedDeepLab)
    assert isinstance(net.classifier, TapClassifier)
    with torch.inference_mode():
        net.classifier.fc8.weight[:] = net.classifier.fc8.weight.abs()
        net.classifier.fc8.weight[0] *= -100
        prob = net(images).softmax(dim=1)
        free = net.segmenter(images).softmax(dim=1)
    assert (prob[:, 0] == 0).all()
    torch.testing.assert_close(prob[:, 1:], free[:, 1:] / free[:, 1:].sum(dim=1, keepdim=True))


def test_without_a_classifier_there_is_no_gate(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    net = build_described({**PAIR, "classifier": None}, 3, 3).eval()
    assert isinstance(net, GatedDeepLab)
    with torch.inference_mode():
        torch.testing.assert_close(net(images), net.segmenter(images))


def test_a_pair_has_the_stride_of_its_segmenter() -> None:
    strides = {stride: build_described({**PAIR, "output_stride": stride}, 3, 3).stride for stride in (8, 16)}

    assert strides == {8: 8, 16: 16}


def test_a_gate_can_be_left_out_of_a_trained_model(images: torch.Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build_described(PAIR, 3, 3)
    assert isinstance(net, GatedDeepLab)
    assert isinstance(net.classifier, TapClassifier)
    # Class 2 is certainly absent.
    net.classifier.fc8.weight.data[2] = -net.classifier.fc8.weight.data[2].abs() * 100
    card = ModelCard(
        name="pair",
        task="semantic",
        labels=LabelMap.from_names(("a", "b", "c")),
        tile_px=64,
        halo_px=0,
        net=dict(PAIR),
        normalisation=Normalisation.none(),
    )
    NetPredictor(card, net).save(tmp_path / "pair", metrics={})
    shown = (images * 255).to(torch.uint8)

    with torch.inference_mode():
        shut, free = (load_predictor(tmp_path / "pair", has_gate=gate).forward(shown) for gate in (True, False))
        torch.testing.assert_close(free, net.segmenter(shown / 255).softmax(dim=1), rtol=1e-4, atol=1e-5)
    assert (shut[:, 2] == 0).all()
    assert (free[:, 2] > 0).all()
