"""Detections that overlap become objects that do not: the surest keep their pixels, and who keeps too little goes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsiseg.nets.painting import painted

SIDE = 24
Boxes = NDArray[np.float32]


def full(*rectangles: tuple[int, int, int, int]) -> tuple[Boxes, NDArray[np.float32]]:
    """Return boxes that hold the pixels x0 … x1 - 1, y0 … y1 - 1, and masks that fill them."""
    boxes = np.array(rectangles, dtype=np.float32) - 0.5
    return boxes, np.ones((len(boxes), 7, 7), dtype=np.float32)


def reference(
    rectangles: list[tuple[int, int, int, int]], scores: NDArray[np.float32]
) -> tuple[NDArray[np.int32], list[float]]:
    """Return what becomes of rectangles, pixel by pixel."""
    labels, kept = np.zeros((SIDE, SIDE), np.int32), []
    for at in sorted(range(len(scores)), key=lambda at: (-scores[at], at)):
        x0, y0, x1, y1 = rectangles[at]
        pixels = [(y, x) for y in range(y0, min(y1, SIDE)) for x in range(x0, min(x1, SIDE))]
        free = [place for place in pixels if labels[place] == 0]
        if free and 2 * len(free) >= len(pixels):
            kept.append(float(scores[at]))
            for place in free:
                labels[place] = len(kept)
    return labels, kept


rectangles = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 12), st.integers(1, 12)).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)


@settings(max_examples=60)
@given(st.lists(rectangles, max_size=12), st.integers(0, 99))
def test_the_surest_are_painted_first_on_pixels_that_are_free(
    found: list[tuple[int, int, int, int]], seed: int
) -> None:
    scores = (np.random.default_rng(seed).permutation(len(found)) / 16).astype(np.float32)
    boxes, masks = full(*found) if found else (np.empty((0, 4), np.float32), np.empty((0, 7, 7), np.float32))

    labels, kept = painted(boxes, masks, scores, height=SIDE, width=SIDE)

    expected, expected_scores = reference(found, scores)
    np.testing.assert_array_equal(labels, expected)
    assert kept.tolist() == expected_scores


def test_who_keeps_half_stays_and_who_keeps_less_leaves_its_pixels_to_others() -> None:
    # The second keeps 4 of its 8 columns, the third 3 of them; the last lies where the third would have been.
    boxes, masks = full((0, 0, 8, 4), (4, 0, 12, 4), (7, 0, 15, 4), (12, 0, 15, 4))
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)

    labels, kept = painted(boxes, masks, scores, height=4, width=16)

    assert labels[0].tolist() == [1] * 8 + [2] * 4 + [3] * 3 + [0]
    assert kept.tolist() == [np.float32(value) for value in (0.9, 0.8, 0.6)]


def test_a_mask_is_spread_over_its_box() -> None:
    mask = np.tril(np.ones((28, 28), np.float32))[None]

    labels, _ = painted(
        np.array([[1.5, 3.5, 15.5, 17.5]], np.float32), mask, np.ones(1, np.float32), height=20, width=18
    )

    y, x = np.nonzero(labels)
    assert (x.min(), x.max(), y.min(), y.max()) == (2, 15, 4, 17)
    # The lower left half of 14 × 14 pixels, to one pixel of its diagonal.
    np.testing.assert_array_equal(labels[4:18, 2:16][np.tril_indices(14, -1)], 1)
    assert not labels[4:18, 2:16][np.triu_indices(14, 1)].any()


def test_boxes_may_be_empty_or_lie_outside() -> None:
    boxes, masks = full((3, 3, 3, 9), (30, 2, 40, 8), (-6, -6, 2, 2))

    labels, kept = painted(boxes, masks, np.array([0.9, 0.8, 0.7], np.float32), height=10, width=10)

    assert kept.tolist() == [np.float32(0.7)]
    assert np.argwhere(labels).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
