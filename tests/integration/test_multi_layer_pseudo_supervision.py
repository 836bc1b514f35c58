"""From what patches show to where they show it: the building blocks fit together and can learn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from wsiseg.cam import grad_cam, pseudo_masks
from wsiseg.losses.pseudo import multi_layer
from wsiseg.methods.mlps_presets import PRESETS
from wsiseg.nets.classifiers import build_classifier
from wsiseg.nets.deeplab import build_deeplab

SIDE = 32


def textured_patches() -> tuple[Tensor, Tensor]:
    """Return 8 patches (8, 3, 32, 32) whose left and right halves are of one or two of 4 textures, and their labels."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    stripes = torch.stack([(x // 2) % 2, (y // 2) % 2, ((x + y) // 4) % 2, (x // 8 + y // 8) % 2]).float()
    colours = torch.tensor([[0.8, 0.3, 0.5], [0.3, 0.2, 0.7], [0.9, 0.7, 0.8], [0.5, 0.6, 0.3]])
    textures = colours[:, :, None, None] * (0.6 + 0.4 * stripes[:, None])
    images, labels = [], []
    for first, second in [(0, 0), (1, 1), (2, 2), (3, 3), (0, 1), (1, 2), (2, 3), (3, 0)]:
        image = torch.where(x < SIDE // 2, textures[first], textures[second])
        images.append((image + 0.03 * torch.randn(image.shape, generator=generator)).clamp(0, 1))
        labels.append(functional.one_hot(torch.tensor([first, second]), 4).amax(dim=0))
    return torch.stack(images), torch.stack(labels).bool()


def follow_at_once(net: nn.Module) -> None:
    """Let running averages catch up within a few batches."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.5


@pytest.mark.slow
def test_networks_learn_what_patches_show_and_then_where() -> None:
    torch.manual_seed(0)
    images, present = textured_patches()
    preset = PRESETS["paper"]

    classifier = build_classifier("resnet18", 4)
    follow_at_once(classifier)
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=1e-3)
    for step in range(30):
        epoch = 1 + step // 3
        logits = classifier.train()(images, mu=preset.attention.mu(epoch))
        optimiser.zero_grad()
        torch.autograd.backward(functional.multilabel_soft_margin_loss(logits, present.float()))
        optimiser.step()
    with torch.no_grad():
        seen = classifier.eval()(images).sigmoid() > 0.5
    assert seen.equal(present)

    maps = grad_cam(classifier.tapped, images)
    masks = {
        name: pseudo_masks(planes, present, (SIDE, SIDE)).long()
        for name, planes in zip(classifier.tap_names, maps, strict=True)
    }
    for mask in masks.values():
        assert all(present[n, mask[n]].all() for n in range(8))

    net = build_deeplab("resnet18", 4)
    follow_at_once(net)
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for _ in range(40):
        optimiser.zero_grad()
        losses = multi_layer(net.train()(images), masks, weights=preset.layer_weights)
        torch.autograd.backward(losses["loss"])
        optimiser.step()
    with torch.no_grad():
        found = net.eval()(images).argmax(dim=1)

    deepest = masks[classifier.tap_names[-1]]
    overlaps = [((found == k) & (deepest == k)).sum() / ((found == k) | (deepest == k)).sum() for k in range(4)]
    assert torch.stack(overlaps).mean() > 0.9
