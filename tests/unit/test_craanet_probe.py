"""Patches that are validated on are accumulated and labelled as those that are learnt from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.craanet_makers import batch, classify_learner, colourful, facts, options
from wsiseg.methods.accumulation import AttentionAccumulator
from wsiseg.methods.base import Batch, Clock
from wsiseg.methods.craanet_classify import AccumulatingNet
from wsiseg.methods.craanet_label import AttentionLabeller, PseudoLabelStage
from wsiseg.methods.stages import Probed
from wsiseg.nets.residual_attention import attention_maps
from wsiseg.training.state_file import load_state, save_state

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.methods.craanet_classify import ClassifyLearner

EPOCHS = 4
# Numbers and classes of the patches that are validated on; there are others.
NUMBERS = [4, 1, 3]
PRESENT = [[1, 1, 0], [0, 1, 1], [1, 1, 1]]
TRAINING: dict[str, Any] = {"numbers": {"classify": {"epochs": EPOCHS}}}


def held_out() -> Batch:
    return batch(colourful(3), NUMBERS, PRESENT)


def learner(**changes: Any) -> tuple[ClassifyLearner, AccumulatingNet]:  # noqa: ANN401 - fields of CraanetOptions
    made = classify_learner(patches=6, **TRAINING, **changes)
    assert isinstance(made, Probed)
    assert isinstance(made.module, AccumulatingNet)
    return made, made.module


def learn(module: AccumulatingNet, epoch: int) -> None:
    """Give a network the weights that it has after an epoch."""
    generator = torch.Generator().manual_seed(epoch)
    module.train()
    for value in module.parameters():
        value.data += 0.1 * value.std(unbiased=False).item() * torch.randn(value.shape, generator=generator)


def probed(made: ClassifyLearner, module: AccumulatingNet, epochs: range) -> NDArray[np.uint8]:
    """Return the labels of the patches after the last of some epochs."""
    for epoch in epochs:
        learn(module, epoch)
        # Of the last of two updates of an epoch.
        labels = made.probe(held_out(), Clock(step=2 * epoch - 1, steps=2 * EPOCHS))
    return labels


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"accumulation": {"mode": "mean"}},
        {"accumulation": {"mode": "ema", "start_epoch": 1}},
        {"accumulation": {"accept": "prob", "min_prob": 0.5}},
        {"maps": "residual"},
    ],
)
def test_they_are_accumulated_as_by_hand_and_no_others(changes: dict[str, Any]) -> None:
    made, module = learner(**changes)
    probed(made, module, range(1, EPOCHS + 1))

    _, other = learner(**changes)
    by_hand = AttentionAccumulator(6, 3, (8, 8), options(**changes).accumulation)
    for epoch in range(1, EPOCHS + 1):
        learn(other, epoch)
        with torch.no_grad():
            found = other.net.eval().classifier.attended(colourful(3) / 255)
        maps = attention_maps(found.parts if changes.get("maps") == "residual" else found.scores).numpy()
        present = np.array(PRESENT, dtype=bool)
        by_hand.update(
            NUMBERS,
            maps,
            found.logits.numpy(),
            present,
            symmetries=[0] * 3,
            epoch=epoch,
            is_last=epoch == EPOCHS,
        )
    np.testing.assert_array_equal(module.accumulator.maps, by_hand.maps)
    np.testing.assert_array_equal(module.accumulator.counts, by_hand.counts)
    assert (module.accumulator.counts[NUMBERS] > 0).tolist() == np.array(PRESENT, dtype=bool).tolist()
    assert module.accumulator.counts.max() > 1
    assert not module.accumulator.counts[[0, 2, 5]].any()


def test_the_training_does_not_notice() -> None:
    made, module = learner()
    weights = {name: value.clone() for name, value in module.net.state_dict().items()}
    before = torch.get_rng_state()

    made.probe(held_out(), Clock(step=3, steps=2 * EPOCHS))

    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[name]) for name, value in module.net.state_dict().items())


@pytest.mark.parametrize("accumulate", [True, False])
def test_they_are_labelled_as_the_finished_model_labels_them(tmp_path: Path, *, accumulate: bool) -> None:
    made, module = learner(accumulate=accumulate)
    labels = probed(made, module, range(1, EPOCHS + 1))
    made.predictor(module).save(tmp_path, metrics={})

    stage = PseudoLabelStage(options=options(accumulate=accumulate))
    labeller = stage.labeller(facts(patches=6), {"classify": tmp_path}, torch.device("cpu"))
    complete, _ = labeller.layers
    given = labeller.label(held_out().images, torch.tensor(PRESENT) > 0, None, indices=np.array(NUMBERS))
    np.testing.assert_array_equal(labels, given[complete].labels.numpy())
    alone = AttentionLabeller(module.net, None, options())
    last = alone.label(held_out().images, torch.tensor(PRESENT) > 0, None, indices=np.array(NUMBERS))
    is_last = (last[alone.layers[0]].labels.numpy() == labels).all()
    assert is_last != accumulate


def test_the_way_of_accumulating_changes_their_labels() -> None:
    labels = []
    for mode in ("max", "mean"):
        made, module = learner(accumulation={"mode": mode})
        labels.append(probed(made, module, range(1, EPOCHS + 1)))

    assert (labels[0] != labels[1]).any()


def test_a_resumed_training_goes_on_accumulating_them(tmp_path: Path) -> None:
    made, module = learner(accumulation={"mode": "mean"})
    probed(made, module, range(1, 3))
    save_state(tmp_path / "last.pt", {"module": module.state_dict()})
    whole = probed(made, module, range(3, EPOCHS + 1))

    other, resumed = learner(accumulation={"mode": "mean"})
    resumed.load_state_dict(load_state(tmp_path / "last.pt")["module"])
    labels = probed(other, resumed, range(3, EPOCHS + 1))

    np.testing.assert_array_equal(labels, whole)
    np.testing.assert_array_equal(resumed.accumulator.maps, module.accumulator.maps)
    np.testing.assert_array_equal(resumed.accumulator.counts, module.accumulator.counts)
