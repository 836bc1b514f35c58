"""A classifier keeps where it saw the classes of each patch, through shuffling, flips and interruption."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.craanet_makers import BACKBONE, batch, classify_learner, colourful, facts, options
from wsiseg.checkpoint import read_card
from wsiseg.errors import ConfigError, DataError, MethodError
from wsiseg.heads.symmetry import turned
from wsiseg.methods import craanet_classify
from wsiseg.methods.accumulation import AttentionAccumulator
from wsiseg.methods.base import Batch, Clock
from wsiseg.methods.craanet_classify import ATTENTION, AccumulatingNet, ClassifyLearner, ClassifyStage
from wsiseg.methods.stages import Probed
from wsiseg.nets.classifiers import build_classifier
from wsiseg.nets.residual_attention import ClassAttention
from wsiseg.training.state_file import load_state, save_state

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

PRESENT = [[1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1]]
# In the third of the twenty epochs.
LATER = Clock(step=2, steps=20)


def accumulator(learner: ClassifyLearner) -> AttentionAccumulator:
    assert isinstance(learner.module, AccumulatingNet)
    return learner.module.accumulator


def see_colours(learner: ClassifyLearner, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Let the classifier see the three classes where their colours are; return a list that gets what it is shown."""
    shown: list[Tensor] = []

    def attended(images: Tensor) -> ClassAttention:
        shown.append(images)
        scores = functional.avg_pool2d(images, 8)[:, None]
        return ClassAttention(logits=scores.mean(dim=(1, 3, 4)), scores=scores, attention=scores, parts=scores**2)

    assert isinstance(learner.module, AccumulatingNet)
    monkeypatch.setattr(learner.module.net.classifier, "attended", attended)
    return shown


def expected(images: Tensor) -> np.ndarray[Any, np.dtype[np.float16]]:
    """Return the maps of all classes of images that colours are seen in."""
    seen = functional.avg_pool2d(images.float() / 255, 8)
    return (seen / (seen.amax(dim=(2, 3), keepdim=True) + 1e-8)).numpy().astype(np.float16)


def test_maps_belong_to_patches_however_these_are_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    images = colourful()
    for symmetries in ([0] * 4, [4] * 4, [6, 2, 3, 7]):
        learner = classify_learner()
        see_colours(learner, monkeypatch)
        seen = torch.stack([turned(image, symmetry) for image, symmetry in zip(images, symmetries, strict=True)])
        learner.training_step(batch(seen, [0, 1, 2, 3], [[1, 1, 1]] * 4, symmetries), LATER)

        np.testing.assert_array_equal(accumulator(learner).maps, expected(images))


