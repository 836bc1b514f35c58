"""Weights from elsewhere are read without running code, land where they belong, and nothing is lost silently."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.tiny_models import save_tiny_model
from wsiseg.errors import DataError
from wsiseg.initial_weights import initialise, read_weights, resnet38_name
from wsiseg.nets.attending import AttendingSpec, build_attending
from wsiseg.nets.classifiers import build_classifier
from wsiseg.nets.deeplab import build_deeplab
from wsiseg.nets.gated import CamSpec, GatedSpec, build_cam, build_gated
from wsiseg.nets.resnet38d import ResNet38d

if TYPE_CHECKING:
    from collections.abc import Callable

BACKBONE = "mobilenetv3_small_050"


def classifier(num_classes: int = 4, seed: int = 0) -> ResNet38d:
    """Return a small network with random weights."""
    torch.manual_seed(seed)
    return ResNet38d(num_classes, width=1)


def mxnet_name(name: str) -> str:
    """Return MXNet's name of a parameter, put together the other way round."""
    block, _, rest = name.rpartition(".")[0].partition(".")
    value = name.rpartition(".")[2]
    if block == "conv1a":
        return "arg:conv1a_weight"
    if block == "bn7":
        block, rest = "7", ""
    stage, _, number = block.removeprefix("b").partition("_")
    place = stage if not rest else f"{stage}b{number}" if number else f"{stage}a"
    if rest.startswith("conv"):
        return f"arg:res{place}_{rest.removeprefix('conv_')}_weight"
    kind = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_var"}[value]
    branch = f"_{rest.removeprefix('bn_')}" if rest else ""
    return f"{'aux' if kind.startswith('moving') else 'arg'}:bn{place}{branch}_{kind}"


@pytest.mark.parametrize("form", ["safetensors", "plain", "state_dict", "module"])
def test_weights_come_back_from_every_form_of_file(form: str, tmp_path: Path) -> None:
    weights = classifier().state_dict()
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    if form == "safetensors":
        save_file(weights, path)
    elif form == "plain":
        torch.save(weights, path)
    elif form == "state_dict":
        torch.save({"state_dict": weights, "epoch": 20, "best": 0.78}, path)
    else:
        torch.save({f"module.{name}": value for name, value in weights.items()}, path)

    torch.testing.assert_close(read_weights(path), dict(weights), rtol=0, atol=0)


def test_the_folder_of_a_model_is_a_file_of_weights(tmp_path: Path) -> None:
    assert "out.weight" in read_weights(save_tiny_model(tmp_path / "model"))


def test_all_weights_of_the_same_network_are_taken() -> None:
    source, target = classifier(seed=0), classifier(seed=1)

    report = initialise(target, source.state_dict(), where=Path("weights"))

    torch.testing.assert_close(target.state_dict(), source.state_dict(), rtol=0, atol=0)
    assert (report.missing, report.unexpected, report.misshapen) == ((), (), ())


def test_what_does_not_fit_stays_and_is_named(tmp_path: Path) -> None:
    source, target = classifier(num_classes=7), classifier(seed=1)
    weights = {name: value for name, value in source.state_dict().items() if not name.startswith("b7.")}
    before = {name: value.clone() for name, value in target.state_dict().items()}

    report = initialise(target, {**weights, "fc1000.bias": torch.zeros(2)}, where=tmp_path)

    assert report.misshapen == ("fc8.weight",)
    assert report.unexpected == ("fc1000.bias",)
    assert {name.partition(".")[0] for name in report.missing} == {"b7"}
    after = target.state_dict()
    for name in (*report.missing, *report.misshapen):
        assert after[name].equal(before[name])
    for name in report.loaded:
        assert after[name].equal(weights[name])


def test_weights_of_a_backbone_alone_find_their_place() -> None:
    net = build_deeplab("resnet18", 3)
    inside = net.get_submodule("backbone.encoder.features").state_dict()
    weights = {name: torch.full_like(value, 2) for name, value in inside.items()}

    report = initialise(net, {**weights, "fc.weight": torch.zeros(9, 9)}, where=Path("weights"))

    assert report.unexpected == ("fc.weight",)
    assert {name.partition(".")[0] for name in report.missing} == {"aspp", "decoder"}
    assert net.state_dict()["backbone.encoder.features.conv1.weight"].eq(2).all()


