"""Student, teacher and two tasks teach each other on images and volumes, where the teacher is sure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from wsiseg.config import load
from wsiseg.errors import ConfigError, MethodError
from wsiseg.labels import IGNORE, LabelMap
from wsiseg.losses import mutual
from wsiseg.methods.base import Batch, Clock, TrainingFacts
from wsiseg.methods.predictor import load_predictor
from wsiseg.methods.ugmcl import METHOD, UgmclLearner
from wsiseg.methods.ugmcl_options import UgmclOptions
from wsiseg.nets.dual_task import DualTaskNet
from wsiseg.nets.factory import build_described
from wsiseg.tasks.train_job import TrainConfig, with_usual
from wsiseg.training.augmentation import Augmentation
from wsiseg.volumes import VolumeInput

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIDE = 16
IMAGES: dict[str, Any] = {"arch": "dual-unet", "net": {"widths": [4, 8], "dropouts": [0.1, 0.5]}}
VOLUMES: dict[str, Any] = {"arch": "unet3d", "net": {"widths": [4, 8]}}
HALFWAY = Clock(step=5, steps=10)
of_both = pytest.mark.parametrize("given", [IMAGES, VOLUMES], ids=["images", "volumes"])


def build(
    given: dict[str, Any],
    *,
    classes: int = 2,
    kind: Literal["instances", "classes"] = "classes",
    spacing_mm: tuple[float, float, float] | None = (2, 1, 1),
    **changes: object,
) -> UgmclLearner:
    is_volume = given.get("arch") in ("unet3d", "vnet")
    facts = TrainingFacts(
        name="toy",
        kind=kind,
        labels=LabelMap.from_names(tuple(f"class{n}" for n in range(classes))),
        mpp=None if is_volume else 0.5,
        crop_px=SIDE,
        training_data={},
        volume=VolumeInput(patch=(8, 8, 8), spacing_mm=spacing_mm) if is_volume else None,
    )
    (stage,) = METHOD.stages(load(UgmclOptions, options={**given, **changes}))
    torch.manual_seed(0)
    return stage.build(facts)


def batch(learner: UgmclLearner, *, classes: int = 2, labelled: int = 2, count: int = 4, known: float = 1) -> Batch:
    rng = np.random.default_rng(0)
    shape = (8, 8, 8) if learner.card.volume is not None else (SIDE, SIDE)
    labels = rng.integers(0, classes, (count, *shape), dtype=np.int32)
    labels[:, 2:6, 2:6] = 1
    encoded = [learner.encode(one, rng.random(shape) <= known) for one in labels[:labelled]]
    if learner.card.volume is not None:
        images = torch.from_numpy(labels + rng.normal(0, 0.3, labels.shape)).float().unsqueeze(1)
    else:
        images = torch.from_numpy((labels[:, None] * 90 + rng.integers(0, 60, (count, 3, *shape))).astype(np.uint8))
    targets = {name: torch.from_numpy(np.stack([item[name] for item in encoded])) for name in encoded[0]}
    return Batch(images=images, targets=targets)


@of_both
@pytest.mark.parametrize("classes", [2, 3])
def test_images_and_volumes_learn_in_one_way(given: dict[str, Any], classes: int) -> None:
    learner = build(given, classes=classes)

    losses = learner.training_step(batch(learner, classes=classes), HALFWAY)
    torch.autograd.backward(losses["loss"])

    assert all(value.shape == () and torch.isfinite(value) for value in losses.values())
    told = {name: value.item() for name, value in losses.items()}
    supervised = 0.5 * (told["cross_entropy"] + told["dice"]) + 0.3 * told["distance"]
    assert told["weight"] == pytest.approx(0.1 * math.exp(-5 / 4))
    assert told["loss"] == pytest.approx(supervised + told["weight"] * (told["intra_task"] + told["cross_task"]))
    assert 0 <= told["coverage"] <= 1
    assert 0 < told["entropy"] <= 1
    assert 0 <= told["balance"] <= 1
    assert all(value.grad is not None for value in learner.module.student.parameters())
    assert all(value.grad is None for value in learner.module.teacher.parameters())


def test_the_weight_rises_from_next_to_nothing_and_so_does_what_it_weighs() -> None:
    learner = build(IMAGES)
    begin, end = (learner.training_step(batch(learner), Clock(step=step, steps=1000)) for step in (0, 1000))

    assert begin["weight"].item() == pytest.approx(0.000674, abs=1e-6)
    assert end["weight"].item() == pytest.approx(0.1)
    assert begin["weight"] * (begin["intra_task"] + begin["cross_task"]) < 0.01 * begin["loss"]


def test_the_ramp_of_the_released_code_rises_in_steps() -> None:
    weights = [
        learner_weight(build(IMAGES, preset="official-code", mc_passes=1), step) for step in (0, 149, 150, 30_000)
    ]

    assert weights[0] == weights[1] == pytest.approx(0.1 * math.exp(-5))
    assert weights[2] == pytest.approx(0.1 * math.exp(-5 * (1 - 1 / 200) ** 2))
    assert weights[3] == pytest.approx(0.1)


def learner_weight(learner: UgmclLearner, step: int) -> float:
    return learner.training_step(batch(learner), Clock(step=step, steps=30_000))["weight"].item()


def test_the_teacher_is_the_mean_of_the_first_students_and_a_running_average_after() -> None:
    learner = build(IMAGES)
    pair = learner.module
    weight = {name: dict(net.named_parameters())["seg.bias"] for name, net in pair.named_children()}
    kept = []
    for step in (0, 1, 2, 3, 98, 99, 500):
        with torch.no_grad():
            weight["teacher"].fill_(1)
            weight["student"].fill_(0)
        learner.after_update(Clock(step=step, steps=1000))
        kept.append(weight["teacher"][0].item())
        if step == 0:
            assert all(
                torch.equal(*both) for both in zip(pair.teacher.parameters(), pair.student.parameters(), strict=True)
            )

    assert kept == pytest.approx([0, 0.5, 2 / 3, 0.75, 1 - 1 / 99, 0.99, 0.99])
    assert not any(value.requires_grad for value in pair.teacher.parameters())


def test_the_teacher_is_normalised_as_its_student_in_prediction() -> None:
    learner = build(IMAGES)
    learner.training_step(batch(learner), HALFWAY)

    learner.after_update(Clock(step=0, steps=10))

    buffers = zip(learner.module.teacher.named_buffers(), learner.module.student.named_buffers(), strict=True)
    assert all(torch.equal(mine, theirs) for (_, mine), (_, theirs) in buffers)


@pytest.mark.parametrize(("given", "is_mixed"), [({}, False), ({"preset": "paper"}, True)])
def test_what_is_learnt_from_labels_depends_on_images_without_as_published_alone(
    given: dict[str, Any], *, is_mixed: bool
) -> None:
    entropies = []
    for shade in (0, 200):
        learner = build(IMAGES, **given)
        data = batch(learner)
        data.images[2:] = shade
        torch.manual_seed(1)
        entropies.append(learner.training_step(data, HALFWAY)["cross_entropy"].item())

    assert (entropies[0] != entropies[1]) == is_mixed


class Echo(DualTaskNet):
    """Says of each pixel what its colour is."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Identity(), torch.nn.Identity())
        self.passes: list[int] = []

    def features(self, x: Tensor) -> Tensor:
        self.passes.append(len(x))
        return x


