"""Networks with two heads on one decoder: sizes, numbers of weights, and who learns from whom."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from wsiseg.errors import MethodError
from wsiseg.nets.dual_task import DualTaskNet
from wsiseg.nets.factory import NetSpec, build_described, build_net, spec_type

SMALL: dict[str, dict[str, Any]] = {
    "dual-unet": {"arch": "dual-unet", "widths": [4, 8, 16], "dropouts": [0, 0.3, 0.5]},
    "unet3d": {"arch": "unet3d", "widths": [4, 8, 16]},
    "vnet": {"arch": "vnet", "widths": [4, 8, 16]},
    "two-task": {"arch": "two-task", "net": {"arch": "unet-gn", "widths": [8, 16], "dropout": 0.5}},
}
every_net = pytest.mark.parametrize("arch", SMALL)


def build(arch: str, *, classes: int = 2, **changes: object) -> DualTaskNet:
    torch.manual_seed(0)
    net = build_described({**SMALL[arch], "level_sets": classes - 1, **changes}, channels(arch), classes)
    assert isinstance(net, DualTaskNet)
    return net


def channels(arch: str) -> int:
    return 1 if arch in ("unet3d", "vnet") else 3


def images(arch: str, *, side: int = 16) -> torch.Tensor:
    shape = (side, side, side // 2) if channels(arch) == 1 else (side, side // 2)
    return torch.randn(2, channels(arch), *shape, generator=torch.Generator().manual_seed(1))


def count(net: nn.Module) -> int:
    return sum(value.numel() for value in net.parameters())


@pytest.mark.parametrize(
    ("arch", "channels", "level_sets", "weights"),
    [
        ("unet3d", 1, 0, 5_884_050),
        ("unet3d", 1, 1, 5_884_067),
        ("vnet", 1, 1, 9_448_832 + 34 + 17),
        ("dual-unet", 3, 1, 1_813_472 + 3 * 145),
    ],
)
def test_networks_have_the_published_number_of_weights(arch: str, channels: int, level_sets: int, weights: int) -> None:
    assert count(build_described({"arch": arch, "level_sets": level_sets}, channels, 2)) == weights


@every_net
@pytest.mark.parametrize("classes", [2, 4])
def test_both_outputs_have_the_size_of_the_input(arch: str, classes: int) -> None:
    net, x = build(arch, classes=classes).eval(), images(arch)

    with torch.inference_mode():
        sdf, logits = net.both(x)

        assert logits.shape == (2, classes, *x.shape[2:])
        assert sdf.shape == (2, classes - 1, *x.shape[2:])
        assert sdf.abs().max() < 1
        torch.testing.assert_close(net(x), logits)


@every_net
def test_joined_level_sets_are_the_last_maps_of_the_output(arch: str) -> None:
    net, x = build(arch, joined=True).eval(), images(arch)

    with torch.inference_mode():
        maps = net(x)
        sdf, logits = net.both(x)

    assert maps.shape[1] == 2
    torch.testing.assert_close(maps[:, :1], logits)
    torch.testing.assert_close(maps[:, 1:].tanh(), sdf)


@pytest.mark.parametrize("arch", ["dual-unet", "unet3d", "vnet"])
def test_each_task_moves_its_own_head_and_the_decoder_of_both(arch: str) -> None:
    for output, (own, other) in enumerate([("sdf", "seg"), ("seg", "sdf")]):
        net = build(arch)

        torch.autograd.backward(net.both(images(arch))[output].square().mean())

        moved = {name for name, value in net.named_parameters() if value.grad is not None and value.grad.any()}
        assert f"{own}.weight" in moved
        assert not any(name.startswith(other) for name in moved)
        assert any(name.startswith("up.0") for name in moved)
        assert any(name.startswith("down.0") for name in moved)


def test_maps_of_one_layer_are_two_heads() -> None:
    for output, own in enumerate([slice(2, 3), slice(0, 2)]):
        net = build("two-task")

        torch.autograd.backward(net.both(images("two-task"))[output].square().mean())

        gradient = net.get_parameter("net.out.weight").grad
        assert gradient is not None
        rows = gradient.flatten(1).any(dim=1)
        assert rows[own].all()
        assert rows.sum() == len(rows[own])
        assert net.get_parameter("net.down.0.conv1.weight").grad is not None


@every_net
def test_level_sets_are_as_fine_as_single_precision_under_autocast(arch: str) -> None:
    net, x = build(arch).eval(), images(arch)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        sdf, logits = net.both(x)
        net.joined = True
        depths = net(x)[:, logits.shape[1] :]

    assert sdf.dtype == torch.float32
    assert logits.dtype == depths.dtype == torch.bfloat16
    torch.testing.assert_close(sdf, depths.double().tanh().float(), rtol=1e-6, atol=0)
    assert not sdf.equal(sdf.bfloat16().float())


@every_net
def test_every_weight_learns(arch: str) -> None:
    net = build(arch)
    sdf, logits = net.both(images(arch))

    torch.autograd.backward(sdf.square().mean() + logits.square().mean())

    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in net.parameters())
    assert all(value.grad.any() for value in net.parameters() if value.grad is not None and value.ndim > 1)


@every_net
def test_dropout_makes_passes_differ_in_training_only(arch: str) -> None:
    net, x = build(arch), images(arch)

    with torch.no_grad():
        assert not torch.equal(net(x), net(x))
        net.eval()
        assert torch.equal(net(x), net(x))


def test_each_voxel_is_dropped_alone_in_the_u_net_and_whole_channels_are_in_v_net() -> None:
    dropped = {
        arch: (build(arch).get_submodule("drop")(torch.ones(1, 8, 4, 4, 4)) == 0).flatten(2).float().mean(dim=2)
        for arch in ("unet3d", "vnet")
    }

    assert ((dropped["vnet"] == 0) | (dropped["vnet"] == 1)).all()
    assert ((dropped["unet3d"] > 0) & (dropped["unet3d"] < 1)).all()


@pytest.mark.parametrize("arch", ["dual-unet", "unet3d", "vnet"])
def test_sizes_that_do_not_fit_are_refused(arch: str) -> None:
    net = build(arch)

    assert net.stride == 4
    with pytest.raises(MethodError, match=r"18 × .* do not fit the network") as caught:
        net(images(arch, side=18))
    assert caught.value.mend == "Use multiples of 4"


def test_networks_without_dropout_cannot_doubt() -> None:
    with pytest.raises(MethodError, match="no dropout"):
        build("two-task", net={"arch": "unet-gn", "widths": [8, 16]})


def test_one_task_alone_has_no_level_sets() -> None:
    net = build("dual-unet", level_sets=0)

    assert net(images("dual-unet")).shape[1] == 2
    with pytest.raises(MethodError, match="no level sets"):
        net.both(images("dual-unet"))
    with pytest.raises(MethodError, match="no room"):
        build("vnet", level_sets=2, joined=True)


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValidationError, match="as many as widths"):
        build("dual-unet", dropouts=[0.5])
    with pytest.raises(ValidationError, match="one channel or more"):
        build("vnet", widths=[4, 0])


def test_names_lead_to_settings() -> None:
    assert spec_type("vnet")(**SMALL["vnet"]).model_dump()["widths"] == (4, 8, 16)
    assert spec_type("unet-gn") is NetSpec
    with pytest.raises(MethodError, match="Did you mean dual-unet"):
        build_described({"arch": "dual-umet"}, 3, 2)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["unet", "fpn", "deeplabv3"])
def test_networks_of_the_library_get_dropout_under_their_own_names(arch: str) -> None:
    plain = build_net(NetSpec(arch=arch, encoder="resnet18"), 3, 2)
    dropping = build_net(NetSpec(arch=arch, encoder="resnet18", dropout=0.5), 3, 2)
    dropping.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 64)

    with torch.no_grad():
        torch.testing.assert_close(dropping.eval()(x), plain.eval()(x))
        assert not torch.equal(dropping.train()(x.repeat(2, 1, 1, 1)), dropping(x.repeat(2, 1, 1, 1)))
