"""Mask R-CNN finds objects and learns with the published numbers, unless told."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wsiseg.config import load
from wsiseg.methods.label_efficient import METHOD, LabelEfficientOptions
from wsiseg.methods.supervised import SupervisedOptions, usual
from wsiseg.nets.maskrcnn import MaskRCNN, MaskRCNNSpec, build_maskrcnn
from wsiseg.training.settings import FitSettings


@pytest.fixture(scope="module")
def net() -> MaskRCNN:
    """Return the network without numbers for its weights."""
    with torch.device("meta"):
        return build_maskrcnn(MaskRCNNSpec(trained_stages=0))


def test_proposals_are_those_of_the_published_network(net: MaskRCNN) -> None:
    rpn = net.rpn

    assert rpn.anchor_generator.sizes == ((8,), (16,), (32,), (64,), (128,))
    assert rpn.anchor_generator.aspect_ratios == ((0.5, 1.0, 2.0),) * 5
    assert (rpn.fg_bg_sampler.batch_size_per_image, rpn.fg_bg_sampler.positive_fraction) == (64, 0.5)
    assert (rpn.proposal_matcher.high_threshold, rpn.proposal_matcher.low_threshold) == (0.7, 0.3)
    # The best anchor of each object is one of its own, however little they overlap.
    assert rpn.proposal_matcher.allow_low_quality_matches
    # Of each level; published are 6000 of all five.
    assert rpn._pre_nms_top_n == {"training": 2000, "testing": 2000}
    assert rpn._post_nms_top_n == {"training": 1000, "testing": 2000}
    assert (net.train().rpn.nms_thresh, net.eval().rpn.nms_thresh) == (0.9, 0.7)


def test_objects_are_judged_as_by_the_published_network(net: MaskRCNN) -> None:
    heads = net.roi_heads

    assert (heads.fg_bg_sampler.batch_size_per_image, heads.fg_bg_sampler.positive_fraction) == (500, 0.33)
    assert (heads.proposal_matcher.high_threshold, heads.proposal_matcher.low_threshold) == (0.5, 0.5)
    assert (heads.nms_thresh, heads.detections_per_img) == (0.3, 1000)
    # Standard deviations of 0.1 for places, and of 0.2 for sizes.
    assert heads.box_coder.weights == (10.0, 10.0, 5.0, 5.0)
    assert (heads.box_roi_pool.output_size, heads.mask_roi_pool.output_size) == ((7, 7), (14, 14))
    assert [layer.out_features for layer in (heads.box_head.fc6, heads.box_head.fc7)] == [1024, 1024]
    # Background and nucleus.
    assert heads.box_predictor.cls_score.out_features == 2
    convolutions = [part for part in heads.mask_head.modules() if isinstance(part, nn.Conv2d)]
    assert [(part.in_channels, part.out_channels) for part in convolutions] == [(256, 256)] * 4
    enlarging = heads.mask_predictor.conv5_mask
    # From 14 × 14 to 28 × 28.
    assert (enlarging.in_channels, enlarging.out_channels, enlarging.stride) == (256, 256, (2, 2))


def test_the_backbone_is_a_resnet_50_that_does_not_learn(net: MaskRCNN) -> None:
    body = net.backbone.body

    assert [len(body[name]) for name in ("layer1", "layer2", "layer3", "layer4")] == [3, 4, 6, 3]
    assert not any(value.requires_grad for value in body.parameters())
    assert all(
        value.requires_grad for part in (net.backbone.fpn, net.rpn, net.roi_heads) for value in part.parameters()
    )
    assert net.backbone.out_channels == 256


@pytest.mark.parametrize("options", [SupervisedOptions, LabelEfficientOptions])
def test_it_learns_by_the_published_schedule(options: type[SupervisedOptions | LabelEfficientOptions]) -> None:
    settings = dict(usual(load(options, options={"arch": "maskrcnn"})))

    fit = FitSettings(**settings.pop("fit"))
    assert settings == {"batch_size": 6}
    assert (fit.optimiser, fit.lr, fit.momentum, fit.weight_decay, fit.clip_norm) == ("sgd", 0.005, 0.9, 1e-4, 5.0)
    # The same rate from the first step to the last, of 250 rounds of 20.
    assert (fit.schedule, fit.step_factor, fit.warmup, fit.steps) == ("step", 1.0, 0.0, 5000)


def test_one_student_learns_what_its_teacher_is_half_sure_of() -> None:
    options = load(LabelEfficientOptions)

    assert (options.rounds, options.pseudo.min_score) == (1, 0.5)
    assert [stage.name for stage in METHOD.stages(options)] == ["teacher", "student-1"]
