"""Networks are built by name, offline, and what cannot be built is explained."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError

from wsiseg.errors import MethodError
from wsiseg.nets.deeplab import DeepLabV3Plus
from wsiseg.nets.factory import ARCHITECTURES, NetSpec, build_net
from wsiseg.nets.unet import UNet


def test_our_own_network_is_the_default() -> None:
    net = build_net(NetSpec(widths=(8, 16), skip="concat"), 3, 4)

    assert isinstance(net, UNet)
    assert net(torch.zeros(1, 3, 8, 8)).shape == (1, 4, 8, 8)


def test_a_spec_survives_json() -> None:
    spec = NetSpec(arch="unet", encoder="tu-resnet18", widths=(8, 16))

    assert NetSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_the_same_random_state_gives_the_same_weights() -> None:
    def build() -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        return build_net(NetSpec(widths=(8, 16)), 3, 2).state_dict()

    torch.testing.assert_close(build(), build(), rtol=0, atol=0)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_deeplab_is_the_network_of_other_methods_on_an_encoder_of_timm(encoder: str) -> None:
    net = build_net(NetSpec(arch="deeplabv3+", encoder=encoder), 3, 4)

    assert isinstance(net, DeepLabV3Plus)
    assert net.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 4, 64, 64)


def test_our_own_network_has_no_weights_to_download() -> None:
    with pytest.raises(MethodError, match="no weights of unet-gn to download"):
        build_net(NetSpec(encoder_weights="imagenet"), 3, 2)


@pytest.mark.slow
@pytest.mark.parametrize("arch", [arch for arch in ARCHITECTURES if arch != "unet-gn"])
@pytest.mark.parametrize("encoder", ["resnet18", "tu-mobilenetv3_small_100"])
def test_library_networks_give_an_output_of_the_size_of_the_input(arch: str, encoder: str) -> None:
    net = build_net(NetSpec(arch=arch, encoder=encoder), 3, 4).eval()

    with torch.inference_mode():
        assert net(torch.zeros(1, 3, 128, 128)).shape == (1, 4, 128, 128)


def test_unknown_architectures_are_named_with_what_was_meant() -> None:
    with pytest.raises(MethodError, match=r"no network 'unet-gm'\. Did you mean unet-gn"):
        build_net(NetSpec(arch="unet-gm"), 3, 2)
    with pytest.raises(MethodError, match="There are: unet-gn"):
        build_net(NetSpec(arch="xxxxxxxx"), 3, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "meant"), [("resnet33", "resnet3"), ("tu-resnt18", "tu-resnet18")])
def test_unknown_encoders_are_named_with_what_was_meant(name: str, meant: str) -> None:
    with pytest.raises(MethodError, match=f"Did you mean {meant}"):
        build_net(NetSpec(arch="unet", encoder=name), 3, 2)


@pytest.mark.slow
def test_encoders_that_do_not_suit_an_architecture_are_refused() -> None:
    with pytest.raises(MethodError, match="cannot be built on the encoder mit_b0"):
        build_net(NetSpec(arch="unet++", encoder="mit_b0"), 3, 2)


@pytest.mark.slow
def test_weights_that_cannot_be_downloaded_give_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import segmentation_models_pytorch as smp

    unet = smp.Unet

    def offline(**settings: object) -> object:
        if settings["encoder_weights"] is not None:
            raise ConnectionError("no route to host")
        return unet(**settings)

    monkeypatch.setattr(smp, "Unet", offline)

    with pytest.raises(MethodError, match=r"resnet18 cannot be had \(no route to host\)\. Check the connection"):
        build_net(NetSpec(arch="unet", encoder="resnet18", encoder_weights="imagenet"), 3, 2)


def test_widths_must_fall_into_groups() -> None:
    with pytest.raises(ValidationError, match="multiples of 8"):
        NetSpec(widths=(8, 12))


@pytest.mark.slow
def test_our_own_network_does_not_wait_for_the_libraries() -> None:
    code = (
        "import sys; from wsiseg.nets.factory import NetSpec, build_net; build_net(NetSpec(), 3, 2);"
        "sys.exit('timm' in sys.modules or 'segmentation_models_pytorch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