@pytest.mark.parametrize(("at_once", "passes"), [(1, [3] * 8), (2, [6] * 4), (3, [9, 9, 6]), (20, [24])])
def test_each_image_is_judged_by_passes_of_its_own(at_once: int, passes: list[int]) -> None:
    learner = build(IMAGES, mc_at_once=at_once, noise_std=0)
    learner.module.teacher = echo = Echo()
    images = torch.randn(3, 2, 5, 4)

    found = learner.doubt(images)

    assert echo.passes == passes
    torch.testing.assert_close(found, mutual.entropy(images.softmax(dim=1)))


@of_both
def test_passes_differ_by_dropout_alone_and_by_noise_alone(given: dict[str, Any]) -> None:
    images = batch(build(given)).images.float() / 100
    for is_dropped, noise in ((True, 0.0), (False, 0.1), (False, 0.0)):
        learner = build(given, mc_passes=1, noise_std=noise)
        learner.module.train(is_dropped)

        first, second = learner.doubt(images), learner.doubt(images)

        assert torch.equal(first, second) == (not is_dropped and noise == 0)


def test_as_many_passes_together_as_one_by_one_find_the_same_doubt_on_average() -> None:
    images = torch.randn(2, 3, SIDE, SIDE)
    means = []
    for at_once in (1, 2):
        learner = build(IMAGES, mc_passes=64, mc_at_once=at_once)
        learner.module.train()
        torch.manual_seed(1)
        means.append(learner.doubt(images).mean(dim=(1, 2, 3)))

    torch.testing.assert_close(means[0], means[1], atol=0.03, rtol=0)


