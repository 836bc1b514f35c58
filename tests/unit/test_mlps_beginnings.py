"""With which weights the networks of multi-layer pseudo-supervision begin, and what is said about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from wsiseg.config import load
from wsiseg.errors import DataError, MethodError
from wsiseg.labels import LabelMap
from wsiseg.methods.base import TrainingFacts
from wsiseg.methods.mlps_classify import ClassifyStage
from wsiseg.methods.mlps_options import MlpsOptions
from wsiseg.methods.mlps_segment import SegmentStage
from wsiseg.methods.pair_options import CLASSIFY
from wsiseg.methods.registry import get_patch_method
from wsiseg.methods.stages import LabelStage
from wsiseg.nets.classifiers import build_classifier
from wsiseg.nets.gated import ActivationMaps
from wsiseg.nets.taps import TapClassifier

if TYPE_CHECKING:
    from pathlib import Path

BACKBONE = "mobilenetv3_small_050"
FACTS = TrainingFacts(
    name="toy", kind="classes", labels=LabelMap.from_names(("a", "b")), mpp=1.0, crop_px=64, training_data={}
)


def classifier(options: MlpsOptions) -> ActivationMaps:
    net = ClassifyStage(options=options, settings=options.resolved().classify).build(FACTS, {}, ()).module
    assert isinstance(net, ActivationMaps)
    return net


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of a classifier of three classes, with something more in it."""
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file({**build_classifier(BACKBONE, 3).state_dict(), "extra": torch.zeros(1)}, path)
    return path


def test_a_file_is_for_the_classifier_whose_early_layers_it_freezes(
    weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net = classifier(MlpsOptions(backbone=BACKBONE, init=str(weights)))
    torch.manual_seed(7)
    given = dict(build_classifier(BACKBONE, 3).named_parameters())

    own = dict(net.classifier.named_parameters())
    assert all(own[name].equal(value) for name, value in given.items() if name != "fc8.weight")
    assert net.classifier.is_frozen
    assert not all(value.requires_grad for value in own.values())
    # Of other classes, and of nothing that the network has.
    assert "1 arrays have another shape in the network, which keeps its own (fc8.weight)" in caplog.text
    assert "1 arrays have no place in the network (extra)" in caplog.text


@pytest.mark.parametrize("method", ["mlps", "craanet"])
def test_downloaded_weights_freeze_the_early_layers_of_the_classifier(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    create, asked = timm.create_model, []

    def offline(name: str, *, pretrained: bool, features_only: bool, output_stride: int) -> object:
        asked.append(pretrained)
        return create(name, features_only=features_only, output_stride=output_stride)

    monkeypatch.setattr(timm, "create_model", offline)
    chosen = get_patch_method(method)
    assert chosen is not None
    stage, *_ = chosen.stages(load(chosen.options, options={"backbone": BACKBONE, "init": "imagenet"}))
    assert not isinstance(stage, LabelStage)

    module = stage.build(FACTS, {}, ()).module

    (trunk,) = (layer for layer in module.modules() if isinstance(layer, TapClassifier))
    assert any(asked)
    assert trunk.is_frozen
    # Norms have one dimension, and the first layers more.
    assert {value.requires_grad for value in trunk.parameters() if value.ndim > 1} == {True, False}


@pytest.mark.parametrize("kept", ["one array", "other widths", "all but an average"])
def test_a_file_without_what_would_be_frozen_is_refused(kept: str, weights: Path, tmp_path: Path) -> None:
    whole = load_file(weights)
    averages = [name for name in whole if name.endswith("running_mean")]
    given = {
        "one array": {averages[0]: whole[averages[0]]},
        "other widths": {name: torch.zeros(3) if name in averages else value for name, value in whole.items()},
        "all but an average": {name: value for name, value in whole.items() if name != averages[-1]},
    }[kept]
    save_file(given, tmp_path / "part.safetensors")

    with pytest.raises(DataError, match=r"these weights fit 1 of|arrays that would not be learnt have no value in it"):
        classifier(MlpsOptions(backbone=BACKBONE, init=str(tmp_path / "part.safetensors")))


def test_random_weights_are_warned_of_and_nothing_is_frozen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = MlpsOptions(backbone=BACKBONE)
    stage = ClassifyStage(options=options, settings=options.resolved().classify)
    learner = stage.build(FACTS, {}, ())
    assert "the classifier begins with random weights" in caplog.text
    assert all(value.requires_grad for value in learner.module.parameters())

    learner.predictor(learner.module).save(tmp_path / "classify", metrics={})
    segment = SegmentStage(options=options, settings=options.resolved().segment)
    pair = segment.build(FACTS, {CLASSIFY: tmp_path / "classify"}, ("a",))

    assert "the segmentation network begins with random weights" in caplog.text
    # Beside the published backbone of the classifier, --init imagenet would be refused.
    assert "--set options.init_segmenter=imagenet" in caplog.text
    is_learning = {name.partition(".")[0]: value.requires_grad for name, value in pair.module.named_parameters()}
    assert is_learning == {"segmenter": True, "classifier": False}
    other = SegmentStage(options=MlpsOptions(backbone="resnet10t"), settings=options.resolved().segment)
    with pytest.raises(MethodError, match="another backbone"):
        other.build(FACTS, {CLASSIFY: tmp_path / "classify"}, ("a",))


def test_a_file_begins_the_segmentation_network_on_the_same_backbone_too(weights: Path) -> None:
    options = MlpsOptions(backbone=BACKBONE, init=str(weights), gate=False)
    learner = SegmentStage(options=options, settings=options.resolved().segment).build(FACTS, {}, ("a",))

    given = {name: value for name, value in load_file(weights).items() if name.startswith("encoder.")}
    own = learner.module.get_submodule("segmenter.backbone").state_dict()
    assert given
    assert all(own[name].equal(value) for name, value in given.items())


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file of weights"):
        classifier(MlpsOptions(backbone=BACKBONE, init=str(tmp_path / "gone.pth")))
