"""The scripts of the pipelines, which are no packages, and a stand-in for the commands that they call."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import typer

import wsiseg
from wsiseg.cli import app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

PIPELINES = Path(wsiseg.__file__).parents[1] / "pipelines"
# Writes down how it was called, makes what scripts look at, and ends as a file says that a command does.
STAND_IN = """#!{python}
import sys
from pathlib import Path
arguments = sys.argv[1:]
with open("calls", "a") as file:
    file.write("\\t".join(arguments) + "\\n")
name, code = Path("broken").read_text().split() if Path("broken").exists() else ("", 0)
if name in arguments[:2]:
    sys.exit(int(code))
out = Path(arguments[arguments.index("-o") + 1]) if "-o" in arguments else Path("out")
if arguments[0] == "evaluate":
    out.write_text("scores")
else:
    out.mkdir(parents=True, exist_ok=True)
if arguments[0] == "select":
    rows = "patch,slide,x,y,rank", "a-0-0,a,0,0,1", '"b, c-0-0","b, c",0,0,1', "d-0-0,d,0,0,2", ""
    (out / "selection.csv").write_text("\\n".join(rows))
    count = arguments[arguments.index("-k") + 1]
    (out / "selection.json").write_text('{{"asked": {{"config": {{"count": ' + count + "}}}}}}")
if arguments[0] == "tile":
    for slide in ("a", "b, c", "d"):
        (out / (slide + ".zarr")).mkdir(exist_ok=True)
"""


class Ran(NamedTuple):
    """What a run of a shell script gave, and the arguments of the commands that it called."""

    code: int
    err: str
    calls: list[list[str]]


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., Ran]:
    """Return a function that runs a shell script of a pipeline with a stand-in for ``wsiseg``."""
    (tmp_path / "wsiseg").write_text(STAND_IN.format(python=sys.executable))
    (tmp_path / "wsiseg").chmod(0o755)

    def run(script: str, *arguments: str, **settings: str) -> Ran:
        path = PIPELINES / script
        if not path.exists():
            pytest.skip("the pipelines do not come with an installed package")
        (tmp_path / "calls").write_text("")
        tools = os.pathsep.join((str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]))
        found = subprocess.run(
            ["bash", str(path), *arguments],
            cwd=tmp_path,
            env={**os.environ, "PATH": tools, **settings},
            capture_output=True,
            text=True,
            check=False,
        )
        calls = [line.split("\t") for line in (tmp_path / "calls").read_text().splitlines()]
        return Ran(found.returncode, found.stderr, calls)

    return run


def check_calls(calls: list[list[str]]) -> None:
    """See that the command line knows all that it was called with."""
    program = typer.main.get_command(app.app)
    for call in calls:
        command, arguments = program, call
        while hasattr(command, "commands"):
            command, arguments = command.commands[arguments[0]], arguments[1:]
        # Refuses what it does not know.
        command.make_context("wsiseg", list(arguments))


@pytest.fixture(scope="session")
def scripts() -> Callable[..., AbstractContextManager[dict[str, Any]]]:
    """Return a function that gives the scripts of a pipeline by their names, and forgets them afterwards."""

    @contextmanager
    def of(pipeline: str, *names: str) -> Iterator[dict[str, Any]]:
        folder = PIPELINES / pipeline
        if not folder.is_dir():
            pytest.skip("the pipelines do not come with an installed package")
        sys.path.insert(0, str(folder))
        try:
            yield {name: importlib.import_module(name) for name in names}
        finally:
            sys.path.remove(str(folder))
            for name in names:
                sys.modules.pop(name, None)

    return of