def test_only_what_is_certain_is_agreed_upon() -> None:
    nothing = build(IMAGES, certainty=(0.0, 0.0), ctc={"masked": True})
    losses = nothing.training_step(batch(nothing), HALFWAY)

    assert losses["coverage"] == losses["intra_task"] == losses["cross_task"] == 0
    assert torch.isfinite(losses["loss"])


class Pointwise(DualTaskNet):
    """Says of each pixel or voxel what its own intensity says."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), nn.Identity())
        self.weight = nn.Parameter(torch.tensor([1.0, -0.3, 0.05]))

    def features(self, x: Tensor) -> Tensor:
        return x

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x * self.weight[2]).tanh(), torch.cat((x * self.weight[1], x * self.weight[0]), dim=1)


@pytest.mark.parametrize("preset", ["wsiseg", "paper", "official-code"])
def test_images_are_volumes_of_one_slice(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsiseg.methods.ugmcl.normalised", lambda images, _: images)
    rng = np.random.default_rng(0)
    labels = ndimage.gaussian_filter(rng.normal(size=(4, SIDE, SIDE)), (0, 2, 2)) > 0
    images = torch.from_numpy(labels + rng.normal(0, 0.5, labels.shape)).float()
    flat, deep = (
        build(given, preset=preset, noise_std=0, mc_passes=2, sdf={"longest": 8}, spacing_mm=None)
        for given in (IMAGES, VOLUMES)
    )
    losses = []
    for learner, one in ((flat, (SIDE, SIDE)), (deep, (1, SIDE, SIDE))):
        teacher = Pointwise()
        with torch.no_grad():
            teacher.weight.add_(0.2)
        learner.module.student, learner.module.teacher = Pointwise(), teacher
        targets = encoded(learner, labels[:2].reshape(2, *one).astype(np.int32))
        shown = Batch(images=images.reshape(4, 1, *one), targets=targets)
        losses.append({name: value.item() for name, value in learner.training_step(shown, HALFWAY).items()})

    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0]["intra_task"] > 0
    assert losses[0]["cross_task"] > 0


def test_images_without_labels_may_be_all_that_agrees() -> None:
    learner = build(IMAGES, consistency_on="unlabelled", mc_passes=1)
    learner.module.eval()
    some, others = batch(learner, count=4), batch(learner, count=2)

    assert "weight" in learner.training_step(some, HALFWAY)
    assert "weight" not in learner.training_step(others, HALFWAY)
    assert "weight" not in build(IMAGES, consistency=0.0).training_step(some, HALFWAY)


@of_both
def test_labels_alone_are_enough(given: dict[str, Any]) -> None:
    learner = build(given, mc_passes=2)

    assert torch.isfinite(learner.training_step(batch(learner, count=2), HALFWAY)["loss"])
    with pytest.raises(MethodError, match="some labelled images"):
        learner.training_step(Batch(images=batch(learner).images, targets={}), HALFWAY)


@of_both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_stays_finite(given: dict[str, Any], dtype: torch.dtype) -> None:
    learner = build(given, mc_passes=2)

    with torch.autocast("cpu", dtype=dtype):
        losses = learner.training_step(batch(learner), HALFWAY)
    torch.autograd.backward(losses["loss"])

    assert all(torch.isfinite(value) for value in losses.values())
    assert losses["cross_task"].dtype == losses["distance"].dtype == losses["entropy"].dtype == torch.float32
    assert all(value.grad is None or torch.isfinite(value.grad).all() for value in learner.module.parameters())


def test_objects_are_learnt_with_level_sets_of_their_own() -> None:
    learner = build(IMAGES, kind="instances", sdf={"longest": 8, "zero_ring": True})

    losses = learner.training_step(batch(learner, known=0.9), HALFWAY)

    assert learner.card.head is not None
    assert learner.card.head.options == {"longest_px": 8.0, "zero_ring": True}
    assert torch.isfinite(losses["loss"])
    assert losses["distance"] > 0
    assert learner.predictor(learner.module).spec.channels == 3


def test_targets_leave_out_what_is_unknown() -> None:
    learner = build(IMAGES, classes=3)
    labels = np.zeros((SIDE, SIDE), np.int32)
    labels[4:8, 4:8] = 2
    valid = np.ones(labels.shape, bool)
    valid[:, 12:] = False

    targets = learner.encode(labels, valid)

    assert targets["level_sets"].shape == targets["settled"].shape == (2, SIDE, SIDE)
    assert (targets["level_sets"][0] == 1).all()
    np.testing.assert_array_equal(targets["level_sets"][1] <= 0, labels == 2)
    assert (targets["classes"][:, 12:] == IGNORE).all()
    assert targets["settled"][1, :, 8].any()
    assert not targets["settled"][1, :, 11:].any()


def test_volumes_are_measured_in_millimetres() -> None:
    learner = build(VOLUMES, sdf={"longest": 4})
    labels = np.zeros((8, 8, 8), np.int32)
    labels[4] = 1

    found = learner.encode(labels, np.ones(labels.shape, bool))["level_sets"][0]

    np.testing.assert_allclose(found[:, 0, 0] * 4, [4, 4, 3, 1, -1, 1, 3, 4])


@pytest.mark.parametrize("place", [(0, 0, 0), (1, 0, 3), (2, 0, 1)])
def test_where_a_volume_lies_in_its_padded_window_changes_no_level_set_of_a_crop(place: tuple[int, int, int]) -> None:
    learner = build(VOLUMES, preset="paper", spacing_mm=(2, 1, 1))
    volume = np.zeros((6, 8, 5), np.int32)
    volume[1:4, :5, 1:4] = 1
    alone = learner.encode(volume, np.ones(volume.shape, bool))

    inside = tuple(slice(at, at + side) for at, side in zip(place, volume.shape, strict=True))
    labels, valid = np.full((8, 8, 8), IGNORE, np.int32), np.zeros((8, 8, 8), bool)
    labels[inside], valid[inside] = volume, True
    padded = learner.encode(labels, valid)

    for name in ("level_sets", "settled"):
        np.testing.assert_array_equal(padded[name][:, *inside], alone[name])
    assert padded["settled"].sum() == alone["settled"].sum() == volume.size
    assert padded["level_sets"][:, *inside].max() == -padded["level_sets"].min() == 1


def test_level_sets_of_what_nobody_knows_are_not_learnt() -> None:
    learner = build(VOLUMES, preset="paper")

    targets = learner.encode(np.zeros((8, 8, 8), np.int32), np.zeros((8, 8, 8), bool))

    assert not targets["settled"].any()
    assert (targets["level_sets"] == 1).all()


def facts_of(side: int, volume: VolumeInput | None = None) -> TrainingFacts:
    return TrainingFacts(
        name="toy",
        kind="classes",
        labels=LabelMap.from_names(("background", "organ")),
        mpp=None,
        crop_px=side,
        training_data={},
        volume=volume,
    )


@pytest.mark.parametrize(
    ("facts", "longest"),
    [
        (facts_of(512), 32),
        (facts_of(128), 32),
        (facts_of(96), 24),
        (facts_of(96, VolumeInput(patch=(48, 64, 96))), 12),
        (facts_of(96, VolumeInput(patch=(16, 96, 96), spacing_mm=(5, 1, 1))), 20),
        (facts_of(96, VolumeInput(patch=(192, 160, 160), spacing_mm=(0.5, 0.5, 0.5))), 32),
    ],
)
def test_level_sets_reach_no_further_than_a_quarter_of_what_is_seen(facts: TrainingFacts, longest: float) -> None:
    options = METHOD.resolved(load(UgmclOptions), facts)

    assert isinstance(options, UgmclOptions)
    assert options.sdf.longest == longest
    assert METHOD.resolved(options, facts_of(32)) == options
    for given in ({"sdf": {"longest": 7}}, {"preset": "paper"}, {"preset": "official-code"}):
        chosen = load(UgmclOptions, options=given)
        assert METHOD.resolved(chosen, facts) == chosen


def test_the_middle_of_a_small_organ_is_far_from_its_border() -> None:
    window = (32, 64, 64)
    places = np.indices(window) - np.reshape(window, (3, 1, 1, 1)) / 2
    organ = ((places / np.reshape((6, 14, 6), (3, 1, 1, 1))) ** 2).sum(axis=0) <= 1
    (stage,) = METHOD.stages(load(UgmclOptions, options=VOLUMES))

    targets = stage.build(facts_of(64, VolumeInput(patch=window))).encode(organ.astype(np.int32), np.ones(window, bool))

    assert targets["level_sets"].min() < -0.6
    assert targets["level_sets"].max() == 1


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        (
            "paper",
            {"supervised_weight": 1, "sdf.weight": 1, "sdf.norm": "crop", "itc.channels": "sum", "itc.beta": 0.75},
        ),
        ("official-code", {"sdf.weight": 0, "sdf.inverse_dice": 0.5, "itc.beta": 1, "itc.weight": 0.5}),
        ("wsiseg", {"sdf.weight": 0.3, "sdf.norm": "truncated", "sdf.longest": None, "itc.channels": "mean"}),
    ],
)
def test_presets_stay_what_they_are_through_a_file(preset: str, expected: dict[str, Any]) -> None:
    options = load(UgmclOptions, options={"preset": preset})
    again = load(UgmclOptions, options=options.model_dump(mode="json"))
    changed = load(UgmclOptions, options={"preset": preset, "sdf": {"weight": 0.7}, "mc_passes": 4})

    assert options == again
    for name, value in expected.items():
        group, _, field = name.partition(".")
        assert (getattr(getattr(options, group), field) if field else getattr(options, group)) == value
    assert (changed.sdf.weight, changed.mc_passes) == (0.7, 4)
    assert changed.sdf.norm == options.sdf.norm
    assert options.training()["fit"]["steps"] == (6000 if preset == "paper" else 30_000)


def test_presets_train_on_volumes_as_published() -> None:
    def training(preset: str) -> TrainConfig:
        options = load(UgmclOptions, options={"preset": preset})
        return with_usual(TrainConfig(), METHOD.training(options, of_volumes=True))

    paper, code, ours = (training(preset) for preset in ("paper", "official-code", "wsiseg"))

    assert (paper.patch, code.patch, ours.patch) == ((80, 112, 112), (96, 96, 96), None)
    assert (paper.fit.schedule, paper.fit.step_every, paper.fit.step_factor) == ("step", 2500, 0.1)
    assert (paper.fit.steps, code.fit.steps, ours.fit.steps) == (6000, 30_000, 30_000)
    assert (paper.augmentation.noise, code.augmentation.contrast) == (0, 0)
    assert ours.augmentation == Augmentation()
    assert ours.fit == with_usual(TrainConfig(), METHOD.training(UgmclOptions())).fit


@pytest.mark.parametrize("preset", ["paper", "official-code"])
def test_presets_can_be_learnt_from(preset: str) -> None:
    learner = build(VOLUMES, preset=preset)

    losses = learner.training_step(batch(learner), HALFWAY)

    assert torch.isfinite(losses["loss"])
    assert ("distance" in losses) == (preset == "paper")
    assert ("inverse_dice" in losses) == (preset == "official-code")


def test_unknown_presets_are_named() -> None:
    with pytest.raises(ConfigError, match="preset"):
        load(UgmclOptions, options={"preset": "papers"})


@pytest.mark.parametrize(
    ("given", "arch"), [({}, "dual-unet"), ({"preset": "paper"}, "dual-unet"), ({"arch": "vnet"}, "vnet")]
)
def test_the_network_is_that_of_the_preset(given: dict[str, Any], arch: str) -> None:
    options = load(UgmclOptions, options=given)

    assert options.network(of_volumes=False) == arch
    assert options.network(of_volumes=True) == ("unet3d" if given == {} else "vnet")


def test_other_networks_learn_a_second_task_where_they_have_dropout(tmp_path: Path) -> None:
    given = {"arch": "unet-gn", "net": {"widths": [8, 16], "dropout": 0.3}}
    for kind in ("classes", "instances"):
        learner = build(given, kind=kind, mc_passes=1)
        assert torch.isfinite(learner.training_step(batch(learner), HALFWAY)["loss"])
        predictor = learner.predictor(learner.module)
        predictor.save(tmp_path / kind, metrics={})
        images = batch(learner).images
        with torch.inference_mode():
            torch.testing.assert_close(load_predictor(tmp_path / kind).forward(images), predictor.forward(images))
    with pytest.raises(MethodError, match="no dropout"):
        build({**given, "net": {"widths": [8, 16]}})
    with pytest.raises(MethodError, match="cannot be taught level sets"):
        build({"arch": "pgfanet"})


def test_networks_of_volumes_are_for_volumes() -> None:
    with pytest.raises(MethodError, match="unet3d is no network of images"):
        METHOD.stages(load(UgmclOptions, options=VOLUMES))[0].build(
            TrainingFacts(
                name="toy",
                kind="classes",
                labels=LabelMap.from_names(("a", "b")),
                mpp=None,
                crop_px=SIDE,
                training_data={},
            )
        )
    with pytest.raises(MethodError, match="8 × 8 × 8 voxels do not fit"):
        build({"arch": "vnet", "net": {"widths": [2, 2, 2, 2, 2]}})


def test_a_student_is_kept_without_its_teacher(tmp_path: Path) -> None:
    for name, given in (("images", IMAGES), ("volumes", VOLUMES)):
        learner = build(given)
        learner.predictor(learner.module).save(tmp_path / name, metrics={})
        images = batch(learner).images

        loaded = load_predictor(tmp_path / name)

        with torch.inference_mode():
            prob = loaded.forward(images)
        torch.testing.assert_close(prob.sum(dim=1), torch.ones_like(prob[:, 0]))
        assert loaded.card.net["level_sets"] == 1


def ellipses(count: int, side: int, dims: int, *, seed: int, noise: float) -> tuple[Tensor, np.ndarray[Any, Any]]:
    """Return normalised images (N, 3 or 1, …) of bright ellipses in noise, and their labels."""
    rng = np.random.default_rng(seed)
    grid = np.indices((side,) * dims).astype(float)
    labels = np.zeros((count, *(side,) * dims), np.int32)
    for one in labels:
        centre, radii = rng.uniform(0.35, 0.65, dims) * side, rng.uniform(0.15, 0.3, dims) * side
        distance = sum(((at - c) / r) ** 2 for at, c, r in zip(grid, centre, radii, strict=True))
        one[distance <= 1] = 1
    channels = 3 if dims == 2 else 1
    images = labels[:, None] + rng.normal(0, noise, (count, channels, *labels.shape[1:]))
    return torch.from_numpy(images).float(), labels


def dice_of(net: DualTaskNet, images: Tensor, labels: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Return the Dice of the classes, and of the level sets."""
    net.eval()
    with torch.inference_mode():
        sdf, logits = net.both(images)
    net.train()
    truth = torch.from_numpy(labels) > 0
    first, second = (
        2 * (found & truth).sum() / (found.sum() + truth.sum()) for found in (logits.argmax(dim=1) > 0, sdf[:, 0] <= 0)
    )
    return float(first), float(second)


