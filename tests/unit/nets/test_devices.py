"""A device is what its name says, for training and prediction alike, or the user is told what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from wsiseg.errors import ConfigError
from wsiseg.nets.devices import choose_device, choose_dtype, in_best_layout
from wsiseg.training.ranks import joined

if TYPE_CHECKING:
    from wsiseg.nets.devices import Amp

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def nothing_but_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_is_taken_where_there_is_one() -> None:
    names = ("auto", "cpu", "cuda", "cuda:1")

    assert [str(choose_device(name)) for name in names] == ["cuda:0", "cpu", "cuda", "cuda:1"]


@pytest.mark.usefixtures("nothing_but_processors")
def test_without_a_gpu_training_and_prediction_take_the_processor() -> None:
    with joined("auto") as ranks:
        assert ranks.device == choose_device("auto") == CPU


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "'gpu' is no device"),
        ("meta", "'meta' is not supported"),
        ("cuda:2", "only 2 CUDA devices"),
        ("mps", "no Apple GPU"),
    ],
)
def test_what_is_not_there_is_refused_by_training_and_prediction_alike(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as predicting:
        choose_device(name)
    with pytest.raises(ConfigError, match=message) as training, joined(name):
        pass

    assert str(training.value) == str(predicting.value)


@pytest.mark.parametrize(("is_native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_half_precision_is_the_one_that_the_gpu_has_itself(
    monkeypatch: pytest.MonkeyPatch, *, is_native: bool, expected: torch.dtype
) -> None:
    def is_supported(*, including_emulation: bool = True) -> bool:
        return is_native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)

    assert choose_dtype("auto", GPU) == expected
    assert choose_dtype("auto", CPU) is None
    assert choose_dtype("off", GPU) is None


@pytest.mark.parametrize(("net", "is_changed"), [(nn.Conv2d(4, 4, 3), True), (nn.Conv3d(4, 4, 3), False)])
def test_only_networks_of_images_get_channels_last(net: nn.Module, *, is_changed: bool) -> None:
    (weight, _) = in_best_layout(net).parameters()

    assert weight.is_contiguous() is not is_changed


@pytest.mark.parametrize(
    ("amp", "told", "is_warned"),
    [
        ("bf16", {"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}, True),
        ("bf16", {"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, False),
        ("bf16", {"architecture": "aarch64"}, False),
        ("bf16", {}, False),
        ("off", {"architecture": "x86_64"}, False),
    ],
)
def test_a_format_that_the_processor_does_not_know_is_warned_of(
    amp: Amp,
    told: dict[str, object],
    *,
    is_warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)

    choose_dtype(amp, CPU)

    assert ("no instructions for bf16" in caplog.text) == is_warned
