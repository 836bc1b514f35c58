"""Chosen patches are learnt from with what was made of them alone; tables compare each seed with itself."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.pipelines.conftest import check_calls
from wsiseg.config import load
from wsiseg.methods.label_efficient import LabelEfficientOptions
from wsiseg.selection.strategies import STRATEGIES
from wsiseg.stores.patch_meta import KEY, PatchMeta
from wsiseg.stores.zarr_files import write_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.pipelines.conftest import Ran


@pytest.fixture(scope="module")
def found(scripts: Callable[..., AbstractContextManager[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Return the scripts by name."""
    with scripts("experiments", "which_pixels_table", "halved") as modules:
        yield modules


def score(folder: Path, seed: int, name: str, aji: float) -> None:
    """Write what ``wsiseg evaluate``, ``wsiseg select`` and ``wsiseg synth sample`` would."""
    selection = folder / f"seed{seed}" / name.rpartition("-")[0] / "selection"
    selection.mkdir(parents=True, exist_ok=True)
    (selection / "selection.json").write_text(json.dumps({"labelled_fraction": 0.04}))
    if name.endswith("synthetic"):
        config = {"gans": {str(number): "hash" for number in range(3 + seed)}}
        meta = PatchMeta(codec="zstd", mpp=0.5, parents=("a",), groups=("a",), fingerprint="f", config=config)
        write_group(selection.parent / "synthetic.zarr", {KEY: meta.model_dump(mode="json")})
    mean = {key: {"value": aji} for key in ("aji", "dice", "f1", "pq", "object_f1")}
    (folder / f"seed{seed}" / f"{name}.json").write_text(json.dumps({"mean": mean}))


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """Return what two seeds have come to; one has no patches by chance."""
    folder = tmp_path / "cells"
    for seed, gain in enumerate((0.02, 0.04)):
        score(folder, seed, "full", 0.8)
        score(folder, seed, "cps-6-real", 0.4 + seed / 10)
        score(folder, seed, "cps-6-synthetic", 0.4 + seed / 10 + gain)
    score(folder, 0, "random-6-real", 0.3)
    return folder


def test_each_seed_is_compared_with_itself(found: dict[str, Any], measured: Path) -> None:
    script = found["which_pixels_table"]
    titles, _, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in script.table(script.read(measured))
    ]
    chance, real, synthetic, full = (dict(zip(titles, line, strict=True)) for line in lines)

    assert [row["learnt from"] for row in (chance, real, synthetic, full)] == [
        "chosen patches", "chosen patches", "+ synthetic", "all labels",
    ]  # fmt: skip
    assert synthetic["AJI over the stage before"] == "3.0 ± 1.4"
    assert (synthetic["GANs"], real["GANs"]) == ("3.5", "0")
    assert real["AJI over the stage before"] == full["AJI over the stage before"] == "–"
    assert (real["AJI over chance"], chance["AJI over chance"], chance["n"]) == ("10.0", "–", "1")
    assert (real["of AJI from all labels"], full["of AJI from all labels"]) == ("56 ± 9 %", "–")
    assert (real["labelled"], full["labelled"]) == ("4.0 %", "100.0 %")


@pytest.mark.parametrize("strategy", [name for name, entry in STRATEGIES.items() if not entry.needs_prediction])
def test_every_strategy_has_its_rows(found: dict[str, Any], tmp_path: Path, strategy: str) -> None:
    script = found["which_pixels_table"]
    score(tmp_path / "cells", 0, f"{strategy}-6-real", 0.4)

    results = script.read(tmp_path / "cells")

    assert len(script.table(results)) == len(script.in_short(results)) == 3
    assert script.written({"cells": results}).count(strategy) == 4


