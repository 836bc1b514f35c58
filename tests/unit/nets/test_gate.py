"""A class that the image hardly shows gets no pixel, and one class always stays."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.nets.gate import gated


def winners(logits: torch.Tensor, prob: list[float], epsilon: float = 0.1) -> list[int]:
    """Return the classes that the pixels of one image end up with."""
    return sorted(set(gated(logits, torch.tensor([prob]), epsilon=epsilon).argmax(dim=1).flatten().tolist()))


def pixels(*logits: float) -> torch.Tensor:
    """Return an image of 3 × 2 equal pixels."""
    return torch.tensor(logits, dtype=torch.float32).view(1, -1, 1, 1).expand(1, -1, 3, 2)


def test_the_highest_logit_of_a_gated_class_does_not_win() -> None:
    assert winners(pixels(9, 1, 2, 0), [0.05, 0.9, 0.8, 0.7]) == [2]


def test_a_gated_class_does_not_win_among_negative_logits() -> None:
    assert winners(pixels(-1, -2, -3, -4), [0.05, 0.9, 0.9, 0.9]) == [1]


def test_the_threshold_itself_is_gated() -> None:
    assert winners(pixels(9, 1), [0.25, 0.5], epsilon=0.25) == [1]
    assert winners(pixels(9, 1), [0.26, 0.5], epsilon=0.25) == [0]


def test_a_tenth_is_gated_unless_told() -> None:
    logits = pixels(9, 1)

    for prob, winner in ((0.1, 1), (0.1001, 0)):
        assert (gated(logits, torch.tensor([[prob, 0.5]])).argmax(dim=1) == winner).all()


def test_where_all_are_gated_the_most_probable_stays() -> None:
    assert winners(pixels(9, 1, 2, 0), [0.01, 0.02, 0.03, 0.08]) == [3]


def test_images_are_gated_one_by_one() -> None:
    logits = pixels(9, 1).repeat(2, 1, 1, 1)

    assert gated(logits, torch.tensor([[0.0, 1.0], [1.0, 0.0]])).argmax(dim=1)[:, 0, 0].tolist() == [1, 0]


@settings(max_examples=50)
@given(st.integers(0, 99), st.lists(st.floats(0, 1), min_size=8, max_size=8))
def test_probabilities_of_the_others_are_those_before_on_a_scale_of_their_own(seed: int, flat: list[float]) -> None:
    logits = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(seed))
    prob = torch.tensor(flat).view(2, 4)
    open_classes = (prob > 0.1) | (prob == prob.amax(dim=1, keepdim=True)).cumsum(dim=1).eq(1) & (
        prob == prob.amax(dim=1, keepdim=True)
    )

    after = gated(logits, prob).softmax(dim=1)

    before = logits.softmax(dim=1) * open_classes[:, :, None, None]
    torch.testing.assert_close(after, before / before.sum(dim=1, keepdim=True))


def test_without_a_threshold_nothing_changes() -> None:
    logits = torch.randn(2, 4, 3, 5)

    assert gated(logits, torch.full((2, 4), 0.01), epsilon=0).equal(logits)