@pytest.mark.parametrize("order", [[[0, 1, 2, 3]], [[3], [1, 0], [2]], [[2, 3, 1], [0]]])
def test_neither_order_nor_size_of_batches_matters(order: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    images, learner = colourful(), classify_learner()
    see_colours(learner, monkeypatch)
    for rows in order:
        learner.training_step(batch(images[rows], rows, [PRESENT[row] for row in rows]), LATER)

    # A lone class is accepted only where it has the highest logit, so all that is left out is left out for good.
    whole = classify_learner()
    see_colours(whole, monkeypatch)
    whole.training_step(batch(images, [0, 1, 2, 3], PRESENT), LATER)
    assert accumulator(whole).counts.sum() > 0
    np.testing.assert_array_equal(accumulator(learner).maps, accumulator(whole).maps)
    np.testing.assert_array_equal(accumulator(learner).counts, accumulator(whole).counts)


def test_the_first_epoch_is_not_kept_and_the_last_fills_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = classify_learner()
    see_colours(learner, monkeypatch)
    data = batch(colourful(), [0, 1, 2, 3], PRESENT)
    learner.training_step(data, Clock(step=0, steps=20))
    assert accumulator(learner).counts.sum() == 0

    learner.training_step(data, Clock(step=19, steps=20))
    np.testing.assert_array_equal(accumulator(learner).counts, PRESENT)


def test_maps_may_be_those_of_what_positions_add(monkeypatch: pytest.MonkeyPatch) -> None:
    images, learner = colourful(), classify_learner(maps="residual")
    see_colours(learner, monkeypatch)
    learner.training_step(batch(images, [0, 1, 2, 3], [[1, 1, 1]] * 4), LATER)

    np.testing.assert_allclose(accumulator(learner).maps, expected(images).astype(np.float32) ** 2, atol=2e-3)


def test_a_state_on_disk_brings_the_attention_back(tmp_path: Path) -> None:
    learner = classify_learner()
    learner.training_step(batch(colourful(), [0, 1, 2, 3], [[1, 1, 1]] * 4), LATER)
    save_state(tmp_path / "last.pt", {"module": learner.module.state_dict()})

    other = classify_learner(seed=1)
    other.module.load_state_dict(load_state(tmp_path / "last.pt")["module"])

    assert accumulator(learner).counts.all()
    np.testing.assert_array_equal(accumulator(other).maps, accumulator(learner).maps)
    np.testing.assert_array_equal(accumulator(other).counts, accumulator(learner).counts)
    with pytest.raises(DataError, match="do not fit"):
        classify_learner(patches=5).module.load_state_dict(learner.module.state_dict())


def test_a_model_is_kept_with_the_attention_of_its_training(tmp_path: Path) -> None:
    learner = classify_learner()
    average = copy.deepcopy(learner.module)
    assert isinstance(average, AccumulatingNet)
    assert average.net is not learner.module.get_submodule("net")
    # Maps of thousands of patches are not copied.
    assert average.accumulator is accumulator(learner)
    learner.training_step(batch(colourful(), [0, 1, 2, 3], [[1, 1, 1]] * 4), LATER)
    learner.predictor(average).save(tmp_path / "model", metrics={})

    np.testing.assert_array_equal(
        AttentionAccumulator.open(tmp_path / "model" / ATTENTION).maps, accumulator(learner).maps
    )


def test_without_accumulation_there_is_none(tmp_path: Path) -> None:
    learner = classify_learner(accumulate=False)
    learner.training_step(batch(colourful(), [0, 1, 2, 3], PRESENT), LATER)
    learner.predictor(learner.module).save(tmp_path / "model", metrics={})

    assert not (tmp_path / "model" / ATTENTION).exists()
    assert accumulator(learner).maps.size == 0


def test_what_was_seen_is_hidden_in_half_of_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = classify_learner(drop=True)
    shown = see_colours(learner, monkeypatch)
    images = colourful(1)
    seen = np.zeros((8, 8), dtype=bool)
    seen[:3, 1] = True
    accumulator(learner).maps[0, 0] = seen
    mirrored = batch(images.flip(-1), [0], [[1, 0, 0]], [4])
    torch.manual_seed(0)
    for _ in range(40):
        learner.training_step(mirrored, Clock(step=0, steps=20))

    mask = torch.from_numpy(np.kron(seen[:, ::-1], np.ones((8, 8), dtype=bool)))
    hidden = (images.flip(-1) / 255).masked_fill(mask, 0)
    is_hidden = [torch.equal(given, hidden) for given in shown]
    assert all(
        hides or torch.equal(given, images.flip(-1) / 255) for hides, given in zip(is_hidden, shown, strict=True)
    )
    assert 8 < sum(is_hidden) < 32


def test_nothing_can_be_hidden_that_is_not_accumulated() -> None:
    with pytest.raises(ConfigError, match="drop hides what accumulated attention has seen"):
        options(drop=True, accumulate=False)


def test_attention_that_is_everywhere_is_told_once_an_epoch(caplog: pytest.LogCaptureFixture) -> None:
    learner = classify_learner()
    accumulator(learner).maps[:, 1] = 0.95
    accumulator(learner).maps[:, 0] = 0.5
    accumulator(learner).counts[:, :2] = 1
    caplog.clear()
    with caplog.at_level(logging.INFO, logger=craanet_classify.__name__):
        for step in range(4):
            learner.after_update(Clock(step=step, steps=40))

    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert all(message.startswith("attention of green is nearly everywhere (its mean is 0.95)") for message in warnings)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert told[0] == "attention of red has a mean of 0.500 in epoch 1"
    # Of blue nothing is known.
    assert len(told) == 4


def test_attention_of_patches_that_are_held_out_does_not_count() -> None:
    chosen = options()
    stage = ClassifyStage(options=chosen, settings=chosen.numbers.classify)
    learner = stage.build(replace(facts(), held_out=(1, 3)), {}, ())
    assert isinstance(learner, Probed)
    for index, value in enumerate((0.25, 1.0, 0.75, 1.0)):
        accumulator(learner).maps[index, :2] = value
        accumulator(learner).counts[index, :2] = 1

    means = learner.mean_attention()

    assert (means["red"], means["green"]) == (0.5, 0.5)
    assert np.isnan(means["blue"])
    assert classify_learner(accumulate=False).mean_attention() == {}


def test_what_has_no_value_is_not_written_on_a_card(tmp_path: Path) -> None:
    learner = classify_learner(accumulate=False)
    learner.predictor(learner.module).save(tmp_path, metrics={"miou": 0.5, "iou_red": float("nan")})

    assert read_card(tmp_path).metrics == {"miou": 0.5}


def test_a_trunk_begins_with_given_weights_and_its_norms_stay(tmp_path: Path) -> None:
    torch.manual_seed(7)
    given = build_classifier(BACKBONE, 3).state_dict()
    torch.save(given, tmp_path / "weights.pt")
    learner = classify_learner(init=str(tmp_path / "weights.pt"))
    learner.module.train()

    own = learner.module.state_dict()
    taken = {name: value for name, value in given.items() if not name.startswith("fc8")}
    assert all(torch.equal(own[f"net.classifier.trunk.{name}"], value) for name, value in taken.items())
    norms = [layer for layer in learner.module.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert not any(layer.training for layer in norms)
    assert any(value.requires_grad for value in learner.module.parameters())


def test_the_head_learns_faster() -> None:
    learner = classify_learner()
    rates = {name: learner.rate_of(name) for name, _ in learner.module.named_parameters()}

    assert {name for name, rate in rates.items() if rate == 10} == {"net.classifier.head.weight"}
    assert set(rates.values()) == {1, 10}


def test_a_batch_without_numbers_is_refused() -> None:
    known = batch(colourful(), [0, 1, 2, 3], PRESENT)
    targets = {name: value for name, value in known.targets.items() if name != "index"}
    with pytest.raises(MethodError, match="numbered patches"):
        classify_learner().training_step(Batch(images=known.images, targets=targets), LATER)


def test_patches_of_an_odd_size_are_refused() -> None:
    stage = ClassifyStage(options=options(), settings=options().numbers.classify)
    with pytest.raises(MethodError, match="60 px, is no multiple of 8"):
        stage.build(facts(crop_px=60), {}, ())
