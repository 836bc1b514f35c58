"""A segmentation network learns from reliable labels; its other losses can be left out, and leave nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.craanet_makers import BACKBONE, LAYERS, SIDE, classify_learner, colourful, options, segment_learner
from wsiseg.checkpoint import read
from wsiseg.errors import MethodError
from wsiseg.labels import IGNORE
from wsiseg.losses.contrast import pixel_clustering
from wsiseg.losses.semantic import cross_entropy
from wsiseg.methods import craanet_segment
from wsiseg.methods.base import Batch, Clock
from wsiseg.methods.craanet import METHOD
from wsiseg.methods.craanet_segment import ComparingNet, SegmentStage
from wsiseg.methods.predictor import load_predictor
from wsiseg.nets.gated import GatedDeepLab, GatedSpec, build_gated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn

    from wsiseg.methods.craanet_segment import SegmentLearner

STEPS = 16
NEITHER: dict[str, Any] = {"energy": {"weight": 0}, "contrast": {"weight": 0}}


def data() -> Batch:
    """Return four patches of two classes, a corner of them white and a band of them not reliable."""
    complete = torch.zeros(4, SIDE, SIDE, dtype=torch.int64)
    complete[:, :, SIDE // 2 :] = 1
    complete[:, :8, :8] = IGNORE
    reliable = complete.clone()
    reliable[:, SIDE // 2 - 8 : SIDE // 2 + 8] = IGNORE
    present = torch.tensor([[1.0, 1.0, 0.0]] * 4)
    return Batch(images=colourful(), targets={"complete": complete, "reliable": reliable, "present": present})


def losses(learner: SegmentLearner, step: int, given: Batch | None = None) -> dict[str, float]:
    """Return the losses of a step, always with the same dropout."""
    torch.manual_seed(1)
    learner.module.train()
    found = learner.training_step(data() if given is None else given, Clock(step=step, steps=STEPS))
    return {name: value.item() for name, value in found.items()}


def trained(module: nn.Module, loss: Callable[[int], Tensor], *, steps: int) -> dict[str, Tensor]:
    """Return the weights of a segmentation network after some steps."""
    net = module.net if isinstance(module, ComparingNet) else module
    assert isinstance(net, GatedDeepLab)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    torch.manual_seed(1)
    module.train()
    for step in range(steps):
        optimiser.zero_grad()
        torch.autograd.backward(loss(step))
        optimiser.step()
    return net.state_dict()


def trained_learner(*, steps: int, **changes: Any) -> dict[str, Tensor]:  # noqa: ANN401 - fields of CraanetOptions
    learner = segment_learner(**changes)
    return trained(
        learner.module,
        lambda step: learner.training_step(data(), Clock(step=step, steps=STEPS))["loss"],
        steps=steps,
    )


def pure(*, steps: int) -> dict[str, Tensor]:
    """Return the weights of a network that knows of cross-entropy alone."""
    torch.manual_seed(0)
    net = build_gated(GatedSpec(backbone=BACKBONE, classifier=None), 3)
    known = data()
    return trained(
        net, lambda _: cross_entropy(net.segmenter(known.images.float() / 255), known.targets["reliable"]), steps=steps
    )


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_without_weights_it_is_training_by_cross_entropy_to_the_last_bit() -> None:
    assert same(trained_learner(steps=3, **NEITHER), pure(steps=3))


def test_contrast_that_waits_changes_nothing_to_the_last_bit() -> None:
    waiting = {"energy": {"weight": 0}, "contrast": {"start": 0.125, "max_views": 20}}

    assert same(trained_learner(steps=2, **waiting), pure(steps=2))
    assert not same(trained_learner(steps=3, **waiting), pure(steps=3))


def test_energy_acts_from_the_first_step() -> None:
    assert not same(trained_learner(steps=1, contrast={"weight": 0}), pure(steps=1))


def test_the_loss_is_the_weighted_sum_of_its_parts() -> None:
    learner = segment_learner(energy={"weight": 0.5}, contrast={"weight": 0.2, "start": 0.5, "max_views": 20})
    early = losses(learner, STEPS // 2 - 1)
    # Centres exist from the first step on that pixels are compared in.
    losses(learner, STEPS // 2)
    late = losses(learner, STEPS // 2)

    assert early["pixel_contrast"] == early["centre_contrast"] == 0
    assert early["loss"] == pytest.approx(early["cross_entropy"] + 0.5 * early["dense_energy"])
    assert min(late.values()) > 0
    clustering = late["pixel_contrast"] + late["centre_contrast"]
    assert late["loss"] == pytest.approx(late["cross_entropy"] + 0.5 * late["dense_energy"] + 0.2 * clustering)
    assert early.keys() == late.keys()


def test_centres_follow_the_network_once_it_has_learnt_something() -> None:
    learner = segment_learner()
    assert isinstance(learner.module, ComparingNet)
    assert learner.module.space is not None
    centres = learner.module.space.centres
    losses(learner, 0)
    assert not centres.is_seen.any()

    for _ in range(2):
        losses(learner, STEPS - 1)
    assert centres.is_seen.any()
    assert not centres.is_seen[2].any()
    assert centres.state_dict().keys() <= {name.rpartition(".")[2] for name in learner.module.state_dict()}


def test_centres_follow_the_pixels_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = segment_learner()
    assert isinstance(learner.module, ComparingNet)
    assert learner.module.space is not None
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(craanet_segment, "of_all", lambda values: torch.cat((values, values)))
    monkeypatch.setattr(learner.module.space.centres, "update", lambda *parts: seen.append(tuple(map(len, parts))))

    losses(learner, STEPS - 1)

    assert seen == [(8, 8, 8)]


def test_labels_that_are_not_reliable_are_not_learnt() -> None:
    given = data()
    others = given.targets["complete"].clone()
    is_open = (given.targets["reliable"] == IGNORE) & (others != IGNORE)
    others[is_open] = 2
    changed = Batch(images=given.images, targets={**given.targets, "complete": others})

    assert losses(segment_learner(), STEPS - 1) == losses(segment_learner(), STEPS - 1, changed)


def test_white_neither_asks_nor_is_asked() -> None:
    given = data()
    nothing = torch.full_like(given.targets["reliable"], IGNORE)
    all_white = Batch(images=given.images, targets={**given.targets, "complete": nothing, "reliable": nothing})
    no_labels = Batch(images=given.images, targets={**given.targets, "reliable": nothing})

    assert losses(segment_learner(), STEPS - 1, all_white)["loss"] == 0
    found = losses(segment_learner(), STEPS - 1, no_labels)
    assert found["loss"] == found["dense_energy"] > 0


def test_clear_pixels_may_be_compared_as_what_they_are_near_to(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[Tensor] = []

    def watched(vectors: Tensor, labels: Tensor, *rest: Any, **settings: Any) -> dict[str, Tensor]:  # noqa: ANN401
        compared.append(labels)
        return pixel_clustering(vectors, labels, *rest, **settings)

    monkeypatch.setattr(craanet_segment, "pixel_clustering", watched)
    for margin in (None, 0.0):
        learner = segment_learner(contrast={"relabel_margin": margin})
        assert isinstance(learner.module, ComparingNet)
        assert learner.module.space is not None
        centres = learner.module.space.centres
        centres.centres[:] = torch.nn.functional.normalize(torch.randn(centres.centres.shape), dim=-1)
        centres.is_seen[:] = True
        losses(learner, STEPS - 1)

    plain, relabelled = compared
    is_known, is_white = plain != IGNORE, torch.zeros_like(plain, dtype=torch.bool)
    is_white[:, :2, :2] = True
    assert torch.equal(plain[is_known], relabelled[is_known])
    assert (relabelled[is_white] == IGNORE).all()
    new = relabelled[~is_known & ~is_white]
    assert (new != IGNORE).any()
    # Class 2 is not in these patches.
    assert set(new.tolist()) <= {0, 1, IGNORE}


def test_what_is_needed_in_training_only_is_not_kept(tmp_path: Path) -> None:
    learners = {"with": segment_learner(), "without": segment_learner(**NEITHER)}
    prob = {}
    for name, learner in learners.items():
        predictor = learner.predictor(learner.module)
        predictor.save(tmp_path / name, metrics={})
        with torch.inference_mode():
            prob[name] = predictor.forward(colourful())
            torch.testing.assert_close(load_predictor(tmp_path / name).forward(colourful()), prob[name])

    assert any("space.projection" in name for name in learners["with"].module.state_dict())
    weights = {name: read(tmp_path / name).weights for name in learners}
    assert weights["with"].keys() == weights["without"].keys()
    assert not any("projection" in name or "centre" in name for name in weights["with"])
    assert torch.equal(prob["with"], prob["without"])


def test_a_gate_is_kept_and_stays_as_it_is(tmp_path: Path) -> None:
    first = classify_learner(seed=5)
    first.predictor(first.module).save(tmp_path / "classify", metrics={})
    learner = segment_learner(classifier=tmp_path / "classify", gate=True, epsilon=0.999)
    learner.predictor(learner.module).save(tmp_path / "segment", metrics={})

    trained_before = read(tmp_path / "classify").weights
    kept = read(tmp_path / "segment").weights
    assert all(torch.equal(kept[name], value) for name, value in trained_before.items())
    learning = [name for name, value in learner.module.named_parameters() if value.requires_grad]
    assert not any("classifier." in name for name in learning)
    with torch.inference_mode():
        prob = load_predictor(tmp_path / "segment").forward(colourful())
    # So strict a gate leaves one class alone.
    assert ((prob > 0).any(dim=(2, 3)).sum(dim=1) == 1).all()
    # Models are judged without it.
    assert (learner.predictor(learner.module).forward(colourful()) > 0).all()


def test_a_gate_of_another_classifier_is_refused(tmp_path: Path) -> None:
    first = classify_learner(heads=2)
    first.predictor(first.module).save(tmp_path, metrics={})
    with pytest.raises(MethodError, match="trained with another backbone"):
        segment_learner(classifier=tmp_path, gate=True)


@pytest.mark.parametrize("decoder", ["v3plus", "none"])
def test_new_layers_learn_faster(decoder: str) -> None:
    learner = segment_learner(decoder=decoder)
    rates = {name: learner.rate_of(name) for name, _ in learner.module.named_parameters()}

    fast = {name for name, rate in rates.items() if rate == 10}
    assert fast == {name for name in rates if "backbone" not in name}
    assert any("projection" in name for name in fast)
    assert {rate for name, rate in rates.items() if name not in fast} == {1}


def test_without_a_decoder_it_learns_and_is_kept(tmp_path: Path) -> None:
    learner = segment_learner(decoder="none", contrast={"max_views": 2})
    assert learner.module.get_submodule("net.segmenter").stride == 8
    # Centres exist from the first step on that pixels are compared in.
    losses(learner, STEPS - 1)
    assert min(losses(learner, STEPS - 1).values()) > 0

    predictor = learner.predictor(learner.module)
    predictor.save(tmp_path, metrics={})
    with torch.inference_mode():
        found = predictor.forward(colourful())
        torch.testing.assert_close(load_predictor(tmp_path).forward(colourful()), found)
    assert not any("decoder" in name for name in read(tmp_path).weights)


def test_patches_may_be_mirrored_up_and_down() -> None:
    stages = [METHOD.stages(options(vertical_flips=flag))[-1] for flag in (False, True)]

    assert [stage.flips for stage in stages if isinstance(stage, SegmentStage)] == ["horizontal", "both"]


@pytest.mark.parametrize(
    ("steps", "changes", "is_told"),
    [
        (120, {}, True),
        (800, {}, False),
        (120, {"contrast": {"start": 0.9}}, False),
        (120, {"contrast": {"weight": 0}}, False),
    ],
)
def test_contrast_that_does_not_wait_for_the_network_is_warned_of_once(
    steps: int,
    changes: dict[str, Any],
    is_told: bool,  # noqa: FBT001
    caplog: pytest.LogCaptureFixture,
) -> None:
    learner = segment_learner(**changes)
    caplog.clear()
    for step in range(3):
        learner.after_update(Clock(step=step, steps=steps))

    said = [record.getMessage() for record in caplog.records]
    assert [message.partition(",")[0] for message in said] == is_told * ["contrast begins after 15 of 120 updates"]


def test_a_batch_without_labels_is_refused() -> None:
    known = data()
    targets = {name: value for name, value in known.targets.items() if name != LAYERS[1]}
    with pytest.raises(MethodError, match="lack the labels reliable"):
        segment_learner().training_step(Batch(images=known.images, targets=targets), Clock(step=0, steps=STEPS))
