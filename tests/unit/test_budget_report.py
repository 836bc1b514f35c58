"""Curves of a study, and what the next point costs by them."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from wsiseg.tasks.budget_begun import begin
from wsiseg.tasks.budget_cells import Cell, cell_folder, read_cells, write_cell
from wsiseg.tasks.budget_curve import Curve
from wsiseg.tasks.budget_page import draw, write_study
from wsiseg.tasks.budget_report import Study
from wsiseg.tasks.budget_settings import BudgetConfig

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def curve(images: Sequence[int], *scores: Sequence[float]) -> Curve:
    return Curve(
        method="toy",
        sizes=tuple(str(count) for count in images),
        draws=np.tile(np.array(images, np.int64), (len(scores), 1)),
        scores=np.array(scores, np.float64),
    )


def cell(method: str, images: int, seed: int, dice: float, *, size: str = "") -> Cell:
    return Cell(
        method=method,
        size=size or str(images),
        images=images,
        seed=seed,
        steps=9,
        scores={"aji": 0.5, "dice": dice},
    )


def cells(levels: Sequence[float], gain: float, sizes: Sequence[int] = (5, 10, 20, 40)) -> tuple[Cell, ...]:
    """Return trainings that gain so much with each doubling, each draw from a level of its own."""
    return tuple(
        cell("toy", size, seed, level + gain * math.log2(size / sizes[0]))
        for size in sizes
        for seed, level in enumerate(levels)
    )


def test_a_price_follows_the_logarithm() -> None:
    # Ten points for each doubling: the next point takes a tenth of one.
    line = curve([5, 10, 20], [0.5, 0.6, 0.7], [0.3, 0.4, 0.5])

    assert line.price(line.slope) == pytest.approx(20 * (2**0.1 - 1))
    # Draws that stand higher or lower say nothing against it.
    np.testing.assert_allclose(line.slope_interval, line.slope)
    assert not line.is_flat
    assert not line.is_bent


def test_all_sizes_tell_of_the_price_and_not_the_last_two_alone() -> None:
    noisy = curve([5, 10, 20, 40], [0.5, 0.6, 0.7, 0.71], [0.5, 0.6, 0.7, 0.83])

    assert noisy.slope * math.log(2) == pytest.approx(0.0925, abs=0.002)


def test_sizes_that_a_draw_lacks_do_not_count() -> None:
    line = curve([5, 10, 20], [0.5, 0.6, 0.7], [0.3, math.nan, 0.5], [0.9, math.nan, math.nan])

    assert line.slope * math.log(2) == pytest.approx(0.1)
    assert line.count.tolist() == [3, 1, 2]
    assert line.telling == 2
    assert np.isnan(line.sd[1])


@pytest.mark.parametrize("scores", [[0.5, 0.7, 0.7], [0.5, 0.7, 0.6], [0.5, 0.7, 0.701]])
def test_where_curves_have_flattened_no_price_is_in_sight(scores: list[float]) -> None:
    assert curve([10, 20, 40], scores, scores).is_flat


def test_one_noisy_step_does_not_make_a_plateau() -> None:
    draws = [[0.5, 0.53, 0.56, 0.59, 0.61], [0.5, 0.535, 0.56, 0.59, 0.56], [0.5, 0.525, 0.56, 0.59, 0.58]]
    noisy = curve([5, 10, 20, 40, 80], *draws)
    found = [
        cell("toy", images, seed, dice)
        for seed, row in enumerate(draws)
        for images, dice in zip((5, 10, 20, 40, 80), row, strict=True)
    ]
    (sentence,) = Study(cells=tuple(found)).sentences()

    assert noisy.last_gain < 0
    assert not noisy.is_flat
    assert sentence.endswith(", though from 40 to 80 images it changed by -0.007, which may be chance")


def test_a_plateau_of_one_draw_is_told_as_one() -> None:
    (sentence,) = Study(
        cells=tuple(cell("toy", 10 * at, 0, dice) for at, dice in ((1, 0.5), (2, 0.7), (4, 0.7)))
    ).sentences()

    assert sentence.endswith("as from 20 to 40 images it changed by +0.000, which rests on one draw")


@pytest.mark.parametrize("draws", [2, 3, 5])
def test_intervals_hold_the_true_slope_as_often_as_they_say(draws: int) -> None:
    rng = np.random.default_rng(draws)
    logs, slope, repeats = np.log([5, 10, 20, 40]), 0.05, 600
    held = 0
    for _ in range(repeats):
        levels, own = rng.normal(0.5, 0.1, (draws, 1)), rng.normal(slope, 0.01, (draws, 1))
        low, high = curve([5, 10, 20, 40], *(levels + own * logs + rng.normal(0, 0.02, (draws, 4)))).slope_interval
        held += low <= slope <= high

    # Three standard errors about 90 %.
    assert held / repeats == pytest.approx(0.9, abs=3 * math.sqrt(0.09 / repeats))


def test_a_last_step_that_falls_behind_the_line_is_seen() -> None:
    draws = [[0.3, 0.5, 0.6, 0.62], [0.32, 0.52, 0.63, 0.66], [0.28, 0.48, 0.57, 0.6]]

    assert curve([5, 10, 20, 40], *draws).is_bent
    assert not curve([5, 10, 20, 40], *[[*draw[:3], draw[2] + 0.15] for draw in draws]).is_bent


def test_seeds_make_mean_and_spread() -> None:
    found = (cell("a", 8, 0, 0.8), *(cell("b", images, seed, dice) for images, seed, dice in _PAIRS))

    first, second = Study(cells=found).curves("dice")

    assert (first.method, first.images.tolist(), first.count.tolist()) == ("a", [8], [1])
    assert np.isnan(first.sd).all()
    assert (second.images.tolist(), second.count.tolist()) == ([4, 8], [2, 2])
    np.testing.assert_allclose(second.mean, [0.6, 0.7])
    np.testing.assert_allclose(second.sd, [0.02**0.5, 0], atol=1e-12)


_PAIRS = ((4, 0, 0.5), (4, 1, 0.7), (8, 0, 0.7), (8, 1, 0.7))


def test_one_size_stays_one_point_where_draws_have_more_or_fewer_images() -> None:
    found = [cell("a", images, seed, 0.8, size="100%") for seed, images in enumerate((37, 40, 40))]

    (line,) = Study(cells=tuple(found)).curves("dice")

    assert (line.sizes, line.images.tolist(), line.count.tolist()) == (("100%",), [39], [3])


def test_a_share_and_a_number_that_are_the_same_make_one_point() -> None:
    found = (cell("a", 20, 0, 0.8, size="50%"), cell("a", 20, 1, 0.6, size="20"), cell("a", 40, 0, 0.9, size="100%"))

    (line,) = Study(cells=found).curves("dice")

    assert (line.images.tolist(), line.count.tolist()) == ([20, 40], [2, 1])


def test_prices_come_with_how_sure_they_are() -> None:
    tilted = [cell("toy", size, 2, 0.2 + 0.025 * math.log2(size)) for size in (5, 10, 20, 40)]
    (sentence,) = Study(cells=(*cells([0.5, 0.6], 0.02), *tilted)).sentences()

    assert sentence == (
        "toy: Dice 0.518 with 40 labelled images; from there the next +0.01 costs about 16 more images"
        " (90 % interval 12 to 21, 3 draws)"
    )


def test_one_draw_gives_a_price_without_an_interval() -> None:
    (sentence,) = Study(cells=cells([0.5], 0.02)).sentences()

    assert sentence.endswith("costs about 17 more images, which rests on one draw")


def test_where_draws_disagree_no_price_can_be_told() -> None:
    falling = [cell("toy", size, 1, 0.9 - 0.02 * math.log2(size)) for size in (5, 10, 20, 40)]
    (sentence,) = Study(cells=(*cells([0.5], 0.03), *falling)).sentences()

    assert "no price of more can be told yet" in sentence
    assert sentence.endswith("may change the Dice by -0.153 to +0.163 (90 % interval, 2 draws)")


def test_a_study_half_done_gives_no_numbers_that_it_does_not_have() -> None:
    apart = Study(cells=(cell("toy", 5, 0, 0.6), cell("toy", 10, 1, 0.7))).sentences()
    falling = Study(cells=(*cells([0.5], -0.1, (5, 10)), cell("toy", 20, 1, 0.7))).sentences()

    assert apart == (
        "toy: Dice 0.700 with 10 labelled images; no price of more can be told yet, as no draw has two sizes",
    )
    assert falling[0].endswith(
        "no price of more is in sight, as a doubling of the labels changes the Dice by -0.100, which rests on one draw"
    )


def test_a_plateau_is_told() -> None:
    (sentence,) = Study(cells=(*cells([0.5, 0.6], 0.1, (5, 10)), *cells([0.6, 0.7], 0.0, (20,)))).sentences()

    assert sentence.endswith("no price of more is in sight, as from 10 to 20 images it changed by +0.000")


def test_images_that_choose_models_are_told_beside_those_that_are_learnt_from() -> None:
    chosen = [replace(one, held_out=6) for one in cells([0.5], 0.02)]
    (sentence,) = Study(cells=tuple(chosen)).sentences()

    assert sentence.endswith("; beside these, 6 labelled images chose its models")


def test_methods_are_compared_with_supervised_draw_by_draw(tmp_path: Path) -> None:
    begin(tmp_path, BudgetConfig(methods=("supervised", "ugmcl"), fractions=(0.5, 1)), {"glands": "0"})
    # Draws differ by much more than methods do, and one has nothing to be compared with.
    for seed, level in enumerate((0.2, 0.5, 0.8)):
        pair = [cell("supervised", 4, seed, level), cell("ugmcl", 4, seed, level + 0.02 + 0.01 * seed)]
        for one in (*pair, cell("ugmcl", 8, seed, 0.9)):
            write_cell(cell_folder(tmp_path, one.method, one.size, one.seed), one)
    (cell_folder(tmp_path, "supervised", "4", 0) / "scores.json").unlink()

    write_study(tmp_path)

    page = (tmp_path / "budget.html").read_text()
    # The gain stands beside the score that it is of, which is not the first one here.
    assert "<th>AJI</th><th>Dice</th><th>over supervised</th></tr>" in page
    assert "<td>0.530 ± 0.310</td><td>+3.5 ± 0.7 (2)</td></tr>" in page
    with (tmp_path / "budget.csv").open(encoding="utf-8") as file:
        gains = [row["points_over_supervised"] for row in csv.DictReader(file)]
    assert gains == ["", "", "", "3.0", "4.0", "", "", ""]


def test_studies_that_have_just_begun_can_be_drawn() -> None:
    for some in ((), cells([0.5], 0.1, (5,))):
        assert draw(Study(cells=some), kind="png").startswith(b"\x89PNG")


def test_the_same_trainings_give_the_same_file() -> None:
    pictures = {draw(Study(cells=cells([0.5, 0.6], 0.1)), kind="svg") for _ in range(2)}

    assert len(pictures) == 1
    assert b"<svg" in pictures.pop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    begin(tmp_path, BudgetConfig(methods=("a", "b"), fractions=(0.5, 1)), {"glands": "0"})
    for one in (cell("a", 4, 0, 0.5), cell("a", 8, 0, 0.6), cell("b", 4, 0, 0.7)):
        write_cell(cell_folder(tmp_path, one.method, one.size, one.seed), one)
    return tmp_path


def test_trainings_may_have_scores_that_others_lack(folder: Path) -> None:
    other = Cell(method="b", size="8", images=8, seed=0, steps=9, scores={"dice": 0.8, "assd": math.nan})
    write_cell(cell_folder(folder, "b", "8", 0), other)

    study = write_study(folder)

    assert study.score == "dice"
    with (folder / "budget.csv").open(encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    assert (last["aji"], last["dice"], last["assd"]) == ("", "0.8", "")
    assert "NaN" not in (cell_folder(folder, "b", "8", 0) / "scores.json").read_text()
    assert "<td>–</td>" in (folder / "budget.html").read_text()


def test_how_many_structures_have_no_distances_stands_beside_these(folder: Path) -> None:
    for seed, missing in enumerate((2.0, 5.0)):
        scores = {"dice": 0.8, "hd95": 1.0, "missing_structures": missing}
        one = Cell(method="b", size="8", images=8, seed=seed, steps=9, scores=scores)
        write_cell(cell_folder(folder, "b", "8", seed), one)

    write_study(folder)

    page = (folder / "budget.html").read_text()
    assert "<td>1.000 ± 0.000</td><td>3.5 ± 2.1</td>" in page
    assert "how many these are stands beside them" in page
    with (folder / "budget.csv").open(encoding="utf-8") as file:
        assert [row["missing_structures"] for row in csv.DictReader(file)] == ["", "", "", "2.0", "5.0"]


def test_trainings_of_an_older_version_can_be_read(folder: Path) -> None:
    path = cell_folder(folder, "b", "100%", 1) / "scores.json"
    path.parent.mkdir(parents=True)
    scores = '{"dice": 0.7, "hd95": NaN}'
    path.write_text(f'{{"method": "b", "size": "100%", "images": 9, "seed": 1, "steps": 4, "scores": {scores}}}')

    last = read_cells(folder, ["a", "b"])[-1]

    assert (last.size, last.images, last.held_out) == ("100%", 9, 0)
    assert math.isnan(last.scores["hd95"])


def test_a_training_that_was_made_under_two_sizes_counts_once(folder: Path) -> None:
    for size, dice in (("5%", 0.1), ("10%", 0.2)):
        write_cell(cell_folder(folder, "c", size, 0), cell("c", 1, 0, dice, size=size))

    assert [one.size for one in read_cells(folder, ["c"])] == ["5%"]


def test_what_is_known_of_a_study_grows(folder: Path) -> None:
    begin(folder, BudgetConfig(methods=("c",), each={"c": {"method": "a"}}), {"glands": "0"})

    known = json.loads((folder / "study.json").read_text())["config"]
    assert (known["methods"], known["each"]) == (["a", "b", "c"], {"c": {"method": "a"}})
    assert len(write_study(folder).cells) == 3
