"""What every method promises, whatever it does inside."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wsiseg.checkpoint import Normalisation
from wsiseg.config import load
from wsiseg.errors import ConfigError, MethodError
from wsiseg.heads.symmetry import turned, turned_back
from wsiseg.labels import LabelMap
from wsiseg.methods import registry
from wsiseg.methods.base import Batch, Clock, DenseLearner, TrainingFacts
from wsiseg.methods.predictor import NetPredictor, head_of, load_predictor
from wsiseg.methods.registry import get_method, get_patch_method, method_names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SIDE = 32


@dataclass(frozen=True)
class Case:
    """A method with options and data that suit it."""

    method: str
    kind: str
    options: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.method}-{self.kind}-{self.options.get('head', 'auto')}-{self.options['arch']}"


SMALL = {"arch": "unet-gn", "net": {"widths": [8, 16]}}
DUAL = {"arch": "dual-unet", "net": {"widths": [8, 16], "dropouts": [0.1, 0.3]}}
GUIDED = {"arch": "pgfanet", "net": {"encoder": "resnet18", "width": 8, "features": 8}}
SEVERAL = {"arch": "hce", "net": {"encoder": "resnet18", "width": 8, "features": 8, "decoders": 2}}
FINDING = {"arch": "maskrcnn", "net": {"encoder": "resnet18", "width": 16, "proposals": [60, 60], "rois": 30}}
CASES = [
    Case("hce", "classes", SEVERAL),
    Case("hce", "instances", SEVERAL),
    Case("label-efficient", "instances", {**SMALL, "head": "flow"}),
    Case("label-efficient", "instances", {**SMALL, "head": "star"}),
    Case("label-efficient", "instances", FINDING),
    Case("supervised", "classes", SEVERAL),
    Case("supervised", "classes", SMALL),
    Case("supervised", "instances", FINDING),
    Case("supervised", "instances", {**SMALL, "head": "centre"}),
    Case("supervised", "instances", {**SMALL, "head": "flow"}),
    Case("supervised", "instances", {**SMALL, "head": "hv"}),
    Case("supervised", "instances", {**SMALL, "head": "star"}),
    Case("supervised", "instances", {**SMALL, "head": "semantic"}),
    Case("supervised", "instances", {**DUAL, "head": "level-set"}),
    Case("supervised", "instances", {**GUIDED, "head": "ternary"}),
    Case("mean-teacher", "classes", SMALL),
    Case("mean-teacher", "instances", {**GUIDED, "head": "ternary"}),
    Case("pgfanet", "classes", GUIDED),
    Case("pgfanet", "instances", GUIDED),
    Case("ugmcl", "classes", DUAL),
    Case("ugmcl", "instances", DUAL),
    Case("supervised", "classes", {"arch": "unet", "encoder": "tu-mobilenetv3_small_050"}),
    Case("supervised", "classes", {"arch": "deeplabv3+", "encoder": "mobilenetv3_small_050"}),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(case: Case, seed: int = 0) -> DenseLearner:
    method = get_method(case.method)
    facts = TrainingFacts(
        name="toy",
        kind="classes" if case.kind == "classes" else "instances",
        labels=LabelMap.from_names(("background", "object")),
        mpp=0.5,
        crop_px=SIDE if case.options["arch"] == "unet-gn" else 64,
        training_data={"toy.zarr": "1234"},
    )
    # The last stage is the one that is kept.
    *_, stage = method.stages(load(method.options, options=case.options))
    torch.manual_seed(seed)
    return stage.build(facts)


def patches(case: Case, count: int = 4) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return dark discs on a light ground, with labels of the case's kind."""
    side = SIDE if case.options["arch"] == "unet-gn" else 64
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    labels = np.zeros((count, side, side), np.int32)
    for image in labels:
        for number, (row, column) in enumerate([(8, 8), (8, 24), (23, 9), (24, 23)], start=1):
            image[np.hypot(y - row, x - column) < 5 + rng.random()] = number
    images = np.where(labels[..., None] > 0, (110, 70, 140), (225, 190, 215)) + rng.integers(
        -10, 10, (*labels.shape, 3)
    )
    return images.astype(np.uint8), labels if case.kind == "instances" else (labels > 0).astype(np.int32)


def batch(
    learner: DenseLearner, images: NDArray[np.uint8], labels: NDArray[np.int32], valid: NDArray[np.bool_]
) -> Batch:
    encoded = [learner.encode(one, known) for one, known in zip(labels, valid, strict=True)]
    targets = {name: torch.from_numpy(np.stack([item[name] for item in encoded])) for name in encoded[0]}
    return Batch(images=torch.from_numpy(images).permute(0, 3, 1, 2), targets=targets)


def everything(case: Case, learner: DenseLearner) -> Batch:
    images, labels = patches(case)
    return batch(learner, images, labels, np.ones(labels.shape, bool))