def test_every_measurement_is_written(
    found: dict[str, Any], measured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = measured / "all.csv"
    monkeypatch.setattr(sys, "argv", ["which_pixels_table.py", str(measured), "--csv", str(table)])
    found["which_pixels_table"].main()

    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert capsys.readouterr().out.startswith("#### cells\n")
    assert len(rows) == 7 * 4
    assert {row["images"] for row in rows} == {"cells"}
    assert {"all", "6"} == {row["patches"] for row in rows}


def test_what_is_written_makes_the_same_tables_and_is_added_to(
    found: dict[str, Any], measured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["which_pixels_table.py", *arguments])
        found["which_pixels_table"].main()
        return capsys.readouterr().out

    whole = printed(str(measured), "--csv", str(measured / "whole.csv"))
    assert printed("--csv", str(measured / "whole.csv")) == whole

    # One seed after another, the first of which is no longer there.
    shutil.move(measured / "seed1", measured.parent / "other" / "cells" / "seed1")
    printed(str(measured), "--csv", str(measured / "added.csv"))
    assert printed(str(measured.parent / "other" / "cells"), "--csv", str(measured / "added.csv")) == whole
    assert (measured / "added.csv").read_text() == (measured / "whole.csv").read_text()

    # What was measured again counts.
    score(measured, 0, "random-6-real", 0.2)
    assert "| 20.0 |" in printed(str(measured), "--csv", str(measured / "added.csv"))


def test_nothing_to_make_tables_of_is_said(
    found: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["which_pixels_table.py"])
    with pytest.raises(SystemExit):
        found["which_pixels_table"].main()

    assert "name a folder of scores" in capsys.readouterr().err


def test_a_selection_is_a_line_of_the_short_table(found: dict[str, Any], measured: Path) -> None:
    script = found["which_pixels_table"]
    # After a seed in which pseudo-labels were not come to yet.
    score(measured, 0, "cps-6-pseudo", 0.43)
    score(measured, 0, "cps-6-real", 0.33)

    title, *lines = script.in_short(script.read(measured))
    assert title.endswith("| + pseudo-labels | over the patches | of all labels | n |")
    assert lines == [
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| 6 | 4.0 % | chance | 30.0 | – | – | – | – | 1 |",
        "| 6 | 4.0 % | consistency | 41.5 ± 12.0 | 48.0 ± 8.5 (+6.5) | 43.0 (+1.0) | 10.0 | 54 % | 1 |",
        "| all | 100.0 % | all labels | 80.0 ± 0.0 | – | – | – | – | 2 |",
    ]


def test_images_are_halved_with_their_labels(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, values in (
        ("images", np.full((6, 8, 3), (10, 20, 30), np.uint8)),
        ("labels", np.arange(48, dtype=np.uint16).reshape(6, 8) * 300),
    ):
        (tmp_path / "src" / kind).mkdir(parents=True)
        Image.fromarray(values).save(tmp_path / "src" / kind / "a.png")
    monkeypatch.setattr(sys, "argv", ["halved.py", str(tmp_path / "src"), "-o", str(tmp_path / "half")])
    found["halved"].main()

    with Image.open(tmp_path / "half/images/a.png") as image, Image.open(tmp_path / "half/labels/a.png") as labels:
        assert image.size == labels.size == (4, 3)
        assert image.getpixel((3, 2)) == (10, 20, 30)
        assert np.asarray(labels)[2, 3] == (4 * 8 + 6) * 300


@pytest.fixture
def cells(tmp_path: Path, shell: Callable[..., Ran]) -> Callable[..., Ran]:
    """Return a function that runs the script on some images."""
    if shutil.which("flock") is None:
        pytest.skip("there is no flock")
    for folder in ("labelled", "unlabelled"):
        for kind, shape in (("images", (4, 4, 3)), ("labels", (4, 4))):
            (tmp_path / folder / kind).mkdir(parents=True)
            for number in range(16):
                Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / folder / kind / f"{number}.png")

    def run(name: str = "dsb2018", **settings: str) -> Ran:
        return shell("experiments/which_pixels.sh", name, "0", **{"SRC": "labelled", "COUNTS": "2", **settings})

    return run


def of(calls: list[list[str]], *command: str) -> list[list[str]]:
    """Return the calls of one command."""
    return [call for call in calls if tuple(call[: len(command)]) == command]


@pytest.mark.parametrize("settings", [{}, {"name": "monuseg", "MORE": "unlabelled"}], ids=["dsb2018", "monuseg"])
def test_every_command_is_one_that_there_is(settings: dict[str, str], cells: Callable[..., Ran]) -> None:
    ran = cells(**settings)

    assert ran.code == 0, ran.err
    check_calls(ran.calls)
    # How GANs of few patches are made must not depend on the labels of more.
    assert all("layout.density=normal" in call for call in of(ran.calls, "synth", "fit"))
    assert {call[0] for call in ran.calls} == {"ingest", "select", "synth", "train", "predict", "evaluate"}


def value(call: list[str], option: str) -> str:
    """Return what an option of a call says."""
    return call[call.index(option) + 1]


def test_nothing_is_learnt_from_what_judges_or_was_not_chosen(cells: Callable[..., Ran]) -> None:
    ran = cells(name="monuseg", MORE="unlabelled")

    data = "which_pixels_out/monuseg"
    run = f"{data}/seed0"
    pool, free = of(ran.calls, "ingest")
    assert value(pool, "--split") == f"{data}/split.csv"
    assert value(free, "--split") == "unlabelled"
    assert {value(call, "-o"): call[1] for call in of(ran.calls, "select")} == {
        f"{run}/{name}/selection": f"{data}/pool.zarr" for name in ("random-2", "cps-2")
    }
    trained = {value(call, "-o").removeprefix(f"{run}/"): call for call in of(ran.calls, "train")}
    assert set(trained) == {"full", *(f"{name}/{what}" for name in ("random-2", "cps-2") for what in ("real", "loop"))}
    for name, call in trained.items():
        cell, _, what = name.partition("/")
        stores = [part for part in call if part.endswith(".zarr")]
        made = [f"{data}/free.zarr", f"{run}/{cell}/synthetic.zarr"] if what == "loop" else []
        assert stores == [f"{data}/pool.zarr", *made]
        assert ("--labelled" in call) == bool(what)
        assert not what or value(call, "--labelled") == f"{run}/{cell}/selection/selection.csv"
        # All learn alike.
        assert [value(call, option) for option in ("--steps", "--seed", "--config")] == [
            value(trained["full"], option) for option in ("--steps", "--seed", "--config")
        ]


def test_each_model_is_judged_by_the_images_that_were_held_out(tmp_path: Path, cells: Callable[..., Ran]) -> None:
    ran = cells()

    run = "which_pixels_out/dsb2018/seed0"
    split = (tmp_path / "which_pixels_out/dsb2018/split.csv").read_text().splitlines()
    held_out = {line.partition(",")[0] for line in split if line.endswith(",test")}
    assert len(held_out) == 15
    predicted = of(ran.calls, "predict")
    assert {value(call, "-o"): value(call, "--model") for call in predicted} == {
        f"{run}/predictions/full": f"{run}/full",
        **{
            f"{run}/predictions/{cell}-{stage}": f"{run}/{cell}/{model}"
            for cell in ("random-2", "cps-2")
            for stage, model in (("real", "real"), ("synthetic", "loop/teacher"), ("pseudo", "loop"))
        },
    }
    for call in predicted:
        images = [part for part in call if "/images/" in part]
        assert {image.rpartition("/")[2].removesuffix(".png") for image in images} == held_out
    for call in of(ran.calls, "evaluate"):
        assert call[1] == f"{run}/predictions/{value(call, '-o').rpartition('/')[2].removesuffix('.json')}"
        assert call[2] == "which_pixels_out/dsb2018/test/labels"


def test_a_model_that_was_trained_since_is_judged_again(tmp_path: Path, cells: Callable[..., Ran]) -> None:
    cells()
    run = tmp_path / "which_pixels_out/dsb2018/seed0"
    (run / "full" / "last").mkdir()
    weights = run / "full" / "last" / "model.safetensors"
    weights.touch()
    scored = (run / "full.json").stat().st_mtime

    os.utime(weights, (scored - 60, scored - 60))
    assert of(cells().calls, "predict") == []
    os.utime(weights, (scored + 60, scored + 60))
    again = of(cells().calls, "predict")

    assert [value(call, "-o") for call in again] == ["which_pixels_out/dsb2018/seed0/predictions/full"]
    assert "--overwrite" in again[0]


def test_synthetic_patches_are_those_of_their_own_selection_also_where_more_were_chosen_later(
    cells: Callable[..., Ran],
) -> None:
    cells(COUNTS="2")

    ran = cells(COUNTS="2 3")

    run = "which_pixels_out/dsb2018/seed0"
    sampled = [(call[call.index("--selection") + 1], call[-1]) for call in of(ran.calls, "synth", "sample")]
    assert sampled == [
        (f"{run}/{name}/selection/selection.csv", f"{run}/{name}/synthetic.zarr")
        for name in ("random-2", "cps-2", "random-3", "cps-3")
    ]
    for call in of(ran.calls, "train", "--method", "label-efficient"):
        assert [part for part in call if part.endswith("synthetic.zarr")] == [
            call[call.index("-o") + 1].replace("/loop", "/synthetic.zarr")
        ]


def test_every_training_is_told_what_else_there_is_to_tell(cells: Callable[..., Ran]) -> None:
    more = "--arch maskrcnn --encoder resnet50 --init coco.pth --set options.net.trained_stages=0 --lr 0.005"

    ran = cells(TRAIN=more, INIT="lite0.safetensors")

    assert ran.code == 0, ran.err
    check_calls(ran.calls)
    trained = of(ran.calls, "train")
    assert {call[2] for call in trained} == {"supervised", "label-efficient"}
    for call in trained:
        # What comes last counts, and the encoder that patches are compared by is another one.
        assert call[-len(more.split()) :] == more.split()
    assert all(call[call.index("--init") + 1] == "lite0.safetensors" for call in of(ran.calls, "select"))


def test_teachers_and_students_see_annotated_and_synthetic_images_in_the_same_proportion(
    cells: Callable[..., Ran],
) -> None:
    ran = cells()

    loops = of(ran.calls, "train", "--method", "label-efficient")
    assert loops
    for call in loops:
        told = [call[at + 1] for at, part in enumerate(call) if part == "--set"]
        options = load(
            LabelEfficientOptions,
            overrides=[one.removeprefix("options.") for one in told if one.startswith("options.")],
        )
        real, synthetic, pseudo = options.student_shares
        assert real / (real + synthetic) == pytest.approx(options.teacher_real)
        assert real + synthetic + pseudo == pytest.approx(1)
    other = cells(LOOP="--set options.rounds=2", COUNTS="3")
    assert all("options.rounds=2" in call for call in of(other.calls, "train", "--method", "label-efficient"))
    usual = cells(LOOP="", COUNTS="4")
    assert not any("--set" in call for call in of(usual.calls, "train", "--method", "label-efficient"))


@pytest.mark.parametrize(("code", "ended"), [(3, 0), (5, 5), (75, 75)])
def test_it_ends_as_fitting_did_unless_some_patches_cannot_be_learnt_from(
    code: int, ended: int, tmp_path: Path, cells: Callable[..., Ran]
) -> None:
    cells()
    (tmp_path / "broken").write_text(f"synth {code}")

    ran = cells()

    assert ran.code == ended, ran.err
    assert bool(of(ran.calls, "train")) == (ended == 0)
