"""Presets hold the published numbers; new layers learn ten times as fast as those trained before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from wsiseg.methods.mlps_presets import PRESETS, PresetName
from wsiseg.nets.deeplab import build_deeplab
from wsiseg.nets.resnet38d import ResNet38d

if TYPE_CHECKING:
    from torch import nn

    from wsiseg.methods.sgd import SgdSettings

NAMES: tuple[PresetName, ...] = ("paper", "official-code")


def parts_by_rate(net: nn.Module, settings: SgdSettings) -> dict[float, set[str]]:
    """Return the parts of a network that learn at each rate, as multiples of the slowest."""
    parts: dict[float, set[str]] = {}
    for name, _ in net.named_parameters():
        parts.setdefault(settings.rate_of(name), set()).add(name.partition(".")[0])
    return parts


@pytest.mark.parametrize("name", NAMES)
def test_the_classifier_learns_ten_times_as_fast_as_its_trunk(name: PresetName) -> None:
    parts = parts_by_rate(ResNet38d(4, width=1), PRESETS[name].classify)

    assert set(parts) == {1, 10}
    assert parts[10] == {"fc8"}


@pytest.mark.parametrize("name", NAMES)
def test_all_that_is_no_backbone_learns_ten_times_as_fast(name: PresetName) -> None:
    with torch.device("meta"):
        net = build_deeplab("resnet101", 4)

    assert parts_by_rate(net, PRESETS[name].segment) == {1: {"backbone"}, 10: {"aspp", "decoder"}}


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