def trained(learner: UgmclLearner, batches: Callable[[int], Batch], steps: int) -> list[float]:
    """Train on normalised images with the method's own optimiser."""
    learner.module.train()
    optimiser = torch.optim.SGD(learner.module.student.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    trace = []
    for step in range(steps):
        clock = Clock(step=step, steps=steps)
        optimiser.param_groups[0]["lr"] = 0.01 * (1 - step / steps) ** 0.9
        loss = learner.training_step(batches(step), clock)["loss"]
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        learner.after_update(clock)
        trace.append(loss.item())
    return trace


def as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsiseg.methods.ugmcl.normalised", lambda images, _: images)


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "dims", "side", "steps"), [("dual-unet", 2, 64, 150), ("unet3d", 3, 32, 300)])
def test_two_images_are_learnt_by_heart(
    arch: str, dims: int, side: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = build({"arch": arch}, consistency=0.0, sdf={"longest": 16}) if dims == 2 else whole(arch)
    as_they_are(monkeypatch)
    images, labels = ellipses(2, side, dims, seed=0, noise=0.3)
    targets = encoded(learner, labels)

    trained(learner, lambda _: Batch(images=images, targets=targets), steps)

    net = learner.module.student
    assert isinstance(net, DualTaskNet)
    classes, level_sets = dice_of(net, images, labels)
    assert classes > 0.95
    assert level_sets > 0.8


def whole(arch: str) -> UgmclLearner:
    facts = TrainingFacts(
        name="toy",
        kind="classes",
        labels=LabelMap.from_names(("background", "organ")),
        mpp=None,
        crop_px=32,
        training_data={},
        volume=VolumeInput(patch=(32, 32, 32)),
    )
    given = {"arch": arch, "net": {"widths": [8, 16, 32]}, "consistency": 0.0}
    options = load(UgmclOptions, options=given)
    torch.manual_seed(0)
    return METHOD.stages(options)[0].build(facts)


def encoded(learner: UgmclLearner, labels: np.ndarray[Any, Any]) -> dict[str, Tensor]:
    items = [learner.encode(one, np.ones(one.shape, bool)) for one in labels]
    return {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_images_without_labels_help_and_the_same_seed_gives_the_same_losses(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = ellipses(104, 64, 2, seed=seed, noise=1.0)
    test, test_labels = images[64:], labels[64:]

    def learnt(*, consistency: float, steps: int) -> tuple[tuple[float, float], list[float]]:
        net = {"widths": [8, 16, 32, 64, 128]}
        learner = build({"arch": "dual-unet", "net": net}, consistency=consistency, sdf={"longest": 16})
        as_they_are(monkeypatch)
        targets = encoded(learner, labels[:4])
        rng = np.random.default_rng(0)

        def draw(_: int) -> Batch:
            first, second = rng.choice(4, 2, replace=False), 4 + rng.choice(60, 2, replace=False)
            return Batch(
                images=torch.cat((images[first], images[second])),
                targets={name: value[first] for name, value in targets.items()},
            )

        trace = trained(learner, draw, steps)
        student = learner.module.student
        assert isinstance(student, DualTaskNet)
        return dice_of(student, test, test_labels), trace

    (alone, alone_sdf), _ = learnt(consistency=0.0, steps=300)
    (helped, helped_sdf), trace = learnt(consistency=0.1, steps=300)

    assert all(map(math.isfinite, trace))
    assert helped >= alone - 0.01
    assert helped_sdf > alone_sdf + 0.01
    assert learnt(consistency=0.1, steps=5)[1] == learnt(consistency=0.1, steps=5)[1]


def test_the_student_alone_is_the_network_that_others_train() -> None:
    learner = build(IMAGES)
    alone = build_described(learner.card.net, 3, 2)

    assert {name: value.shape for name, value in alone.state_dict().items()} == {
        name: value.shape for name, value in learner.module.student.state_dict().items()
    }