@pytest.mark.parametrize("kept_as", ["mlps classify", "mlps segment", "craanet classify", "craanet segment"])
@pytest.mark.parametrize("begun", ["classifier", "segmenter"])
def test_models_of_every_stage_are_a_beginning_for_the_networks_of_every_stage(
    kept_as: str, begun: str, tmp_path: Path
) -> None:
    cam, attending = CamSpec(backbone=BACKBONE), AttendingSpec(backbone=BACKBONE)
    torch.manual_seed(0)
    source: nn.Module
    match kept_as:
        case "mlps classify":
            source = build_cam(cam, 3)
        case "mlps segment":
            source = build_gated(GatedSpec(backbone=BACKBONE, classifier=cam), 3)
        case "craanet classify":
            source = build_attending(attending, 3)
        case _:
            source = build_gated(GatedSpec(backbone=BACKBONE, classifier=attending), 3)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    target: nn.Module = build_classifier(BACKBONE, 3) if begun == "classifier" else build_deeplab(BACKBONE, 3)

    report = initialise(target, read_weights(tmp_path), where=tmp_path)

    assert not [name for name in report.missing if "encoder" in name]
    assert report.misshapen == ()
    part = begun if kept_as.endswith("segment") else "classifier"
    kept = {name: value for name, value in source.state_dict().items() if name.startswith(part)}
    for name in report.loaded:
        if "encoder" in name:
            tail = name[name.index("encoder") :]
            (theirs,) = (value for name, value in kept.items() if name.endswith(tail))
            assert target.state_dict()[name].equal(theirs)


def test_counters_that_old_files_lack_are_not_missed() -> None:
    weights = {name: value for name, value in classifier().state_dict().items() if "num_batches" not in name}

    assert initialise(classifier(), weights, where=Path("weights")).missing == ()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    net = classifier()
    alike = next(value for name, value in net.state_dict().items() if name.endswith(".weight"))
    with pytest.raises(DataError, match="these weights fit 0 of the"):
        initialise(net, {"layer1.weight": torch.zeros_like(alike)}, where=tmp_path)


@pytest.mark.parametrize("build", [build_deeplab, build_classifier])
def test_weights_of_a_smaller_network_of_the_family_are_refused_untouched(
    build: Callable[[str, int], nn.Module], tmp_path: Path
) -> None:
    net, smaller = build("resnet18", 3), build("resnet10t", 3)
    before = {name: value.clone() for name, value in net.state_dict().items()}

    with pytest.raises(DataError, match=r"these weights fit \d\d of the 1\d\d arrays of the backbone"):
        initialise(net, smaller.state_dict(), where=tmp_path)

    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["convnext_atto", "densenet121"])
def test_names_that_timm_joins_in_makers_of_features_are_its_own_names(name: str, tmp_path: Path) -> None:
    import timm

    weights = {key: torch.full_like(value, 2) for key, value in timm.create_model(name).state_dict().items()}

    net = build_classifier(name, 3)
    report = initialise(net, weights, where=tmp_path)

    assert report.missing == ("fc8.weight",)
    assert all(net.state_dict()[key].eq(2).all() for key in report.loaded)


def test_every_parameter_of_resnet38_has_a_name_in_mxnet() -> None:
    names = [name for name in classifier().state_dict() if not name.endswith("num_batches_tracked")]

    assert [resnet38_name(mxnet_name(name)) for name in names if not name.startswith("fc8")] == [
        name for name in names if not name.startswith("fc8")
    ]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("arg:conv1a_weight", "conv1a.weight"),
        ("arg:res2a_branch1_weight", "b2.conv_branch1.weight"),
        ("arg:res3b2_branch2b1_weight", "b3_2.conv_branch2b1.weight"),
        ("arg:bn6a_branch2b2_gamma", "b6.bn_branch2b2.weight"),
        ("aux:bn5b1_branch2a_moving_mean", "b5_1.bn_branch2a.running_mean"),
        ("arg:bn7_beta", "bn7.bias"),
        ("arg:linear1000_weight", None),
        ("arg:linear1000_bias", None),
    ],
)
def test_names_of_mxnet_are_translated(theirs: str, ours: str | None) -> None:
    assert resnet38_name(theirs) == ours


def test_files_with_names_of_mxnet_fit_the_network(tmp_path: Path) -> None:
    source, target = classifier(seed=0), classifier(seed=1)
    weights = {
        mxnet_name(name): value
        for name, value in source.state_dict().items()
        if not name.startswith("fc8") and "num_batches" not in name
    }
    save_file({**weights, "arg:linear1000_weight": torch.zeros(5, 64)}, tmp_path / "rna.safetensors")

    report = initialise(target, read_weights(tmp_path / "rna.safetensors"), where=tmp_path)

    assert report.missing == ("fc8.weight",)
    assert report.unexpected == ()
    assert target.b7.conv_branch1.weight.equal(source.b7.conv_branch1.weight)


def test_files_that_could_run_code_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": nn.Linear(2, 2)}, tmp_path / "net.pth")

    with pytest.raises(DataError, match="holds more than data"):
        read_weights(tmp_path / "net.pth")


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"rubbish" * 9)

    with pytest.raises(DataError, match="damaged"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}])
def test_files_without_tensors_are_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")

    with pytest.raises(DataError, match="no tensors by name"):
        read_weights(tmp_path / "weights.pth")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file of weights"):
        read_weights(tmp_path / "nowhere.pth")
