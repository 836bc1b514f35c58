"""Mask R-CNN learns from what is known, says what it finds in maps, and begins with weights of torchvision."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from tests.nuclei_makers import aji, ellipses
from wsiseg.errors import DataError, MethodError
from wsiseg.heads.registry import make_head
from wsiseg.initial_weights import initialise, read_weights
from wsiseg.nets.detection_losses import Truth
from wsiseg.nets.maskrcnn import MaskRCNN, MaskRCNNSpec, build_maskrcnn, detection_maps

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SMALL = MaskRCNNSpec(encoder="resnet18", width=16)


def small(**settings: object) -> MaskRCNN:
    torch.manual_seed(0)
    return build_maskrcnn(SMALL.model_copy(update=settings))


def known(labels: Tensor) -> Tensor:
    return torch.ones(labels.shape, dtype=torch.bool)


@pytest.mark.parametrize("seed", range(3))
def test_nuclei_that_are_detected_as_they_are_come_back(seed: int) -> None:
    labels = ellipses(24, 128, seed=seed, radii=(4.5, 14))
    truth = Truth.of(torch.from_numpy(labels), known(torch.from_numpy(labels)))
    masks = project_masks_on_boxes(truth.masks, truth.boxes, torch.arange(len(truth.boxes)), 28)
    scores = np.random.default_rng(seed).uniform(0.5, 1, len(masks)).astype(np.float32)

    maps = detection_maps(truth.boxes.numpy(), masks[:, None].numpy(), scores, height=128, width=128)

    found = make_head("centre").decode(maps)
    assert aji(found.labels, labels) > 0.97
    assert sorted(found.scores) == pytest.approx(sorted(scores.clip(max=0.999)), abs=1e-5)


def test_twenty_nuclei_give_finite_losses_and_no_gradient_where_nothing_is_known() -> None:
    net = small()
    labels = torch.from_numpy(ellipses(20, 96, seed=1))[None]
    assert labels.max() == 20
    features = net.features(torch.randn(1, 3, 96, 96))

    losses = net.losses(features, labels, known(labels))
    nothing = net.losses(features, labels, ~known(labels))

    assert set(losses) == {"objectness", "proposal", "class", "box", "mask"}
    assert all(torch.isfinite(value) and value > 0 for value in losses.values())
    assert all(value == 0 for value in nothing.values())
    torch.autograd.backward(sum(nothing.values(), start=torch.zeros(())))
    heads = [*net.rpn.parameters(), *net.roi_heads.parameters()]
    assert all(value.grad is not None and not value.grad.any() for value in heads)


def peak_bytes() -> int:
    """Return the most memory that a process has held once the network as published has learnt from 20 nuclei."""
    net = build_maskrcnn(MaskRCNNSpec(trained_stages=0))
    learning = [value for value in net.parameters() if value.requires_grad]
    optimiser = torch.optim.SGD(learning, lr=0.005, momentum=0.9, weight_decay=1e-4)
    labels = torch.from_numpy(ellipses(20, 256, seed=1, radii=(8, 12)))[None]
    assert labels.max() == 20

    losses = net.losses(net.features(torch.randn(1, 3, 256, 256)), labels, known(labels))
    torch.autograd.backward(sum(losses.values(), start=torch.zeros(())))
    optimiser.step()

    assert all(torch.isfinite(value) for value in losses.values())
    assert all(torch.isfinite(value).all() for value in learning)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.slow
def test_a_step_of_the_network_as_published_takes_less_than_four_gigabytes() -> None:
    # A process of its own, as others may have held more before.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak = pool.apply(peak_bytes)

    # The weights, their gradients and their momentum alone.
    assert 0.3e9 < peak < 4e9


def test_an_image_without_nuclei_has_an_empty_table_and_can_be_learnt_from() -> None:
    net = small()
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    nuclei = torch.from_numpy(ellipses(9, 64, seed=1, radii=(4, 7)))[None]
    image = torch.where(nuclei > 0, -1.0, 1.0)[:, None].expand(1, 3, 64, 64)
    blank, none = torch.ones_like(image), torch.zeros_like(nuclei)
    both, labels = torch.cat((image, blank)), torch.cat((nuclei, none))

    def found() -> list[int]:
        with torch.inference_mode():
            maps = net.eval()(both)
        net.train()
        assert maps.shape == (2, 3, 64, 64)
        return [len(make_head("centre").decode(one.numpy())) for one in maps]

    of_nothing = net.losses(net.features(blank), none, known(none))
    # Networks that have learnt nothing find something everywhere.
    assert min(found()) > 0
    for _ in range(30):
        adam.zero_grad()
        losses = net.losses(net.features(both), labels, known(labels))
        torch.autograd.backward(sum(losses.values(), start=torch.zeros(())))
        adam.step()

    assert all(torch.isfinite(value) for value in of_nothing.values())
    assert of_nothing["mask"] == of_nothing["box"] == of_nothing["proposal"] == 0
    in_image, in_blank = found()
    assert in_image > 0
    assert in_blank == 0


def test_what_is_not_known_is_neither_an_object_nor_background() -> None:
    labels = torch.zeros(32, 32, dtype=torch.int32)
    labels[4:10, 2:8], labels[4:10, 14:20], labels[20:24, 24:30] = 7, 3, 9
    valid = known(labels)
    valid[:, 16:] = False

    truth = Truth.of(labels, valid)

    # Who is seen in part keeps its shape.
    assert truth.boxes.tolist() == [[13.5, 3.5, 19.5, 9.5], [1.5, 3.5, 7.5, 9.5]]
    assert truth.masks.sum(dim=(1, 2)).tolist() == [36, 36]
    boxes = torch.tensor([[0, 0, 9, 9], [12, 0, 19, 9], [13, 0, 20, 9], [20, 2, 90, 9], [-9, -9, -2, -2]]) - 0.5
    assert truth.without_unknown(torch.zeros(5), boxes).tolist() == [0, 0, -1, -1, 0]
    assert truth.without_unknown(torch.ones(5), boxes).tolist() == [1] * 5


def test_stages_that_do_not_learn_stay_as_they_are() -> None:
    net = small(trained_stages=3)
    body = net.backbone.body
    before = {name: value.clone() for name, value in body.named_buffers()}

    net.train().features(torch.randn(2, 3, 64, 64))

    learning = {name.partition(".")[0] for name, value in body.named_parameters() if value.requires_grad}
    assert learning == {"layer2", "layer3", "layer4"}
    changed = {name.partition(".")[0] for name, value in body.named_buffers() if not torch.equal(before[name], value)}
    assert changed == learning
    assert all(value.requires_grad for value in small().parameters())


def test_anchors_lie_on_whole_pixels_in_any_precision() -> None:
    net = small().eval()
    seen: list[Tensor] = []
    net.rpn.anchor_generator.register_forward_hook(lambda *args: seen.extend(args[-1]))

    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        maps = net(torch.zeros(1, 3, 32, 544))

    assert maps.dtype == torch.float32
    assert seen[0].dtype == torch.float32
    # Of the finest level, whose stride is 4.
    assert seen[0][: 3 * 136 : 3, 0].tolist() == [4 * at - 6 for at in range(136)]


@pytest.mark.slow
def test_compilers_leave_detections_alone() -> None:
    net = small().eval()
    images = torch.randn(2, 1, 3, 64, 64)
    compiled = torch.compile(net.forward)

    with torch.inference_mode():
        for image in images:
            torch.testing.assert_close(compiled(image), net(image), rtol=1e-4, atol=1e-4)


def test_more_proposals_overlap_in_training() -> None:
    net = small()

    assert (net.train().rpn.nms_thresh, net.eval().rpn.nms_thresh) == (0.9, 0.7)


def old_name(name: str) -> str:
    """Return the name that torchvision gave to a parameter at first."""
    parts = name.split(".")
    if "fpn" in parts:
        return ".".join((*parts[:4], parts[-1]))
    if name.startswith("rpn.head.conv"):
        return f"rpn.head.conv.{parts[-1]}"
    if "mask_head" in parts:
        return f"roi_heads.mask_head.mask_fcn{int(parts[2]) + 1}.{parts[-1]}"
    return name


@pytest.mark.parametrize("rename", [str, old_name])
def test_it_begins_with_weights_of_another_number_of_classes(rename: type[str], tmp_path: Path) -> None:
    torch.manual_seed(1)
    published = detection.MaskRCNN(resnet_fpn_backbone(backbone_name="resnet18", weights=None), 91)
    torch.save({rename(name): value for name, value in published.state_dict().items()}, tmp_path / "coco.pth")
    net = small(width=256)

    report = initialise(net, read_weights(tmp_path / "coco.pth"), where=tmp_path / "coco.pth")

    assert report.missing == report.unexpected == ()
    own = ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
    assert set(report.misshapen) == {f"roi_heads.{name}.{value}" for name in own for value in ("weight", "bias")}
    theirs = published.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in net.state_dict().items() if name in report.loaded)


def test_a_torchvision_that_is_not_there_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)

    with pytest.raises(MethodError, match="Install torch and torchvision of the same release"):
        build_maskrcnn(SMALL)


def test_weights_that_cannot_be_had_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    known = models.get_model

    def offline(name: str, *, weights: str | None) -> nn.Module:
        if weights is not None:
            raise OSError("no route to host")
        net: nn.Module = known(name, weights=None)
        return net

    monkeypatch.setattr(models, "get_model", offline)

    with pytest.raises(MethodError, match=r"of the encoder resnet18 cannot be had \(no route to host\)"):
        small(encoder_weights="imagenet")


def test_it_begins_with_weights_of_a_classifier(tmp_path: Path) -> None:
    torch.save(models.resnet18(weights=None).state_dict(), tmp_path / "18.pth")
    torch.save(models.resnet34(weights=None).state_dict(), tmp_path / "34.pth")

    report = initialise(small(), read_weights(tmp_path / "18.pth"), where=tmp_path)

    assert all(name.startswith("backbone.body.") for name in report.loaded)
    assert {name.removeprefix("fc.") for name in report.unexpected} == {"weight", "bias"}
    with pytest.raises(DataError, match="Check that the file was made for the same backbone"):
        initialise(build_maskrcnn(MaskRCNNSpec(width=16)), read_weights(tmp_path / "18.pth"), where=tmp_path)
