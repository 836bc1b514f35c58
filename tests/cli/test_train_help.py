"""What the help of `wsiseg train` says of defaults is so."""

from __future__ import annotations

import re

import pytest
import typer

from wsiseg.cli import app
from wsiseg.config import load
from wsiseg.errors import ConfigError
from wsiseg.methods.registry import PATCH_METHODS, get_patch_method
from wsiseg.methods.stages import LabelStage
from wsiseg.nets.dual_unet import DUAL_UNET
from wsiseg.nets.factory import DEEPLAB, OURS, VOLUMETRIC
from wsiseg.nets.hce import HCE
from wsiseg.nets.maskrcnn import MASKRCNN
from wsiseg.nets.pgfanet import PGFANET
from wsiseg.tasks.train_job import TrainConfig
from wsiseg.tasks.train_patches import check_settings

FIT = {"steps": 5, "accumulate": 2, "lr": 0.1}
OWN = {"mpp": 1.0, "crop_px": 64, "val_fraction": 0.1}


def helps() -> dict[str, str]:
    train = typer.main.get_command(app.app).get_command(None, "train")  # type: ignore[attr-defined]
    return {option.name: option.help or "" for option in train.params}


def test_the_defaults_of_supervised_are_those_of_the_settings() -> None:
    told, config = helps(), TrainConfig()

    for name in FIT:
        assert f"Default {getattr(config.fit, name):f}".rstrip("0").rstrip(".") in told[name]
    for name in ("batch_size", "crop_px", "val_fraction"):
        assert f"Default {getattr(config, name)}" in told[name]


@pytest.mark.parametrize("name", PATCH_METHODS)
def test_methods_of_patch_labels_have_the_defaults_that_are_told(name: str) -> None:
    told, method = helps(), get_patch_method(name)
    assert method is not None
    stages = method.stages(load(method.options, options={}))
    numbers = {stage.name: stage.settings for stage in stages if not isinstance(stage, LabelStage)}

    assert {one.batch_images for one in numbers.values()} == {20}
    assert "from patch labels 20" in told["batch_size"]
    shown = " and ".join(f"{one.epochs} to {stage}" for stage, one in numbers.items())
    assert f"from patch labels {shown}" in told["epochs"]


def test_what_labels_without_training_is_named() -> None:
    assert "pseudo-label alone is wsiseg pseudo-label" in helps()["stages"]


def test_every_network_of_our_own_is_named() -> None:
    own = (OURS, DEEPLAB, DUAL_UNET, HCE, MASKRCNN, PGFANET, *VOLUMETRIC)

    assert set(own) <= set(re.findall(r"[\w+-]+", helps()["arch"]))


@pytest.mark.parametrize("option", [*FIT, *OWN])
def test_what_methods_of_patch_labels_refuse_is_said_to_be_for_others(option: str) -> None:
    method = get_patch_method("mlps")
    assert method is not None
    settings = {"fit": {option: FIT[option]}} if option in FIT else {option: OWN[option]}
    with pytest.raises(ConfigError, match=option.replace("_", "-")):
        check_settings(method, TrainConfig.model_validate({"method": "mlps", **settings}))

    assert "not with patch labels" in helps()[option]
