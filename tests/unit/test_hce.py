"""Decoders of disturbed features agree with the main one and with a teacher, by the formulas of the reconstruction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wsiseg.config import load
from wsiseg.labels import LabelMap
from wsiseg.losses.hierarchical import hierarchical_consistency
from wsiseg.methods.base import Batch, Clock, TrainingFacts
from wsiseg.methods.hce import METHOD, HceLearner, HceOptions
from wsiseg.methods.predictor import normalised
from wsiseg.nets.hce import HCENet, HCESpec

if TYPE_CHECKING:
    from collections.abc import Iterator

SIDE = 32
SMALL: dict[str, Any] = {"encoder": "resnet18", "width": 8, "features": 8, "decoders": 2}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn(seed: int) -> Tensor:
    """Return random probabilities (2, 4, 5, 3)."""
    return torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(seed)).softmax(dim=1)


def net(**settings: Any) -> HCENet:  # noqa: ANN401 - settings of the network
    torch.manual_seed(0)
    return HCENet(HCESpec(**SMALL, **settings), 3)


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_the_loss_is_that_of_its_formula() -> None:
    main, others, teacher = drawn(0), [drawn(1), drawn(2), drawn(3)], drawn(4)
    doubt = -(teacher * teacher.log()).sum(dim=1, keepdim=True)
    target = (1 - doubt) * teacher + doubt * main

    losses = hierarchical_consistency(main, others, teacher)

    intra = sum((main - other).square().mean() for other in others) / 3
    torch.testing.assert_close(losses["inter"], (main - target).square().mean())
    torch.testing.assert_close(losses["intra"], intra)
    torch.testing.assert_close(losses["loss"], losses["inter"] + losses["intra"])


def test_where_all_agree_there_is_no_loss_and_all_opinions_get_a_gradient() -> None:
    same = drawn(0)
    assert hierarchical_consistency(same, [same, same], same)["loss"].item() == pytest.approx(0, abs=1e-9)

    main, other = drawn(0).requires_grad_(), drawn(1).requires_grad_()
    torch.autograd.backward(hierarchical_consistency(main, [other], drawn(2))["loss"])

    assert main.grad is not None
    assert main.grad.any()
    assert other.grad is not None
    assert other.grad.any()


def test_auxiliary_decoders_alone_are_disturbed() -> None:
    one = net().eval()

    with torch.no_grad():
        plain = one.opinions(images(), perturb=False)
        torch.manual_seed(1)
        disturbed = one.opinions(images(), perturb=True)

    assert len(plain) == 3
    assert all(logits.shape == (2, 3, SIDE, SIDE) for logits in plain)
    assert torch.equal(one(images()), plain[0])
    assert torch.equal(disturbed[0], plain[0])
    assert not torch.equal(disturbed[1], plain[1])
    assert not torch.equal(disturbed[2], plain[2])


def test_disturbances_are_noise_lost_positions_and_lost_channels() -> None:
    one = net()
    features = [torch.rand(2, 6, 8, 8, generator=torch.Generator().manual_seed(n)) + 0.5 for n in range(4)]
    torch.manual_seed(0)
    kinds = set()

    for _ in range(30):
        factors = [changed / x for changed, x in zip(one._disturbed(features), features, strict=True)]
        if all((factor > 0).all() for factor in factors):
            kinds.add("noise")
            assert all(factor.min() >= 0.7 - 1e-5 and factor.max() <= 1.3 + 1e-5 for factor in factors)
            assert all(torch.allclose(factor[0], factor[1], atol=1e-5) for factor in factors)
        elif all(torch.equal(factor[:, :1].expand_as(factor) > 0, factor > 0) for factor in factors):
            kinds.add("positions")
            for factor, x in zip(factors, features, strict=True):
                activity = x.mean(dim=1)
                lost = factor[:, 0] == 0
                assert lost.flatten(1).any(dim=1).all()
                assert (activity >= 0.7 * activity.amax(dim=(1, 2), keepdim=True))[lost].all()
        else:
            kinds.add("channels")
            assert all(torch.equal(factor.amax(dim=(2, 3)), factor.amin(dim=(2, 3))) for factor in factors)
            assert all(torch.isin(factor, torch.tensor([0.0, 2.0])).all() for factor in factors)

    assert kinds == {"noise", "positions", "channels"}


def learner(**options: object) -> HceLearner:
    (stage,) = METHOD.stages(load(HceOptions, options={"net": SMALL, **options}))
    facts = TrainingFacts(
        name="toy",
        kind="instances",
        labels=LabelMap.from_names(("background", "nucleus")),
        mpp=0.25,
        crop_px=SIDE,
        training_data={},
    )
    torch.manual_seed(0)
    return stage.build(facts)


def batch(one: HceLearner, *, unlabelled: int) -> Batch:
    rng = np.random.default_rng(0)
    labels = np.zeros((SIDE, SIDE), np.int32)
    labels[4:14, 4:14], labels[16:28, 15:30] = 1, 2
    encoded = one.encode(labels, np.ones((SIDE, SIDE), bool))
    targets = {name: torch.from_numpy(np.stack([values] * 2)) for name, values in encoded.items()}
    pixels = rng.integers(0, 255, (2 + unlabelled, 3, SIDE, SIDE), dtype=np.uint8)
    return Batch(images=torch.from_numpy(pixels), targets=targets)


def test_labels_and_agreement_make_up_the_loss() -> None:
    one = learner(consistency=0.5)

    losses = one.training_step(batch(one, unlabelled=2), Clock(step=5, steps=10))
    torch.autograd.backward(losses["loss"])

    value = {name: part.item() for name, part in losses.items()}
    expected = value["cross_entropy"] + value["dice"] + value["aux"] + value["weight"] * value["consistency"]
    assert value["loss"] == pytest.approx(expected, rel=1e-5)
    assert value["consistency"] == pytest.approx(value["inter"] + value["intra"], rel=1e-5)
    assert value["weight"] == pytest.approx(0.5 * np.exp(-5 / 4))
    assert all(values.grad is not None and values.grad.any() for values in one.module.student.parameters())
    assert all(values.grad is None for values in one.module.teacher.parameters())


@pytest.mark.parametrize(("unlabelled", "weight"), [(0, 0.1), (2, 0.0)])
def test_without_images_or_a_weight_there_is_nothing_to_agree_about(unlabelled: int, weight: float) -> None:
    one = learner(consistency=weight)

    losses = one.training_step(batch(one, unlabelled=unlabelled), Clock(step=5, steps=10))

    assert set(losses) == {"loss", "cross_entropy", "dice", "aux"}


def test_the_teacher_sees_noise_and_the_student_does_not() -> None:
    one = learner(noise_std=0.5, noise_clip=0.8)
    data = batch(one, unlabelled=2)
    seen: dict[str, list[Tensor]] = {"student": [], "teacher": []}
    for name, net in one.module.named_children():
        assert isinstance(net, HCENet)
        net.encoder.conv1.register_forward_pre_hook(lambda _, given, name=name: seen[name].append(given[0]))

    for _ in range(2):
        one.training_step(data, Clock(step=5, steps=10))

    given = normalised(data.images, one.card)
    for shown, as_it_is in zip(seen["student"], [given[:2], given[2:]] * 2, strict=True):
        assert torch.equal(shown, as_it_is)
    noise = torch.stack(seen["teacher"]) - given[2:]
    assert noise.abs().max().item() == pytest.approx(0.8, abs=1e-5)
    assert noise.std().item() == pytest.approx(0.44, abs=0.03)
    assert not torch.equal(noise[0], noise[1])


@pytest.mark.parametrize(
    ("step", "kept"), [(0, 0.1), (1, 0.1818), (2, 0.25), (889, 0.98999), (890, 0.99), (5000, 0.99)]
)
def test_the_teacher_follows_with_its_statistics(step: int, kept: float) -> None:
    one = learner()
    before = {name: value.clone() for name, value in one.module.teacher.state_dict().items()}
    for part in (*one.module.student.parameters(), *one.module.student.buffers()):
        part.data = part.data + 1

    one.after_update(Clock(step=step, steps=10_000))

    for name, value in one.module.teacher.state_dict().items():
        moved = 1 - kept if value.is_floating_point() else 1
        torch.testing.assert_close(value, before[name] + torch.tensor(moved, dtype=value.dtype), rtol=0, atol=1e-4)
