"""Curves of a study, and what the next point costs by them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wsiseg.tasks.budget_report import Cell, Curve, Study, draw


def curve(images: list[int], mean: list[float]) -> Curve:
    return Curve(
        method="toy",
        images=np.array(images),
        mean=np.array(mean),
        sd=np.zeros(len(images)),
        seeds=np.ones(len(images), np.int64),
    )


def cell(method: str, images: int, seed: int, dice: float) -> Cell:
    return Cell(method=method, size=str(images), images=images, seed=seed, steps=9, scores={"aji": 0.5, "dice": dice})


CELLS = (
    cell("b", 4, 0, 0.5),
    cell("b", 4, 1, 0.7),
    cell("b", 8, 0, 0.7),
    cell("b", 8, 1, 0.7),
    cell("a", 8, 0, 0.8),
)


def test_a_price_follows_the_logarithm() -> None:
    # Ten points for each doubling: the next point takes a tenth of one.
    assert curve([5, 10, 20], [0.2, 0.6, 0.7]).price() == pytest.approx(20 * (2**0.1 - 1))


@pytest.mark.parametrize("scores", [[0.7, 0.7], [0.7, 0.6], [0.7, 0.701]])
def test_where_curves_are_flat_no_price_is_in_sight(scores: list[float]) -> None:
    assert math.isinf(curve([10, 20], scores).price())
    assert math.isinf(curve([10], scores[:1]).price())


def test_seeds_make_mean_and_spread() -> None:
    study = Study(cells=CELLS, methods=("a", "b"), seeds=2)

    first, second = study.curves("dice")

    assert (first.method, first.images.tolist(), first.seeds.tolist()) == ("a", [8], [1])
    assert np.isnan(first.sd).all()
    assert (second.images.tolist(), second.seeds.tolist()) == ([4, 8], [2, 2])
    np.testing.assert_allclose(second.mean, [0.6, 0.7])
    np.testing.assert_allclose(second.sd, [0.02**0.5, 0], atol=1e-12)


def test_it_is_said_in_words() -> None:
    (sentence,) = Study(cells=CELLS, methods=("a", "b"), seeds=2).sentences()

    assert sentence == (
        "b with 8 images (dice 0.700): the next point of dice costs about 1 more images, by its gain from 4 to 8 images"
    )
    (sentence,) = Study(cells=(*CELLS[:2], cell("b", 8, 0, 0.6)), methods=("b",), seeds=2).sentences()
    assert "no price of another point of dice is in sight" in sentence


def test_studies_that_have_just_begun_can_be_drawn() -> None:
    for cells in ((), CELLS[:1], CELLS):
        study = Study(cells=cells, methods=("a", "b"), seeds=2)
        assert draw(study, kind="png").startswith(b"\x89PNG")
        assert b"<svg" in draw(study, kind="svg")
        # The same trainings give the same file.
        assert draw(study, kind="svg").count(b"<dc:date>") == 0
