"""Methods of patches are trained with the published numbers, and with those of the reconstruction, unless told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wsiseg.config import load
from wsiseg.methods.craanet_options import CraanetOptions
from wsiseg.methods.mlps_options import MlpsOptions
from wsiseg.methods.mlps_presets import PRESETS
from wsiseg.methods.registry import get_patch_method
from wsiseg.methods.stages import LabelStage
from wsiseg.nets.attending import AttendingSpec
from wsiseg.nets.gated import CamSpec, GatedSpec

if TYPE_CHECKING:
    from wsiseg.methods.mlps_presets import PresetName

SHARED = {
    "backbone": "resnet38d",
    "segmenter": None,
    "output_stride": 8,
    "init": "none",
    "init_segmenter": None,
    "licence": "",
}
MLPS_CLASSIFY = {
    "epochs": 20,
    "batch_images": 20,
    "last_batch": "drop",
    "lr": 0.01,
    "head_lr_factor": 10.0,
    "heads": ["fc8"],
    # What the released code comes to.
    "momentum": 0.0005,
    "weight_decay": 0.0005,
    "power": 0.9,
}
MLPS_SEGMENT = {
    "epochs": 30,
    "batch_images": 20,
    "last_batch": "keep",
    "lr": 0.01,
    "head_lr_factor": 10.0,
    "heads": ["aspp", "decoder"],
    "momentum": 0.9,
    "weight_decay": 0.0005,
    "power": 0.9,
}
PUBLISHED = {
    "paper": {
        "classify": MLPS_CLASSIFY,
        "attention": {"sigma": 0.985, "lower": 0.65, "warmup_epochs": 3, "overshoots": False},
        # The same steps as of the released code, whose loss is divided by 20 once more.
        "segment": {**MLPS_SEGMENT, "lr": 0.0005, "weight_decay": 0.01},
        "layer_weights": [0.2, 0.2, 0.6],
        "white_mean": "valid",
        "divisor": "none",
        "epsilon": 0.1,
    },
    "official-code": {
        "classify": MLPS_CLASSIFY,
        "attention": {"sigma": 0.98, "lower": 0.65, "warmup_epochs": 3, "overshoots": True},
        "segment": MLPS_SEGMENT,
        "layer_weights": [0.2, 0.2, 0.6],
        "white_mean": "all",
        "divisor": "batch",
        "epsilon": 0.1,
    },
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_of_mlps_hold_the_published_numbers(name: PresetName) -> None:
    assert MlpsOptions(preset=name).resolved().model_dump(mode="json") == PUBLISHED[name]


def test_mlps_follows_its_paper_unless_told() -> None:
    assert load(MlpsOptions).model_dump(mode="json") == {
        **SHARED,
        "preset": "paper",
        "numbers": {},
        "attention": True,
        "gate": True,
    }


def test_craanet_has_the_numbers_of_the_reconstruction_unless_told() -> None:
    assert load(CraanetOptions).model_dump(mode="json") == {
        **SHARED,
        "heads": 1,
        "residual_weight": 0.3,
        "maps": "score",
        "accumulate": True,
        "accumulation": {"mode": "max", "ema_decay": 0.9, "accept": "topk", "min_prob": 0.1, "start_epoch": 2},
        "drop": False,
        "reliability": {"fraction": 0.6, "min_attention": 0.1, "conflict": None},
        "decoder": "v3plus",
        "vertical_flips": False,
        "numbers": {
            "classify": {
                "epochs": 20,
                "batch_images": 20,
                "last_batch": "drop",
                "lr": 0.01,
                "head_lr_factor": 10.0,
                "heads": ["head"],
                "momentum": 0.0,
                "weight_decay": 0.0005,
                "power": 0.9,
            },
            "segment": {
                "epochs": 30,
                "batch_images": 20,
                "last_batch": "keep",
                "lr": 0.001,
                "head_lr_factor": 10.0,
                "heads": ["aspp", "decoder", "classifier", "projection"],
                "momentum": 0.9,
                "weight_decay": 0.0005,
                "power": 0.9,
            },
        },
        "energy": {"weight": 1.0, "sigma_px": 100.0, "sigma_rgb": 15.0, "scale": 0.25},
        "contrast": {
            "weight": 0.1,
            "start": 0.125,
            "temperature": 0.1,
            "base_temperature": 0.07,
            "max_samples": 1024,
            "max_views": 100,
            "channels": 128,
            "centre_momentum": 0.99,
            "centres_per_class": 1,
            "relabel_margin": None,
        },
        "gate": False,
        "epsilon": 0.1,
    }


@pytest.mark.parametrize("name", ["mlps", "craanet"])
def test_patches_are_mirrored_and_blurred_as_published(name: str) -> None:
    method = get_patch_method(name)
    assert method is not None
    stages = [stage for stage in method.stages(load(method.options)) if not isinstance(stage, LabelStage)]

    assert [(stage.name, stage.flips, stage.blur_px, stage.is_best_kept) for stage in stages] == [
        ("classify", "both", 0.0, False),
        ("segment", "horizontal", 1.0, True),
    ]


def test_networks_have_the_published_thresholds_unless_told() -> None:
    assert CamSpec(backbone="resnet38d").model_dump() == {
        "arch": "cam",
        "backbone": "resnet38d",
        "output_stride": 8,
        "threshold": 0.25,
    }
    assert AttendingSpec(backbone="resnet38d").model_dump() == {
        "arch": "residual-attention",
        "backbone": "resnet38d",
        "output_stride": 8,
        "heads": 1,
        "residual_weight": 0.3,
        "threshold": 0.25,
    }
    assert GatedSpec(backbone="resnet101", classifier=None).model_dump() == {
        "arch": "gated-deeplabv3+",
        "backbone": "resnet101",
        "output_stride": 16,
        "decoder": "v3plus",
        "classifier": None,
        "epsilon": 0.1,
    }
