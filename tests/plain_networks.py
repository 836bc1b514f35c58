"""Published networks as plain functions of images and named weights, layer by layer, as their papers draw them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    Weights = Mapping[str, Tensor]

# Blocks of ResNet-38d, shallow to deep: name, stride, dilations of its two convolutions.
BLOCKS = (
    *(("b2", 2, (1, 1)), ("b2_1", 1, (1, 1)), ("b2_2", 1, (1, 1))),
    *(("b3", 2, (1, 1)), ("b3_1", 1, (1, 1)), ("b3_2", 1, (1, 1))),
    *(("b4", 2, (1, 1)), ("b4_1", 1, (1, 1)), ("b4_2", 1, (1, 1)), ("b4_3", 1, (1, 1)), ("b4_4", 1, (1, 1))),
    *(("b4_5", 1, (1, 1)), ("b5", 1, (1, 2)), ("b5_1", 1, (2, 2)), ("b5_2", 1, (2, 2))),
)


def scramble(net: nn.Module) -> None:
    """Give all weights and averages random values of both signs; averages of squares stay positive."""
    generator = torch.Generator().manual_seed(0)
    for name, value in net.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
        elif value.is_floating_point():
            scale = value[0].numel() ** -0.5 if value.ndim > 1 else 1.0
            value.normal_(0, scale, generator=generator)


def resnet38d(images: Tensor, weights: Weights, *, is_training: bool) -> tuple[dict[str, Tensor], Tensor]:
    """Return the features by the name of their layer, and the logits; norms use their averages in training, too."""
    features: dict[str, Tensor] = {}
    x = functional.conv2d(images, weights["conv1a.weight"], padding=1)
    for name, stride, (first, second) in BLOCKS:
        active = functional.relu(_norm(x, weights, f"{name}.bn_branch2a"))
        branch = functional.conv2d(
            active, weights[f"{name}.conv_branch2a.weight"], stride=stride, padding=first, dilation=first
        )
        branch = functional.relu(_norm(branch, weights, f"{name}.bn_branch2b1"))
        branch = functional.conv2d(branch, weights[f"{name}.conv_branch2b1.weight"], padding=second, dilation=second)
        if f"{name}.conv_branch1.weight" in weights:
            x = functional.conv2d(active, weights[f"{name}.conv_branch1.weight"], stride=stride)
        x = features[name] = x + branch
    for name, dropout in (("b6", 0.3), ("b7", 0.5)):
        active = functional.relu(_norm(x, weights, f"{name}.bn_branch2a"))
        branch = functional.conv2d(active, weights[f"{name}.conv_branch2a.weight"])
        branch = functional.relu(_norm(branch, weights, f"{name}.bn_branch2b1"))
        branch = functional.dropout2d(branch, dropout, training=is_training)
        branch = functional.conv2d(branch, weights[f"{name}.conv_branch2b1.weight"], padding=4, dilation=4)
        branch = functional.relu(_norm(branch, weights, f"{name}.bn_branch2b2"))
        branch = functional.dropout2d(branch, dropout, training=is_training)
        branch = functional.conv2d(branch, weights[f"{name}.conv_branch2b2.weight"])
        x = features[name] = branch + functional.conv2d(active, weights[f"{name}.conv_branch1.weight"])
    deepest = features["bn7"] = functional.relu(_norm(x, weights, "bn7"))
    pooled = functional.dropout2d(deepest, 0.5, training=is_training).mean(dim=(2, 3))
    return features, pooled @ weights["fc8.weight"].flatten(1).T


def deeplab(
    low: Tensor, deep: Tensor, size: tuple[int, int], weights: Weights, *, is_training: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return features, logits and enlarged logits of DeepLabV3+ at output stride 16, from those of its backbone."""
    ranges = [functional.conv2d(deep, weights["aspp.aspp1.atrous_conv.weight"])] + [
        functional.conv2d(deep, weights[f"aspp.aspp{n}.atrous_conv.weight"], padding=rate, dilation=rate)
        for n, rate in ((2, 6), (3, 12), (4, 18))
    ]
    ranges = [functional.relu(_norm(x, weights, f"aspp.aspp{n}.bn")) for n, x in enumerate(ranges, start=1)]
    whole = functional.conv2d(deep.mean(dim=(2, 3), keepdim=True), weights["aspp.global_avg_pool.1.weight"])
    whole = functional.relu(_norm(whole, weights, "aspp.global_avg_pool.2")).expand_as(ranges[0])
    x = functional.conv2d(torch.cat([*ranges, whole], dim=1), weights["aspp.conv1.weight"])
    x = functional.dropout(functional.relu(_norm(x, weights, "aspp.bn1")), 0.5, training=is_training)
    narrow = functional.relu(_norm(functional.conv2d(low, weights["decoder.conv1.weight"]), weights, "decoder.bn1"))
    x = torch.cat([_enlarged(x, (low.shape[2], low.shape[3])), narrow], dim=1)
    x = functional.conv2d(x, weights["decoder.last_conv.0.weight"], padding=1)
    x = functional.dropout(functional.relu(_norm(x, weights, "decoder.last_conv.1")), 0.5, training=is_training)
    x = functional.conv2d(x, weights["decoder.last_conv.4.weight"], padding=1)
    features = functional.relu(_norm(x, weights, "decoder.last_conv.5"))
    x = functional.dropout(features, 0.1, training=is_training)
    coarse = functional.conv2d(x, weights["decoder.last_conv.8.weight"], weights["decoder.last_conv.8.bias"])
    return features, coarse, _enlarged(coarse, size)


def _norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    mean, var, scale, shift = (
        weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * scale + shift


def _enlarged(x: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=True)
