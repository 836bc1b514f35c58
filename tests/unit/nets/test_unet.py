"""The U-Net keeps sizes, learns everywhere and repeats itself."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from wsiseg.nets.unet import UNet


@pytest.mark.parametrize("skip", ["add", "concat"])
@pytest.mark.parametrize("widths", [(8,), (8, 16), (8, 16, 24)])
def test_output_has_the_size_of_the_input(widths: tuple[int, ...], skip: Literal["add", "concat"]) -> None:
    net = UNet(3, 5, widths=widths, skip=skip)

    assert net(torch.zeros(2, 3, 4 * net.stride, 3 * net.stride)).shape == (2, 5, 4 * net.stride, 3 * net.stride)
    assert net.stride == 2 ** (len(widths) - 1)


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    net = UNet(3, 2, widths=(8, 16))

    net(torch.randn(2, 3, 16, 16)).square().mean().backward()

    assert all(value.grad is not None and value.grad.any() for value in net.parameters())


def test_convolutions_before_norms_have_no_bias_and_only_the_last_one_has() -> None:
    net = UNet(3, 2, widths=(8, 16))
    with_bias = [name for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d) and layer.bias is not None]

    assert with_bias == ["out"]


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    torch.manual_seed(0)
    net = UNet(3, 2, widths=(8, 16)).eval()
    images = torch.randn(2, 3, 16, 16)

    torch.testing.assert_close(net(images)[:1], net(images[:1]))
