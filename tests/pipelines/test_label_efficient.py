"""The loop of a few annotated patches stops where it is a person's turn, and goes on where it stopped."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.pipelines.conftest import check_calls

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.pipelines.conftest import Ran

SCRIPT = "label_efficient/loop.sh"


@pytest.fixture
def loop(shell: Callable[..., Ran]) -> Callable[..., Ran]:
    """Return a function that runs the script."""
    return partial(shell, SCRIPT)


def annotate(folder: Path, number: int) -> None:
    for slide in ("a", "b, c"):
        (folder / "loop" / f"annotations-{number}" / f"{slide}.geojson").write_text('{"name": "Region*"}')


def names(calls: list[list[str]]) -> list[str]:
    return [" ".join(call[:2]) if call[0] == "synth" else call[0] for call in calls]


def test_it_waits_for_annotations_and_then_goes_all_the_way(tmp_path: Path, loop: Callable[..., Ran]) -> None:
    code, told, calls = loop()

    assert (code, names(calls)) == (4, ["tile", "select"])
    assert "loop/annotations-1/a.geojson\n       loop/annotations-1/b, c.geojson" in told
    assert "annotations-1/d.geojson" not in told

    annotate(tmp_path, 1)
    code, told, calls = loop()

    assert code == 0
    steps = ["tile", "label", "label", "synth fit", "synth sample", "train", "predict", "select"]
    assert names(calls) == steps
    assert calls[2][1] == "loop/tiles/b, c.zarr"
    how = ["--exclude", "labels", "--strategy", "uncertainty", "--prediction", "loop/predictions-1"]
    assert calls[-1][-8:] == [*how, "--exclude", "loop/select-1/selection.csv"]
    assert "ROUNDS=2" in told
    # Nothing is done again but what goes on by itself, and another round begins with what was proposed.
    assert names(loop().calls) == ["tile", "predict"]
    code, told, calls = loop(ROUNDS="2")
    assert (code, names(calls)) == (4, ["tile"])
    assert "loop/select-2/selection.html" in told
    annotate(tmp_path, 2)
    assert names(loop(ROUNDS="2").calls) == steps


def test_exports_without_boxes_are_asked_for_again(tmp_path: Path, loop: Callable[..., Ran]) -> None:
    loop()
    annotate(tmp_path, 1)
    exported = tmp_path / "loop" / "annotations-1" / "b, c.geojson"
    exported.write_text('{"name": "Nucleus"}')

    code, told, calls = loop()

    assert (code, names(calls)) == (4, ["tile"])
    assert "no boxes of the class Region*" in told
    assert ("annotations-1/b, c.geojson" in told, "a.geojson" in told) == (True, False)
    exported.write_text('{"name": "Ignore*"}')
    assert loop().code == 4
    # Whoever finds nothing worth learning in the boxes of a slide says so.
    exported.write_text('{"name": "Ignore*", "metadata": {"patch" : "b, c-0-0"}}')
    assert loop().code == 0


def test_a_slide_whose_number_a_spreadsheet_wrote_anew_is_found(tmp_path: Path, loop: Callable[..., Ran]) -> None:
    loop()
    (tmp_path / "loop" / "tiles" / "001.zarr").mkdir()
    table = tmp_path / "loop" / "select-1" / "selection.csv"
    table.write_text("patch;slide;x;y;rank\n001-0-0;1;0;0;1\n")
    assert "annotations-1/001.geojson" in loop().err
    (tmp_path / "loop" / "annotations-1" / "001.geojson").write_text('{"name": "Region*"}')

    code, _, calls = loop()

    assert code == 0
    assert [call[1] for call in calls if call[0] == "label"] == ["loop/tiles/001.zarr"]
    (tmp_path / "loop" / "round-1.done").unlink()
    table.write_text("patch;slide;x;y;rank\n2-0-0;2;0;0;1\n")
    code, told, calls = loop()
    assert (code, names(calls)) == (1, ["tile"])
    assert "no store in loop/tiles is called '2'. Write slides as their stores are called" in told
    # Which of two is meant by a number, nobody knows.
    (tmp_path / "loop" / "tiles" / "02.zarr").mkdir()
    (tmp_path / "loop" / "tiles" / "002.zarr").mkdir()
    assert "is called '2'" in loop().err


def test_a_selection_that_is_there_is_kept_and_that_is_said(tmp_path: Path, loop: Callable[..., Ran]) -> None:
    assert "PATCHES=" not in loop(PATCHES="2").err + loop(PATCHES="2").err

    code, told, calls = loop(PATCHES="12")

    assert (code, names(calls)) == (4, ["tile"])
    assert "loop/select-1 is not for PATCHES=12, and is kept" in told
    annotate(tmp_path, 1)
    (tmp_path / "loop" / "annotations-1").rename(tmp_path / "loop" / "before")
    (tmp_path / "loop" / "select-1" / "selection.json").unlink()
    code, told, calls = loop(PATCHES="12")
    assert (code, names(calls)) == (4, ["tile", "select"])
    assert "now it is your turn" in told


def test_what_fails_is_done_again_and_what_is_done_is_not(tmp_path: Path, loop: Callable[..., Ran]) -> None:
    loop()
    annotate(tmp_path, 1)
    (tmp_path / "broken").write_text("train 1")

    code, _, calls = loop()
    assert (code, names(calls)[-1]) == (1, "train")
    (tmp_path / "broken").unlink()

    steps = ["tile", "label", "label", "synth fit", "synth sample", "train", "predict", "select"]
    assert names(loop().calls) == steps


@pytest.mark.parametrize(
    ("command", "code", "ended"),
    [
        # Some slides are not there; patches without a whole nucleus have no GAN, which is no fault.
        ("tile", 3, 3), ("predict", 3, 3), ("synth", 3, 0), ("tile", 4, 4),
        *((command, code, code) for command in ("tile", "synth", "predict") for code in (5, 75)),
    ],
)  # fmt: skip
def test_it_ends_as_its_commands_do_and_goes_on_where_only_some_could_not_be_done(
    command: str, code: int, ended: int, tmp_path: Path, loop: Callable[..., Ran]
) -> None:
    loop()
    annotate(tmp_path, 1)
    (tmp_path / "broken").write_text(f"{command} {code}")

    ran = loop()

    assert ran.code == ended, ran.err
    assert (names(ran.calls)[-1] == "select") == (code == 3)
    assert ("Some slides could not be cut or predicted" in ran.err) == (ended == 3)


def test_where_no_patch_has_a_whole_nucleus_it_goes_on_with_what_gans_there_are(
    tmp_path: Path, loop: Callable[..., Ran]
) -> None:
    loop()
    annotate(tmp_path, 1)
    (tmp_path / "broken").write_text("synth 4")

    ran = loop()

    assert ran.code == 0, ran.err
    assert names(ran.calls) == ["tile", "label", "label", "synth fit", "synth sample", "train", "predict", "select"]
    (train,) = (call for call in ran.calls if call[0] == "train")
    assert not any("synthetic" in part for part in train)

    # In a later round there may be those of an earlier one.
    loop(ROUNDS="2")
    annotate(tmp_path, 2)
    (tmp_path / "broken").write_text("fit 4")
    ran = loop(ROUNDS="2")
    assert ran.code == 0, ran.err
    (train,) = (call for call in ran.calls if call[0] == "train")
    assert "loop/synthetic-2.zarr" in train


def test_slides_that_failed_are_predicted_once_they_can_be(tmp_path: Path, loop: Callable[..., Ran]) -> None:
    loop()
    annotate(tmp_path, 1)
    (tmp_path / "broken").write_text("predict 3")
    assert loop().code == 3
    (tmp_path / "broken").unlink()

    ran = loop()

    assert (ran.code, names(ran.calls)) == (0, ["tile", "predict"])


def test_synthetic_patches_are_those_of_all_rounds_and_change_with_their_gans(
    tmp_path: Path, loop: Callable[..., Ran]
) -> None:
    loop()
    annotate(tmp_path, 1)
    calls = loop().calls
    (tmp_path / "loop" / "select-2" / "selection.csv").write_text("patch;slide;rank\nx;a;1\ny;b, c;1\n")
    loop(ROUNDS="2")
    annotate(tmp_path, 2)
    calls += loop(ROUNDS="2").calls

    first, second = (call for call in calls if call[:2] == ["synth", "sample"])
    tables = [["--selection", f"loop/select-{number}/selection.csv"] for number in (1, 2)]
    assert first[3:5] == tables[0]
    assert second[3:7] == [*tables[0], *tables[1]]
    assert first[-1] == second[-1] == "--overwrite"


def test_what_commands_shall_be_told_reaches_them(tmp_path: Path, loop: Callable[..., Ran]) -> None:
    told = {"TILE": "--slide-mpp 0.3", "PREDICT": "--slide-mpp 0.3", "SYNTH": "--set lr=1e-4"}
    calls = loop(**told).calls
    annotate(tmp_path, 1)
    calls += loop(**told).calls

    check_calls(calls)
    ends = {call[0]: call[-2:] for call in calls if call[:2] != ["synth", "sample"]}
    assert ends["tile"] == ends["predict"] == ["--slide-mpp", "0.3"]
    assert ends["synth"] == ["--set", "lr=1e-4"]
    wrong = loop(PRESET="fast")
    assert (wrong.code, wrong.calls) == (2, [])
    assert "PRESET=fast: there are paper, gpu, cpu and smoke" in wrong.err


def test_later_rounds_go_by_what_select_was_told_and_keep_earlier_labels(
    tmp_path: Path, loop: Callable[..., Ran]
) -> None:
    told = {"SELECT": "--init none --min-nuclei 0"}
    loop(**told)
    annotate(tmp_path, 1)

    calls = loop(**told).calls

    assert "--init none --min-nuclei 0 --exclude labels --strategy uncertainty" in " ".join(calls[-1])
    check_calls(calls)
    assert {call[-1] for call in calls if call[0] == "label"} == {"--keep"}


def test_where_nothing_is_left_to_annotate_it_is_done(tmp_path: Path, loop: Callable[..., Ran]) -> None:
    loop()
    annotate(tmp_path, 1)
    (tmp_path / "loop" / "round-1.done").touch()
    (tmp_path / "broken").write_text("select 4")

    left = loop()
    further = loop(ROUNDS="2")
    (tmp_path / "broken").unlink()

    for ran, steps in ((left, ["tile", "predict", "select"]), (further, ["tile", "select"])):
        assert (ran.code, names(ran.calls)) == (0, steps)
        assert "loop/predictions-1.\nNo 6 patches are left" in ran.err
        assert "PATCHES=1 ROUNDS=2" in ran.err
    fewer = loop(ROUNDS="2", PATCHES="1")
    assert (fewer.code, names(fewer.calls)) == (4, ["tile", "select"])
    assert "uncertainty" in fewer.calls[-1]


def test_a_round_is_done_before_the_next_one_is_proposed(tmp_path: Path, loop: Callable[..., Ran]) -> None:
    loop()
    annotate(tmp_path, 1)
    (tmp_path / "broken").write_text("select 5")

    assert [loop().code, names(loop().calls)] == [5, ["tile", "predict", "select"]]


def test_every_command_is_one_that_there_is(tmp_path: Path, loop: Callable[..., Ran]) -> None:
    calls = loop(SELECT="--init none", TRAIN="--steps 20 --head flow").calls
    annotate(tmp_path, 1)
    calls += loop(TRAIN="--steps 20 --head flow").calls

    check_calls(calls)
    assert "--head" in calls[-3]
    assert calls[1][-2:] == ["--init", "none"]
