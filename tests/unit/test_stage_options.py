"""A stage depends on the options that it reads, and those that are left out stay as they were trained."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from tests.craanet_makers import facts
from tests.listeners import Listener
from wsiseg.config import flattened, load, merged
from wsiseg.errors import ConfigError, DataError
from wsiseg.methods.registry import PATCH_METHODS, get_patch_method
from wsiseg.methods.stages import LabelStage
from wsiseg.tasks.stage_options import OPTIONS, Chosen, choose, note_options, plan_of, remedy
from wsiseg.tasks.train_job import TrainConfig
from wsiseg.training.settings import FitSettings
from wsiseg.training.state import check_plan
from wsiseg.training.state_file import save_state

if TYPE_CHECKING:
    from pathlib import Path

    from wsiseg.config import Config
    from wsiseg.methods.stages import PatchMethod, PatchStage
    from wsiseg.tasks.patch_data import PatchData
    from wsiseg.training.state_file import State

METHODS = sorted(PATCH_METHODS)
LATER = ["pseudo-label", "segment"]


class Data:
    """All that a plan wants of data."""

    facts = facts()
    fingerprint = "0" * 32


def known(name: str) -> PatchMethod:
    method = get_patch_method(name)
    assert method is not None
    return method


def plan(name: str, stage: str, **options: Any) -> State:  # noqa: ANN401
    method = known(name)
    stages = method.stages(load(method.options, options=options))
    one = next(each for each in stages if each.name == stage)
    assert not isinstance(one, LabelStage)
    data = cast("PatchData", Data())
    return plan_of(method, stages, one, data=data, models={}, settings=FitSettings(steps=40))


def trained(folder: Path, name: str, **options: Any) -> Path:  # noqa: ANN401
    """Write the state of a classifier that was trained with some options; return the folder of the run."""
    state = {"plan": plan(name, "classify", **options), "step": 40, "best": 0.5, "best_step": 20}
    (folder / "classify").mkdir(parents=True)
    save_state(folder / "classify" / "last.pt", state)
    method = known(name)
    resolved = load(method.options, options=options)
    note_options(Chosen(options=resolved, stages=method.stages(resolved)), folder, ["classify"], is_certain=True)
    return folder


def chosen(folder: Path, name: str, listener: Listener | None = None, **config: Any) -> Config:  # noqa: ANN401
    method = known(name)
    wanted = load(TrainConfig, options={"method": name, "stages": LATER, **config})
    return choose(method, wanted, folder, listener or Listener()).options


@pytest.mark.parametrize("name", METHODS)
def test_some_stage_depends_on_every_option(name: str) -> None:
    method = known(name)
    stages = method.stages(load(method.options))
    read: dict[str, Any] = {}
    for stage in stages:
        read = merged(read, stage.depends_on)

    # A preset is the numbers that it stands for; what becomes of it with --stages is seen to below.
    assert {*read} == {*method.options.model_fields} - {"preset"}
    for stage in stages:
        if not isinstance(stage, LabelStage):
            assert read["numbers"][stage.name] == stage.settings.model_dump(mode="json")


@pytest.mark.parametrize("name", METHODS)
def test_a_change_concerns_the_stages_that_read_it(name: str) -> None:
    changed: dict[str, Any] = {"gate": True, "numbers": {"segment": {"lr": 0.25}}}
    before = load(known(name).options).model_dump(mode="json")["gate"]
    changed["gate"] = not before

    assert plan(name, "classify", **changed) == plan(name, "classify")
    old, new = flattened(plan(name, "segment")), flattened(plan(name, "segment", **changed))
    assert {key for key in old if old[key] != new[key]} == {"options.gate", "options.numbers.segment.lr"}
    assert plan(name, "classify", backbone="resnet18") != plan(name, "classify")


def test_the_segmentation_network_depends_on_how_its_labels_were_made() -> None:
    assert plan("craanet", "segment", accumulate=False) != plan("craanet", "segment")


@pytest.mark.parametrize("name", METHODS)
def test_what_has_changed_is_named_with_a_way_out_that_keeps_earlier_stages(name: str, tmp_path: Path) -> None:
    method = known(name)
    stages = method.stages(load(method.options, options={"numbers": {"segment": {"lr": 0.004}}}))
    trainable: list[PatchStage] = [stage for stage in stages if not isinstance(stage, LabelStage)]
    classify, segment = (remedy(stages, stage) for stage in trainable)
    before = plan(name, "segment", numbers={"segment": {"lr": 0.004}})
    now = plan(name, "segment", numbers={"segment": {"lr": 0.002}})

    with pytest.raises(DataError) as caught:
        check_plan(before, now, where=tmp_path, remedy=segment)

    assert "(options.numbers.segment.lr was 0.004 and is 0.002)" in str(caught.value)
    assert "pass --stages segment --overwrite to train segment alone again" in str(caught.value)
    assert segment.slower == "--set options.numbers.segment.lr=0.0004"
    assert classify.anew == "--overwrite"
    assert classify.effect == "train all stages again"


@pytest.mark.parametrize("name", METHODS)
def test_options_of_a_stage_that_is_left_out_are_those_it_was_trained_with(name: str, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", name, backbone="resnet18", numbers={"classify": {"epochs": 3}})
    listener = Listener()

    options = chosen(run, name, listener, epochs=7, options={"numbers": {"segment": {"lr": 0.25}}})

    method = known(name)
    assert options.model_dump()["backbone"] == "resnet18"
    classify, _, segment = (stage for stage in method.stages(options))
    assert classify.depends_on["numbers"]["classify"]["epochs"] == 3
    assert segment.depends_on["segmenter"] == "resnet18"
    assert segment.depends_on["numbers"]["segment"]["lr"] == 0.25
    # Epochs that are asked for are those of the stages that are run.
    assert segment.depends_on["numbers"]["segment"]["epochs"] == 7
    assert listener.heard == ["as classify was trained: backbone=resnet18"]


def numbers_of(name: str, options: Config, stage: str) -> dict[str, Any]:
    (found,) = (one.depends_on["numbers"] for one in known(name).stages(options) if one.name == stage)
    return dict(found)


def test_later_stages_have_the_preset_of_the_classifier(tmp_path: Path) -> None:
    run, listener = trained(tmp_path / "run", "mlps", preset="official-code"), Listener()

    options = chosen(run, "mlps", listener)

    whole = load(known("mlps").options, options={"preset": "official-code"})
    assert numbers_of("mlps", options, "segment") == numbers_of("mlps", whole, "segment")
    assert numbers_of("mlps", options, "segment")["divisor"] == "batch"
    assert listener.heard == ["as classify was trained: preset=official-code"]


def test_another_preset_concerns_later_stages_alone_and_is_told(tmp_path: Path) -> None:
    run, listener = trained(tmp_path / "run", "mlps", preset="official-code"), Listener()

    options = chosen(run, "mlps", listener, options={"preset": "paper"})

    paper, published = (load(known("mlps").options, options={"preset": one}) for one in ("paper", "official-code"))
    assert numbers_of("mlps", options, "segment") == numbers_of("mlps", paper, "segment")
    assert numbers_of("mlps", options, "classify") == numbers_of("mlps", published, "classify")
    assert listener.heard == ["other than when classify was trained: preset=paper and not official-code"]


@pytest.mark.parametrize("name", METHODS)
def test_what_was_asked_for_later_stages_is_remembered(name: str, tmp_path: Path) -> None:
    method = known(name)
    gate = not load(method.options).model_dump()["gate"]
    asked = {"segmenter": "resnet18", "init_segmenter": "imagenet", "gate": gate, "numbers": {"segment": {"lr": 0.25}}}
    asked |= {"vertical_flips": True} if name == "craanet" else {}
    run = trained(tmp_path / "run", name, **asked)

    segment = method.stages(chosen(run, name))[-1].depends_on
    # What is asked for now comes first.
    again = method.stages(chosen(run, name, options={"segmenter": "resnet34"}))[-1].depends_on

    assert flattened(segment).items() >= flattened(asked).items()
    assert again == {**segment, "segmenter": "resnet34"}


def test_a_folder_that_does_not_tell_what_was_asked_for_is_warned_of(tmp_path: Path) -> None:
    run, listener = trained(tmp_path / "run", "mlps", preset="official-code"), Listener()
    (run / "classify" / OPTIONS).unlink()

    chosen(run, "mlps", listener)

    assert listener.heard[0].startswith(f"warning: {run / 'classify' / OPTIONS} is not there")


@pytest.mark.parametrize("missing", ["method", "options"])
def test_a_classifier_of_an_older_version_is_refused_with_a_way_out(tmp_path: Path, missing: str) -> None:
    (tmp_path / "run" / "classify").mkdir(parents=True)
    older = {key: value for key, value in plan("mlps", "classify").items() if key != missing}
    save_state(tmp_path / "run" / "classify" / "last.pt", {"plan": older, "step": 40, "best": 0.5, "best_step": 20})

    with pytest.raises(DataError, match=r"begun with an older version of wsiseg.*--overwrite without --stages"):
        chosen(tmp_path / "run", "mlps")


def test_options_are_noted_where_they_are_known_to_hold(tmp_path: Path) -> None:
    method, run = known("mlps"), trained(tmp_path / "run", "mlps")
    options = load(method.options, options={"gate": False})
    now = Chosen(options=options, stages=method.stages(options))

    def gates() -> dict[str, bool]:
        return {path.parent.name: json.loads(path.read_text())["gate"] for path in run.glob(f"*/{OPTIONS}")}

    note_options(now, run, LATER, is_certain=True)
    assert gates() == {"classify": True, "segment": False}
    # The classifier may turn out to have been begun with others.
    note_options(now, run, None, is_certain=False)
    assert gates() == {"classify": True, "segment": False}
    note_options(now, run, None, is_certain=True)
    assert gates() == {"classify": False, "segment": False}


@pytest.mark.parametrize("name", METHODS)
def test_another_network_than_the_trained_one_is_refused(name: str, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", name, backbone="resnet18")

    with pytest.raises(ConfigError, match=r"classify was trained with options\.backbone=resnet18 and not resnet50"):
        chosen(run, name, options={"backbone": "resnet50"})
    with pytest.raises(ConfigError, match=r"trained with options\.numbers\.classify\.lr=0\.01 and not 0\.5\. Leave"):
        chosen(run, name, options={"numbers": {"classify": {"lr": 0.5}}})


def test_labels_may_be_made_otherwise_than_the_classifier_was_told() -> None:
    # What is accumulated is also read by the stage that labels, which may leave it alone.
    method = known("craanet")
    stages = method.stages(load(method.options))
    assert stages[1].depends_on.keys() < stages[0].depends_on.keys() | {"reliability"}


def test_a_shared_classifier_makes_labels_of_another_kind(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "craanet", backbone="resnet18")

    options = chosen(run, "craanet", options={"accumulate": False, "energy": {"weight": 0.0}})

    assert options.model_dump()["accumulate"] is False
    assert options.model_dump()["energy"]["weight"] == 0


def test_the_classifier_of_another_method_is_refused(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "mlps")

    with pytest.raises(ConfigError, match="classify was trained by mlps, not by craanet"):
        chosen(run, "craanet")


def test_a_run_of_all_stages_is_as_it_was_asked_for(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "mlps", backbone="resnet18")

    options = chosen(run, "mlps", stages=None, batch_size=3)

    assert options.model_dump()["backbone"] == "resnet38d"
    batches = [
        stage.settings.batch_images for stage in known("mlps").stages(options) if not isinstance(stage, LabelStage)
    ]
    assert np.all(np.array(batches) == 3)
