"""Labels of pixels follow accumulated attention where there is any, and the trained classifier elsewhere."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.craanet_makers import BACKBONE, SIDE, classify_learner, colourful, facts, options, segment_learner
from wsiseg.errors import DataError, MethodError
from wsiseg.labels import IGNORE
from wsiseg.methods.accumulation import AttentionAccumulator
from wsiseg.methods.craanet_classify import ATTENTION, AccumulatingNet
from wsiseg.methods.craanet_label import AttentionLabeller, PseudoLabelStage
from wsiseg.nets.attending import AttendingSpec, AttentionMaps, build_attending

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

BOTH = torch.tensor([[True, True, False]] * 2)
NUMBERS = np.array([2, 5])


def network() -> AttentionMaps:
    torch.manual_seed(0)
    return build_attending(AttendingSpec(backbone=BACKBONE), 3)


def halves() -> AttentionAccumulator:
    """Return attention of patch 5 alone: class 1 on the left and class 0 on the right."""
    accumulated = AttentionAccumulator(6, 3, (8, 8))
    ramp = np.linspace(0, 1, 8)
    accumulated.maps[5, 0], accumulated.maps[5, 1] = ramp, ramp[::-1]
    accumulated.counts[5, :2] = 1
    return accumulated


def labelled(
    accumulated: AttentionAccumulator | None,
    white: Tensor | None = None,
    **changes: Any,  # noqa: ANN401 - fields of CraanetOptions
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return all labels and the reliable ones of patches 2 and 5."""
    labeller = AttentionLabeller(network(), accumulated, options(**changes))
    made = labeller.label(colourful(2), BOTH, white, indices=NUMBERS)
    complete, reliable = (made[name].labels.numpy() for name in labeller.layers)
    return complete, reliable


def test_accumulated_attention_says_where() -> None:
    complete, reliable = labelled(halves())

    assert (complete[1, :, : SIDE // 2] == 1).all()
    assert (complete[1, :, SIDE // 2 :] == 0).all()
    is_reliable = reliable[1] != IGNORE
    assert is_reliable.mean() == pytest.approx(0.6, abs=0.01)
    assert (reliable[1][is_reliable] == complete[1][is_reliable]).all()
    # What was seen most is relied on: the outer columns.
    assert is_reliable[:, [0, -1]].all()


@pytest.mark.parametrize("maps", ["score", "residual"])
def test_where_accumulated_attention_is_equal_the_trained_classifier_decides(maps: str) -> None:
    equal = AttentionAccumulator(6, 3, (8, 8))
    equal.maps[5, :2] = 0.5
    equal.counts[5, :2] = 1

    complete, _ = labelled(equal, maps=maps)

    np.testing.assert_array_equal(complete[1], labelled(None, maps=maps)[0][1])
    assert set(np.unique(complete[1])) == {0, 1}


def test_where_nothing_was_accumulated_the_classifier_says() -> None:
    with_others, alone = labelled(halves()), labelled(None)

    for some, all_of_it in zip(with_others, alone, strict=True):
        np.testing.assert_array_equal(some[0], all_of_it[0])
    assert (with_others[0][1] != alone[0][1]).any()
    assert set(np.unique(alone[0])) <= {0, 1}


def test_labels_of_another_making_are_spoken_of_once(caplog: pytest.LogCaptureFixture) -> None:
    labeller = AttentionLabeller(network(), halves(), options())
    caplog.clear()
    labeller.label(colourful(1), BOTH[:1], None, indices=NUMBERS[1:])
    assert not caplog.records

    for _ in range(2):
        labeller.label(colourful(1), BOTH[:1], None, indices=NUMBERS[:1])
    assert len(caplog.records) == 1


def test_white_has_no_label() -> None:
    white = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    white[:, :20, :20] = True
    for labels in labelled(halves(), white):
        assert (labels[white.numpy()] == IGNORE).all()


def test_reliable_labels_are_the_surest_of_their_class() -> None:
    made = AttentionLabeller(network(), halves(), options()).label(colourful(2), BOTH, None, indices=NUMBERS)

    complete, reliable = (one.confidence[1].numpy() for one in made.values())
    labels, is_reliable = made[next(iter(made))].labels[1].numpy(), reliable != IGNORE
    np.testing.assert_array_equal(reliable[is_reliable], complete[is_reliable])
    for label in (0, 1):
        assert complete[is_reliable & (labels == label)].min() >= complete[~is_reliable & (labels == label)].max()


def test_labels_made_in_another_way_have_other_names() -> None:
    ways: list[dict[str, Any]] = [
        {},
        {"reliability": {"fraction": 0.4}},
        {"maps": "residual"},
        {"accumulate": False},
        {"accumulation": {"mode": "mean"}},
    ]
    layers = [AttentionLabeller(network(), None, options(**way)).layers for way in ways]

    assert len({name for pair in layers for name in pair}) == 2 * len(ways)
    assert layers[0] == AttentionLabeller(network(), halves(), options(gate=True)).layers


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model whose training saw class 1 on the left and class 0 on the right of patch 5."""
    folder = tmp_path_factory.mktemp("classifier")
    learner = classify_learner(patches=6)
    assert isinstance(learner.module, AccumulatingNet)
    learner.module.accumulator.load_state(halves().state())
    learner.predictor(learner.module).save(folder, metrics={})
    return folder


def test_attention_is_used_for_the_patches_of_the_training_only(
    classifier: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage, device = PseudoLabelStage(options=options()), torch.device("cpu")
    own = stage.labeller(facts(patches=6), {"classify": classifier}, device)
    with caplog.at_level(logging.WARNING):
        others = stage.labeller(facts(patches=6, training_data="5678"), {"classify": classifier}, device)

    complete, _ = own.layers
    made = [it.label(colourful(2), BOTH, None, indices=NUMBERS)[complete].labels.numpy() for it in (own, others)]
    assert (made[0][1, :, : SIDE // 2] == 1).all()
    np.testing.assert_array_equal(made[0][0], made[1][0])
    assert (made[0][1] != made[1][1]).any()
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0].startswith("the classifier was trained on other patches: only what it has learnt is used")
    # Of patch 2, by the first of them.
    assert [message.partition(":")[0] for message in messages[1:]] == [
        "the training accumulated no attention of some patches"
    ]


def test_a_model_without_its_attention_is_refused(tmp_path: Path) -> None:
    learner = classify_learner()
    learner.predictor(learner.module).save(tmp_path, metrics={})
    (tmp_path / ATTENTION).unlink()
    with pytest.raises(DataError, match="no accumulated maps"):
        PseudoLabelStage(options=options()).labeller(facts(), {"classify": tmp_path}, torch.device("cpu"))


def test_another_model_is_refused(tmp_path: Path) -> None:
    learner = segment_learner()
    learner.predictor(learner.module).save(tmp_path, metrics={})
    with pytest.raises(MethodError, match="no classifier of the method"):
        PseudoLabelStage(options=options()).labeller(facts(), {"classify": tmp_path}, torch.device("cpu"))
