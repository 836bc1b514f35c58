"""The loop of a few annotated patches stops where it is a person's turn, and goes on where it stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import typer

from tests.pipelines.conftest import PIPELINES
from wsiseg.cli import app

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCRIPT = PIPELINES / "label_efficient" / "loop.sh"
# Writes down how it was called, and makes what the script looks at.
STAND_IN = """#!{python}
import sys
from pathlib import Path
arguments = sys.argv[1:]
with open("calls", "a") as file:
    file.write("\\t".join(arguments) + "\\n")
out = Path(arguments[arguments.index("-o") + 1]) if "-o" in arguments else Path("out")
out.mkdir(parents=True, exist_ok=True)
if arguments[0] == "select":
    (out / "selection.csv").write_text("patch,slide,x,y,rank\\na-0-0,a,0,0,1\\nb-0-0,b c,0,0,1\\nd-0-0,d,0,0,2\\n")
    (out / "selection.json").touch()
name, code = Path("broken").read_text().split() if Path("broken").exists() else ("", 0)
sys.exit(int(code) if name == arguments[0] else 0)
"""


@pytest.fixture
def loop(tmp_path: Path) -> Callable[..., tuple[int, str, list[list[str]]]]:
    """Return a function that runs the script, and gives its exit code, what it said, and the commands of this run."""
    if not SCRIPT.exists():
        pytest.skip("the pipelines do not come with an installed package")
    (tmp_path / "wsiseg").write_text(STAND_IN.format(python=sys.executable))
    (tmp_path / "wsiseg").chmod(0o755)

    def run(**settings: str) -> tuple[int, str, list[list[str]]]:
        (tmp_path / "calls").write_text("")
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", **settings}
        found = subprocess.run(
            ["bash", str(SCRIPT)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        calls = [line.split("\t") for line in (tmp_path / "calls").read_text().splitlines()]
        return found.returncode, found.stderr, calls

    return run


def annotate(folder: Path, number: int) -> None:
    for slide in ("a", "b c"):
        (folder / "loop" / f"annotations-{number}" / f"{slide}.geojson").touch()


def names(calls: list[list[str]]) -> list[str]:
    return [" ".join(call[:2]) if call[0] == "synth" else call[0] for call in calls]


def test_it_waits_for_annotations_and_then_goes_all_the_way(
    tmp_path: Path, loop: Callable[..., tuple[int, str, list[list[str]]]]
) -> None:
    code, told, calls = loop()

    assert (code, names(calls)) == (4, ["tile", "select"])
    assert "loop/annotations-1/a.geojson\n       loop/annotations-1/b c.geojson" in told
    assert "annotations-1/d.geojson" not in told

    annotate(tmp_path, 1)
    code, told, calls = loop()

    assert code == 0
    steps = ["tile", "label", "label", "synth fit", "synth sample", "train", "predict", "select"]
    assert names(calls) == steps
    assert calls[2][1] == "loop/tiles/b c.zarr"
    assert calls[-1][-4:] == ["--strategy", "uncertainty", "--prediction", "loop/predictions-1"]
    assert "ROUNDS=2" in told
    # Nothing is done again, and another round begins with what was proposed.
    assert names(loop()[2]) == ["tile"]
    code, told, calls = loop(ROUNDS="2")
    assert (code, names(calls)) == (4, ["tile"])
    assert "loop/select-2/selection.html" in told
    annotate(tmp_path, 2)
    assert names(loop(ROUNDS="2")[2]) == steps


def test_what_fails_is_done_again_and_what_is_done_is_not(
    tmp_path: Path, loop: Callable[..., tuple[int, str, list[list[str]]]]
) -> None:
    loop()
    annotate(tmp_path, 1)
    (tmp_path / "broken").write_text("train 1")

    code, _, calls = loop()
    assert (code, names(calls)[-1]) == (1, "train")
    (tmp_path / "broken").unlink()

    assert names(loop()[2]) == ["tile", "label", "label", "synth fit", "train", "predict", "select"]


def test_patches_that_no_gan_can_learn_from_do_not_end_it(
    tmp_path: Path, loop: Callable[..., tuple[int, str, list[list[str]]]]
) -> None:
    loop()
    annotate(tmp_path, 1)
    (tmp_path / "broken").write_text("synth 3")

    assert "synth sample" in names(loop()[2])


def test_every_command_is_one_that_there_is(
    tmp_path: Path, loop: Callable[..., tuple[int, str, list[list[str]]]]
) -> None:
    program = typer.main.get_command(app.app)
    calls = loop(SELECT="--init none", TRAIN="--steps 20 --head flow")[2]
    annotate(tmp_path, 1)
    calls += loop(TRAIN="--steps 20 --head flow")[2]

    for call in calls:
        command, arguments = program, call
        while hasattr(command, "commands"):
            command, arguments = command.commands[arguments[0]], arguments[1:]
        # Refuses what it does not know.
        command.make_context("wsiseg", list(arguments))
    assert "--head" in calls[-3]
    assert calls[1][-2:] == ["--init", "none"]