START = Clock(step=0, steps=10)
# The library of networks takes many seconds to import.
each = pytest.mark.parametrize(
    "case", [pytest.param(case, id=str(case), marks=[pytest.mark.slow] * ("encoder" in case.options)) for case in CASES]
)


def test_every_method_has_a_case() -> None:
    assert {case.method for case in CASES} == set(registry.METHODS)


@pytest.mark.parametrize("name", method_names())
def test_options_survive_a_round_trip(name: str) -> None:
    method = get_patch_method(name) or get_method(name)
    options = method.options()

    assert method.name == name
    assert method.summary
    assert load(method.options, options=options.model_dump(mode="json")) == options
    with pytest.raises(ConfigError, match="unknown setting"):
        load(method.options, options={"no_such_option": 1})


@each
def test_the_loss_is_a_finite_scalar_and_its_gradient_reaches_every_parameter(case: Case) -> None:
    learner = build(case)
    learner.module.train()

    losses = learner.training_step(everything(case, learner), START)
    torch.autograd.backward(losses["loss"])

    assert all(value.shape == () and torch.isfinite(value) for value in losses.values())
    without = [name for name, value in learner.module.named_parameters() if value.requires_grad and value.grad is None]
    assert without == []
    assert all(
        bool((value.grad != 0).any())
        for value in learner.module.parameters()
        if value.ndim > 1 and value.grad is not None
    )


