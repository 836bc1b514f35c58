"""Presets hold the published numbers, and every parameter that learns is in one group."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wsiseg.methods.mlps_presets import PRESETS, PresetName, SgdSettings, parameter_groups
from wsiseg.nets.deeplab import build_deeplab
from wsiseg.nets.resnet38d import ResNet38d

NAMES: tuple[PresetName, ...] = ("paper", "official-code")


def groups_of(module: nn.Module, settings: SgdSettings) -> tuple[set[str], set[str]]:
    """Return the names of the slow and of the fast parameters."""
    names = {id(value): name for name, value in module.named_parameters()}
    slow, fast = parameter_groups(module, settings)
    return {names[id(value)] for value in slow["params"]}, {names[id(value)] for value in fast["params"]}


def test_the_classifier_learns_ten_times_as_fast_as_its_trunk() -> None:
    net = ResNet38d(4, width=1)
    net.freeze()

    slow, fast = groups_of(net, PRESETS["paper"].classify)

    assert fast == {"fc8.weight"}
    assert slow | fast == {name for name, value in net.named_parameters() if value.requires_grad}


def test_all_that_is_no_backbone_learns_ten_times_as_fast() -> None:
    with torch.device("meta"):
        net = build_deeplab("resnet101", 4)

    slow, fast = groups_of(net, PRESETS["paper"].segment)

    assert {name.partition(".")[0] for name in slow} == {"backbone"}
    assert {name.partition(".")[0] for name in fast} == {"aspp", "decoder"}
    assert len(slow) + len(fast) == len(list(net.parameters()))


@pytest.mark.parametrize("name", NAMES)
def test_groups_differ_by_ten_and_share_their_decay(name: PresetName) -> None:
    preset = PRESETS[name]

    for settings in (preset.classify, preset.segment):
        slow, fast = parameter_groups(ResNet38d(4, width=1), settings)
        assert fast["lr"] == pytest.approx(10 * slow["lr"])
        assert fast["weight_decay"] == slow["weight_decay"] == settings.weight_decay
        optimiser = torch.optim.SGD([dict(slow), dict(fast)], momentum=settings.momentum)
        assert [group["lr"] for group in optimiser.param_groups] == [slow["lr"], fast["lr"]]


def test_presets_train_the_segmentation_alike_at_their_batch() -> None:
    paper, code = PRESETS["paper"].segment, PRESETS["official-code"].segment

    # A loss divided by 20, with 20 times the rate and a twentieth of the decay, moves weights the same way.
    assert paper.batch_images == code.batch_images == 20
    assert paper.lr * 20 == pytest.approx(code.lr)
    assert paper.lr * paper.weight_decay == pytest.approx(code.lr * code.weight_decay)


@pytest.mark.parametrize(
    ("name", "fourth", "twentieth", "hundredth"),
    [("paper", 0.985, 0.7734, 0.65), ("official-code", 0.9412, 0.6812, 0.6412)],
)
def test_dropout_attention_is_scheduled_as_published(
    name: PresetName, fourth: float, twentieth: float, hundredth: float
) -> None:
    mu = PRESETS[name].attention.mu

    assert [mu(epoch) for epoch in (1, 2, 3)] == [None] * 3
    assert [mu(epoch) for epoch in (4, 20, 100)] == pytest.approx([fourth, twentieth, hundredth], abs=5e-5)
