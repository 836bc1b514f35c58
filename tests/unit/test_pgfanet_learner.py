"""A student of PG-FANet learns from few labels and agrees with its teacher as published."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wsiseg.config import load
from wsiseg.errors import ConfigError, MethodError
from wsiseg.labels import LabelMap
from wsiseg.losses.shape_attention import Variant
from wsiseg.methods.base import Batch, Clock, TrainingFacts
from wsiseg.methods.pgfanet import METHOD, PgfanetLearner
from wsiseg.methods.pgfanet_options import PgfanetOptions
from wsiseg.methods.predictor import NetPredictor, load_predictor, normalised
from wsiseg.methods.teachers import Pair
from wsiseg.nets.pgfanet import PGFANet
from wsiseg.tasks.train_job import TrainConfig, with_usual
from wsiseg.training.optimiser import make_optimiser, set_rates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Literal

SIDE = 32
SMALL: dict[str, Any] = {"encoder": "resnet18", "width": 8, "features": 8}
NAMES = ("background", "gland", "stroma", "fat")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def facts(kind: Literal["instances", "classes"] = "instances", crop_px: int = SIDE) -> TrainingFacts:
    names = NAMES if kind == "classes" else ("background", "nucleus")
    return TrainingFacts(
        name="toy", kind=kind, labels=LabelMap.from_names(names), mpp=0.25, crop_px=crop_px, training_data={}
    )


def learner(kind: Literal["instances", "classes"] = "instances", **options: object) -> PgfanetLearner:
    (stage,) = METHOD.stages(load(PgfanetOptions, options={"net": SMALL, **options}))
    torch.manual_seed(0)
    return stage.build(facts(kind))


def batch(one: PgfanetLearner, *, labelled: int = 2, unlabelled: int = 2) -> Batch:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 255, (labelled + unlabelled, 3, SIDE, SIDE), dtype=np.uint8))
    labels = np.zeros((labelled, SIDE, SIDE), np.int32)
    labels[:, 4:14, 4:14], labels[:, 16:28, 15:30] = 1, 2
    encoded = [one.encode(image, np.ones((SIDE, SIDE), bool)) for image in labels]
    targets = {name: torch.from_numpy(np.stack([item[name] for item in encoded])) for name in encoded[0]}
    return Batch(images=images, targets=targets)


START = Clock(step=0, steps=10)


@pytest.mark.parametrize(("aux", "variance"), [(1.0, 1.0), (0.5, 0.0), (0.0, 3.0)])
def test_labels_and_agreement_make_up_the_loss(aux: float, variance: float) -> None:
    one = learner(consistency=0.5, aux_weight=aux, variance_weight=variance)

    losses = one.training_step(batch(one), Clock(step=5, steps=10))

    value = {name: part.item() for name, part in losses.items()}
    assert value["variance"] > 1e-4
    expected = value["cross_entropy"] + value["dice"] + aux * value["aux"] + variance * value["variance"]
    assert value["loss"] == pytest.approx(expected + value["weight"] * value["consistency"], rel=1e-5)
    assert value["consistency"] == pytest.approx(value["inter"] + value["intra"], rel=1e-5)
    assert value["weight"] == pytest.approx(0.5 * np.exp(-5 / 4))
    assert all(0 <= value[name] <= 1 for name in ("agreement", "entropy", "balance"))


def stepped(**options: object) -> tuple[dict[str, float], list[Tensor]]:
    """Return what one step with the same random numbers says, and what it teaches the student."""
    one = learner("instances", consistency=1.0, **options)
    data = batch(one)
    torch.manual_seed(1)
    losses = one.training_step(data, Clock(step=10, steps=10))
    torch.autograd.backward(losses["loss"])
    gradients = [value.grad for value in one.module.student.parameters() if value.grad is not None]
    return {name: value.item() for name, value in losses.items()}, gradients


def test_each_variant_of_the_agreement_is_another_one() -> None:
    found = {variant: stepped(variant=variant)[0]["consistency"] for variant in get_args(Variant)}

    assert len({round(value, 7) for value in found.values()}) == len(found)


def test_a_target_that_is_detached_says_the_same_and_teaches_something_else() -> None:
    (attached, first), (detached, second) = (stepped(detach_target=is_detached) for is_detached in (False, True))

    assert attached == pytest.approx(detached)
    assert not all(torch.allclose(mine, theirs, rtol=1e-3) for mine, theirs in zip(first, second, strict=True))


@pytest.mark.parametrize(("step", "weight"), [(0, 0.000674), (25, 0.0060), (50, 0.0287), (75, 0.0732), (100, 0.1)])
def test_agreement_weighs_more_and_more(step: int, weight: float) -> None:
    one = learner()

    losses = one.training_step(batch(one), Clock(step=step, steps=100))

    assert losses["weight"].item() == pytest.approx(weight, rel=5e-3)


@pytest.mark.parametrize(("unlabelled", "weight"), [(0, 0.1), (2, 0.0)])
def test_without_images_or_a_weight_there_is_nothing_to_agree_about(unlabelled: int, weight: float) -> None:
    one = learner(consistency=weight)

    losses = one.training_step(batch(one, unlabelled=unlabelled), START)
    torch.autograd.backward(losses["loss"])

    assert {"cross_entropy", "dice", "aux", "variance", "loss"} == set(losses)
    assert all(value.grad is not None for value in one.module.student.parameters())


def test_without_labels_there_is_an_error() -> None:
    one = learner()

    with pytest.raises(MethodError, match="needs some labelled images"):
        one.training_step(Batch(images=batch(one).images, targets={}), START)


def test_classes_of_pixels_need_no_objects() -> None:
    one = learner("classes", dice="per_class")
    data = batch(one)

    losses = one.training_step(data, START)

    assert set(data.targets) == {"classes"}
    assert "variance" not in losses
    assert torch.isfinite(losses["loss"])
    assert one.predictor(one.module).spec.channels == 4
    assert one.predictor(one.module).spec.halo_px == SIDE // 4


def spied(
    seen: list[tuple[Tensor, bool]], both: Callable[..., tuple[Tensor, Tensor]], images: Tensor, *, perturb: bool
) -> tuple[Tensor, Tensor]:
    """Note what a network is given."""
    seen.append((images, perturb))
    return both(images, perturb=perturb)


def test_the_teacher_is_disturbed_by_noise_alone_and_gets_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    one = learner(noise_std=0.5)
    data = batch(one)
    seen: dict[str, list[tuple[Tensor, bool]]] = {"student": [], "teacher": []}
    for name, net in one.module.named_children():
        assert isinstance(net, PGFANet)
        monkeypatch.setattr(net, "both", partial(spied, seen[name], net.both))
    for _ in range(12):
        torch.autograd.backward(one.training_step(data, START)["loss"])

    images = normalised(data.images, one.card)
    clean, noisy = [], []
    for (student, perturbed), (labelled, plain), (teacher, taught) in zip(
        seen["student"][::2], seen["student"][1::2], seen["teacher"], strict=True
    ):
        assert (perturbed, plain, taught) == (True, False, False)
        assert torch.equal(labelled, images[:2])
        # Of the two just one sees the images as they are.
        assert torch.equal(student, images[2:]) != torch.equal(teacher, images[2:])
        clean.append(torch.equal(student, images[2:]))
        noisy.append(torch.where(torch.tensor(clean[-1]), teacher, student) - images[2:])
    assert 0 < sum(clean) < 12
    assert torch.stack(noisy).std().item() == pytest.approx(0.5, rel=0.05)
    assert all(value.grad is None for value in one.module.teacher.parameters())


def test_the_teacher_follows_with_its_statistics() -> None:
    one = learner()
    student, teacher = one.module.student, one.module.teacher
    one.module.train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}

    one.training_step(batch(one), START)
    seen = {name: value.clone() for name, value in teacher.state_dict().items() if "num_batches" not in name}
    one.after_update(START)

    assert all(torch.equal(value, before[name]) for name, value in seen.items())
    # The first update keeps a tenth.
    for name, value in student.state_dict().items():
        if "running" in name:
            assert not torch.equal(value, before[name])
        if value.is_floating_point():
            torch.testing.assert_close(teacher.state_dict()[name], 0.1 * before[name] + 0.9 * value)
        else:
            assert torch.equal(teacher.state_dict()[name], value)


@pytest.mark.parametrize(
    ("step", "kept"), [(0, 0.1), (1, 0.1818), (2, 0.25), (3, 0.3077), (889, 0.98999), (890, 0.99), (5000, 0.99)]
)
def test_the_teacher_keeps_more_and_more(step: int, kept: float, monkeypatch: pytest.MonkeyPatch) -> None:
    one = learner()
    decays: list[tuple[float, bool]] = []
    monkeypatch.setattr(Pair, "follow", lambda _, decay, *, buffers: decays.append((decay, buffers)))

    one.after_update(Clock(step=step, steps=10_000))

    ((decay, has_buffers),) = decays
    assert decay == pytest.approx(kept, abs=1e-4)
    assert has_buffers


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_teacher_normalises_as_asked(mode: str) -> None:
    one = learner(teacher_mode=mode)
    one.module.train()

    one.training_step(batch(one), START)

    assert one.module.teacher.training == (mode == "train")
    assert one.module.student.training


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_teacher_in_training_mode_sees_the_batch_and_one_in_evaluation_only_the_image(mode: str) -> None:
    one = learner(teacher_mode=mode, noise_std=0)
    one.module.train()
    taught: list[Tensor] = []
    one.module.teacher.register_forward_hook(lambda _, __, output: taught.append(output[0]))
    data = batch(one, unlabelled=3)

    one.training_step(data, START)
    one.training_step(Batch(images=data.images[:4], targets=data.targets), START)

    first, second = taught
    assert torch.allclose(first, second, atol=1e-5) == (mode == "eval")


class OfSinglePixels(nn.Module):
    """A network to which an image looks the same however it is turned, or with a slant one to which it does not."""

    def __init__(self, slant: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        nn.init.zeros_(self.conv.weight)
        with torch.no_grad():
            self.conv.weight[:, :, 1, 1] = torch.tensor([[1.0, 0.5, -1], [2, -1, 0.5], [-1, 1, 1]])
            self.conv.weight[:, :, 0, 1] = slant

    def forward(self, images: Tensor) -> Tensor:
        mapped: Tensor = self.conv(images)
        return mapped


@pytest.mark.parametrize("symmetry", range(8))
def test_predictions_of_turned_images_are_turned_back_value_by_value(symmetry: int) -> None:
    card = learner().card
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (2, 3, SIDE, SIDE), dtype=np.uint8))

    with torch.inference_mode():
        same, other = (NetPredictor(card, OfSinglePixels(slant)) for slant in (0.0, 0.3))
        torch.testing.assert_close(same.transformed(images, symmetry), same.forward(images))
        if symmetry:
            # Mirrored left and right, what lies above stays there.
            is_alike = torch.allclose(other.transformed(images, symmetry), other.forward(images), atol=1e-4)
            assert is_alike == (symmetry == 4)


def test_encoders_learn_a_tenth_as_fast_and_rates_rise_and_fall() -> None:
    one = learner()
    settings = with_usual(TrainConfig(), METHOD.training(PgfanetOptions())).fit.model_copy(update={"steps": 100})
    optimiser = make_optimiser(one, settings)
    rates = []
    for step in (0, 5, 99):
        set_rates(optimiser, settings, Clock(step=step, steps=100))
        slow, fast = sorted({group["lr"] for group in optimiser.param_groups} | {0.0 if step else -1.0})[-2:]
        rates.append((slow, fast))

    assert rates[0] == (-1.0, 0)
    assert rates[1] == pytest.approx((2.5e-4 * 0.95**0.9, 2.5e-3 * 0.95**0.9))
    assert rates[2] == pytest.approx((2.5e-4 * 0.01**0.9, 2.5e-3 * 0.01**0.9))
    encoders = {name for name, _ in one.module.named_parameters() if one.rate_of(name) == 1}
    assert {".".join(name.split(".")[:2]) for name in encoders if name.startswith("student")} == {
        "student.encoder",
        "student.encoder2",
    }


def test_presets_hold_what_is_not_set() -> None:
    nuclei = with_usual(TrainConfig(), METHOD.training(PgfanetOptions()))
    glands = with_usual(TrainConfig(batch_size=2), METHOD.training(PgfanetOptions(preset="glands")))
    (stage,) = METHOD.stages(PgfanetOptions(preset="glands", net=SMALL, head_options={"min_area_px": 50}))

    assert (nuclei.crop_px, nuclei.batch_size, nuclei.fit.accumulate, nuclei.fit.clip_norm) == (128, 16, 4, 4.0)
    assert (glands.crop_px, glands.batch_size, glands.fit.accumulate, glands.fit.steps) == (480, 2, 16, 8613)
    card = stage.build(facts()).card
    assert card.head is not None
    assert card.head.options == {"erosion_px": 3, "min_area_px": 50, "dilation_px": 4, "reach_px": 256}
    assert card.halo_px == SIDE // 4


@pytest.mark.parametrize(
    ("kind", "preset", "told"),
    [
        ("instances", "nuclei", ""),
        ("instances", "glands", "the preset glands is meant for 0.5 µm per pixel, and this is 0.25"),
        ("classes", "glands", ""),
    ],
)
def test_another_resolution_than_that_of_the_preset_is_warned_of(
    kind: Literal["instances", "classes"], preset: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    learner(kind, preset=preset)

    assert told in caplog.text
    assert bool(told) == bool(caplog.records)


def test_other_networks_are_refused() -> None:
    with pytest.raises(ConfigError, match="pgfanet"):
        load(PgfanetOptions, options={"arch": "unet-gn"})


def test_the_student_is_what_predicts(tmp_path: Path) -> None:
    one = learner()
    one.module.follow(0.0, buffers=True)
    for value in one.module.teacher.parameters():
        value.zero_()
    images = batch(one).images
    one.predictor(one.module).save(tmp_path / "model", metrics={})

    loaded = load_predictor(tmp_path / "model")

    with torch.inference_mode():
        expected = one.module.student(normalised(images, one.card))
        torch.testing.assert_close(loaded.forward(images), expected, rtol=1e-4, atol=1e-4)
    assert loaded.spec.background[0] > 0