@each
def test_what_is_ignored_changes_no_gradient(case: Case) -> None:
    learner = build(case)
    learner.module.eval()
    images, labels = patches(case)
    valid = np.ones(labels.shape, bool)
    valid[:, :, SIDE // 2 :] = False
    other = labels.copy()
    # Two of the objects lie in what is ignored, as a whole: those at its edge keep their full shape.
    other[~valid] = 0
    losses = []
    for given, known in ((labels, valid), (other, valid), (labels, np.zeros_like(valid))):
        # Some add noise to what they see.
        torch.manual_seed(0)
        losses.append(learner.training_step(batch(learner, images, given, known), START)["loss"])

    assert losses[0] == losses[1]
    # Something can be learnt from images alone by some methods.
    assert losses[2] == 0 or get_method(case.method).takes_unlabelled


@each
def test_the_same_seed_gives_the_same_loss(case: Case) -> None:
    losses = []
    for seed in (3, 3, 4):
        learner = build(case, seed)
        learner.module.eval()
        torch.manual_seed(0)
        losses.append(learner.training_step(everything(case, learner), START)["loss"].item())

    assert losses[0] == losses[1] != losses[2]


@each
def test_a_saved_model_predicts_the_same(case: Case, tmp_path: Path) -> None:
    learner = build(case)
    images = everything(case, learner).images
    predictor = learner.predictor(learner.module)
    predictor.save(tmp_path / "model", metrics={"aji": 0.5})

    loaded = load_predictor(tmp_path / "model")

    assert loaded.spec == predictor.spec
    with torch.inference_mode():
        expected = predictor.forward(images)
        torch.testing.assert_close(loaded.forward(images), expected, rtol=1e-4, atol=1e-4)
        assert expected.dtype == torch.float32
        assert expected.shape[:2] == (4, loaded.spec.channels)
        if loaded.spec.task == "semantic":
            torch.testing.assert_close(expected.sum(dim=1), torch.ones_like(expected[:, 0]))
        else:
            maps = expected[0].numpy()
            foreground = loaded.foreground(maps)
            assert foreground.shape == loaded.decode(maps).labels.shape == maps.shape[1:]
            assert 0 <= foreground.min() <= foreground.max() <= 1


@each
def test_predictions_over_all_symmetries_turn_with_the_image(case: Case) -> None:
    learner = build(case)
    predictor = learner.predictor(learner.module)
    assert isinstance(predictor, NetPredictor)
    head = head_of(predictor.card)
    images, mirrored_and_turned = everything(case, learner).images[:1], 5

    def over_all(shown: Tensor) -> Tensor:
        return torch.stack([predictor.transformed(shown, symmetry) for symmetry in range(8)]).mean(dim=0)

    with torch.inference_mode():
        torch.testing.assert_close(predictor.transformed(images, 0), predictor.forward(images))
        expected, found = over_all(images), over_all(turned(images, mirrored_and_turned))
        undo = turned_back if head is None else head.turned_back
        torch.testing.assert_close(undo(found, mirrored_and_turned), expected, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


@each
def test_images_without_labels_may_come_after_those_with_labels(case: Case) -> None:
    if not get_method(case.method).takes_unlabelled:
        pytest.skip("the method learns from labels only")
    learner = build(case)
    learner.module.train()
    whole = everything(case, learner)
    mixed = Batch(images=whole.images, targets={name: value[:2] for name, value in whole.targets.items()})

    losses = learner.training_step(mixed, START)
    torch.autograd.backward(losses["loss"])
    learner.after_update(START)

    assert mixed.labelled == 2
    assert all(torch.isfinite(value) for value in losses.values())


@each
def test_an_unlabelled_batch_is_used_or_refused(case: Case) -> None:
    learner = build(case)
    unlabelled = Batch(images=everything(case, learner).images, targets={})

    try:
        losses = learner.training_step(unlabelled, START)
    except MethodError:
        return
    assert torch.isfinite(losses["loss"])


@pytest.mark.parametrize(
    "case", [case for case in CASES if "ramp" in get_method(case.method).options.model_fields], ids=str
)
def test_a_short_ramp_is_over_before_the_training(case: Case) -> None:
    weights = {}
    for ramp in (1.0, 0.5):
        learner = build(Case(case.method, case.kind, {**case.options, "ramp": ramp}))
        whole = everything(case, learner)
        mixed = Batch(images=whole.images, targets={name: value[:2] for name, value in whole.targets.items()})
        weights[ramp] = [
            learner.training_step(mixed, Clock(step=step, steps=20))["weight"].item() for step in (0, 4, 10, 20)
        ]

    assert weights[1.0] == sorted(set(weights[1.0]))
    # Its half is the whole of the usual one twice as late, and after it the weight stays.
    assert weights[0.5][1] == pytest.approx(weights[1.0][3] * math.exp(-5 * (1 - 8 / 20) ** 2))
    assert weights[0.5][2] == weights[0.5][3] == weights[1.0][3]


@pytest.mark.slow
@each
def test_four_patches_are_learnt_by_heart(case: Case) -> None:
    learner = build(case)
    data = everything(case, learner)
    optimiser = torch.optim.AdamW(learner.module.parameters(), lr=5e-3)
    learner.module.train()

    losses = []
    for step in range(150):
        loss = learner.training_step(data, Clock(step=step, steps=150))["loss"]
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())

    assert losses[-1] < 0.5 * losses[0]


def test_a_method_of_another_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name, value = "foreign", "elsewhere:METHOD"

        def load(self) -> object:
            return get_method("supervised")

    class Broken(Entry):
        name = "broken"

        def load(self) -> object:
            raise ImportError("no module named elsewhere")

    monkeypatch.setattr(
        registry, "entry_points", lambda group: [Entry(), Broken()] if group == "wsiseg.methods" else []
    )

    assert {"broken", "foreign"} == set(method_names()) - set(registry.METHODS) - set(registry.PATCH_METHODS)
    assert get_method("foreign") is get_method("supervised")
    with pytest.raises(MethodError, match="cannot be loaded: no module"):
        get_method("broken")


def test_a_slip_of_the_pen_is_met() -> None:
    with pytest.raises(MethodError, match=r"Did you mean supervised\?"):
        get_method("supervized")
    with pytest.raises(MethodError, match=r"Known: .*supervised"):
        get_method("xyz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "unet-gm"}, r"Did you mean unet-gn\?"),
        ({"arch": "unet3d"}, "unet3d is no network of images"),
        pytest.param({"arch": "unet", "encoder": "resnet35"}, r"Did you mean resnet\d+\?", marks=pytest.mark.slow),
        ({"arch": "unet-gn", "head": "floww"}, r"Did you mean flow\?"),
        ({**FINDING, "head": "flow"}, "maskrcnn finds objects without the maps of the head 'flow'"),
        ({**FINDING, "head": "semantic"}, "without the maps of the head 'semantic'"),
        ({"arch": "maskrcnn", "encoder": "resnet51"}, r"Did you mean resnet\d+\?"),
        ({"arch": "unet-gn", "head_options": {"reach": 3}}, "reach"),
        ({"arch": "unet-gn", "net": {"widths": [8, 16, 32, 64, 128, 256, 256]}}, "Use multiples of 64"),
    ],
)
def test_what_is_unknown_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        build(Case("supervised", "instances", options))


def test_training_begins_with_the_weights_of_a_file(tmp_path: Path) -> None:
    trained = build(Case("supervised", "classes", SMALL), seed=1)
    torch.save(trained.module.state_dict(), tmp_path / "weights.pth")

    begun = build(Case("supervised", "instances", {**SMALL, "init": str(tmp_path / "weights.pth")}))

    before, after = trained.module.state_dict(), begun.module.state_dict()
    same = {name for name, value in after.items() if before[name].shape == value.shape}
    assert 0 < len(same) < len(after)
    assert all(torch.equal(before[name], after[name]) for name in same)


def test_deeplab_gets_colours_as_they_are() -> None:
    learner = build(Case("supervised", "classes", {"arch": "deeplabv3+", "encoder": "mobilenetv3_small_050"}))

    predictor = learner.predictor(learner.module)
    assert isinstance(predictor, NetPredictor)
    assert predictor.card.normalisation == Normalisation.none()


def test_a_head_for_objects_needs_objects() -> None:
    with pytest.raises(MethodError, match="the layer holds classes of pixels"):
        build(Case("supervised", "classes", {**SMALL, "head": "flow"}))
