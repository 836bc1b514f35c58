"""Centres follow the recognised pixels of their class, keep their length, and pull vectors towards them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from wsiseg.losses.centres import ClassCentres

SHAPE = (2, 4, 6, 6)


def vectors(seed: int = 0) -> Tensor:
    return functional.normalize(torch.randn(*SHAPE, generator=torch.Generator().manual_seed(seed)), dim=1)


def labels(seed: int = 0, *, classes: int = 2) -> Tensor:
    drawn = torch.randint(0, classes, (2, 6, 6), generator=torch.Generator().manual_seed(seed))
    drawn[0, 0] = 255
    return drawn


def pixels_of(values: Tensor, where: Tensor) -> Tensor:
    return values.movedim(1, -1)[where]


def test_the_first_update_copies_the_mean_and_later_ones_follow_the_formula() -> None:
    centres, truth = ClassCentres(3, 4, momentum=0.9), labels()
    centres.update(vectors(0), truth, truth)
    means = torch.stack([pixels_of(vectors(0), truth == label).mean(dim=0) for label in (0, 1)])
    expected = functional.normalize(means, dim=1)
    torch.testing.assert_close(centres.centres[:2, 0], expected)

    centres.update(vectors(1), truth, truth)
    means = torch.stack([pixels_of(vectors(1), truth == label).mean(dim=0) for label in (0, 1)])

    torch.testing.assert_close(centres.centres[:2, 0], functional.normalize(0.9 * expected + 0.1 * means, dim=1))


@pytest.mark.parametrize("per_class", [1, 3])
def test_centres_have_length_1_after_every_update(per_class: int) -> None:
    centres = ClassCentres(2, 4, per_class=per_class)

    for seed in range(4):
        centres.update(vectors(seed), labels(seed), labels(seed))
        lengths = centres.centres.norm(dim=2)
        torch.testing.assert_close(lengths[centres.is_seen], torch.ones(int(centres.is_seen.sum())))
        assert not lengths[~centres.is_seen].any()


def test_classes_that_are_not_in_the_batch_stay_as_they_are() -> None:
    centres = ClassCentres(3, 4)
    centres.update(vectors(0), labels(classes=2), labels(classes=2))
    before = centres.centres.clone()

    ones = torch.ones(2, 6, 6, dtype=torch.int64)
    centres.update(vectors(1), ones, ones)

    torch.testing.assert_close(centres.centres[[0, 2]], before[[0, 2]], rtol=0, atol=0)
    assert not torch.equal(centres.centres[1], before[1])
    assert centres.is_seen[:, 0].tolist() == [True, True, False]


def test_only_recognised_and_reliable_pixels_move_a_centre() -> None:
    truth, prediction = labels(1, classes=3), labels(2, classes=3)
    counts = (truth == prediction) & (truth != 255)
    plain, disturbed = ClassCentres(3, 4), ClassCentres(3, 4)
    plain.update(vectors(0), truth, prediction)

    disturbed.update(torch.where(counts[:, None], vectors(0), vectors(5)), truth, prediction)

    torch.testing.assert_close(disturbed.centres, plain.centres, rtol=0, atol=0)
    assert counts.any()


def test_an_update_has_no_gradient() -> None:
    centres, truth = ClassCentres(2, 4), labels()

    centres.update(vectors().requires_grad_(), truth, truth)

    assert not centres.centres.requires_grad
    assert list(centres.parameters()) == []


def test_centres_are_kept_with_the_state() -> None:
    centres, other, truth = ClassCentres(2, 4), ClassCentres(2, 4), labels()
    centres.update(vectors(0), truth, truth)

    other.load_state_dict(centres.state_dict())
    for each in (centres, other):
        each.update(vectors(1), truth, truth)

    torch.testing.assert_close(other.centres, centres.centres, rtol=0, atol=0)


def test_the_loss_is_the_cross_entropy_of_the_cosines_of_seen_classes() -> None:
    centres, truth = ClassCentres(4, 4), labels()
    truth[truth == 1] = 2
    centres.update(vectors(0), truth, truth)
    given = functional.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(3)), dim=1)
    classes = torch.tensor([0, 2, 2, 1, 0])

    found = centres(given, classes, temperature=0.2)

    counts = classes != 1
    logits = given[counts] @ centres.centres[[0, 2], 0].T / 0.2
    torch.testing.assert_close(found, functional.cross_entropy(logits, classes[counts] // 2))


def test_the_loss_pulls_a_vector_towards_its_centre_and_leaves_the_centres_alone() -> None:
    centres = ClassCentres(2, 4)
    centres.centres[:, 0], centres.is_seen[:] = torch.eye(4)[:2], True
    given = functional.normalize(torch.ones(1, 4), dim=1).requires_grad_()

    torch.autograd.backward(centres(given, torch.tensor([1])))

    assert given.grad is not None
    moved = functional.normalize(given.detach() - 0.1 * given.grad, dim=1)
    assert moved[0] @ centres.centres[1, 0] > given.detach()[0] @ centres.centres[1, 0]
    assert moved[0] @ centres.centres[0, 0] < given.detach()[0] @ centres.centres[0, 0]
    assert given.grad[0, 2:].abs().max() == 0


def test_centres_may_move_before_the_gradient_is_computed() -> None:
    centres, truth = ClassCentres(2, 4), labels()
    centres.update(vectors(0), truth, truth)
    gradients = []
    for moves in (False, True):
        given = functional.normalize(torch.ones(2, 4), dim=1).requires_grad_()
        loss = centres(given, torch.tensor([0, 1]))
        if moves:
            centres.update(vectors(1), truth, truth)
        torch.autograd.backward(loss)
        gradients.append(given.grad)

    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_without_centres_there_is_no_loss() -> None:
    given = torch.randn(3, 4, requires_grad=True)

    loss = ClassCentres(2, 4)(given, torch.tensor([0, 1, 1]))
    torch.autograd.backward(loss)

    assert loss.item() == 0
    assert given.grad is not None
    assert given.grad.isfinite().all()


def test_an_unseen_class_gives_no_rubbish_gradient() -> None:
    centres, truth = ClassCentres(3, 4), labels()
    centres.update(vectors(0), truth, truth)
    given = torch.randn(3, 4, requires_grad=True)

    torch.autograd.backward(centres(given, torch.tensor([0, 1, 2])))

    assert given.grad is not None
    assert given.grad.isfinite().all()
    assert not given.grad[2].any()


def test_several_centres_find_the_ways_a_class_looks() -> None:
    centres = ClassCentres(1, 4, per_class=2)
    looks = torch.eye(4)[:2].repeat_interleave(18, dim=0).T.reshape(1, 4, 6, 6)
    everywhere = torch.zeros(1, 6, 6, dtype=torch.int64)

    for _ in range(800):
        centres.update(looks, everywhere, everywhere)

    found = centres.centres[0] @ torch.eye(4)[:2].T
    torch.testing.assert_close(found.amax(dim=1), torch.ones(2), rtol=0, atol=0.01)
    assert sorted(found.argmax(dim=1).tolist()) == [0, 1]
    assert centres.similarity(torch.eye(4)[:2]).shape == (2, 1)


def test_clear_cases_take_the_class_of_their_centre_where_the_image_has_it() -> None:
    centres = ClassCentres(3, 4)
    centres.centres[:, 0], centres.is_seen[:] = torch.eye(4)[:3], True
    looks = torch.eye(4)[[0, 1, 2, 0]]
    looks[3] = functional.normalize(torch.tensor([1.0, 0.9, 0, 0]), dim=0)
    values = looks.T.reshape(1, 4, 2, 2)
    unknown = torch.full((1, 2, 2), 255)
    everywhere, present = torch.ones(1, 2, 2, dtype=torch.bool), torch.tensor([[True, True, False]])

    found = centres.relabel(values, unknown, everywhere, present)

    assert found.tolist() == [[[0, 1], [255, 255]]]
    assert torch.equal(centres.relabel(values, unknown, ~everywhere, present), unknown)
    assert centres.relabel(values, unknown, everywhere, present, margin=0).tolist() == [[[0, 1], [255, 0]]]


def test_nothing_is_relabelled_before_two_classes_were_seen() -> None:
    centres = ClassCentres(2, 4)
    centres.centres[0, 0], centres.is_seen[0] = torch.eye(4)[0], True
    unknown, everywhere = torch.full((2, 6, 6), 255), torch.ones(2, 6, 6, dtype=torch.bool)

    assert torch.equal(centres.relabel(vectors(), unknown, everywhere, torch.ones(2, 2, dtype=torch.bool)), unknown)
