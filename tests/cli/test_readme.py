"""The README names commands, options and exit codes that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from wsiseg import errors
from wsiseg.cli.app import app
from wsiseg.config import load
from wsiseg.errors import ConfigError, WsisegError
from wsiseg.methods.registry import METHODS, PATCH_METHODS, get_method, get_patch_method
from wsiseg.nets.factory import spec_type
from wsiseg.nets.maskrcnn import MASKRCNN

README = Path(__file__).parents[2] / "README.md"
LINES = sorted(
    {
        line.partition("#")[0].strip()
        for block in re.findall(r"^```\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for part in block.splitlines()
        for line in part.split("&&")
        if line.strip().startswith("wsiseg ")
    }
)


@pytest.mark.parametrize("line", LINES)
def test_commands_and_their_options_exist(line: str) -> None:
    _, name, *words = line.split()
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined] # a group
    if hasattr(command, "commands"):
        command = command.commands[words[0]]
    options = {option for parameter in command.params for option in parameter.opts}

    assert {word for word in words if word.startswith("-")} <= options


def test_the_examples_cover_the_main_commands() -> None:
    assert {line.split()[1] for line in LINES} >= {"info", "predict", "tile", "ingest", "train", "evaluate", "demo"}


def test_every_exit_code_is_told() -> None:
    table = README.read_text(encoding="utf-8").split("| exit code |")[1].split("\n\n")[0]
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", table, flags=re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, WsisegError)]

    assert told == {0, *(kind.exit_code for kind in kinds)}


def test_what_is_linked_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8"))

    assert {"wsiseg/methods/craanet.py", "wsiseg/methods/mlps_presets.py"} <= set(links)
    assert [link for link in links if not (README.parent / link).exists()] == []


def _is_option(name: str, setting: str) -> bool:
    method = get_patch_method(name) or get_method(name)
    try:
        load(method.options, overrides=[setting])
        # Methods leave settings of their network to it.
        if setting.startswith("net."):
            load(spec_type(MASKRCNN), overrides=[setting.removeprefix("net.")])
    except ConfigError:
        return False
    return True


def test_options_of_methods_exist() -> None:
    told = re.findall(r"--set options\.([^` ]+)", README.read_text(encoding="utf-8"))

    assert len(told) > 2
    assert [one for one in told if not any(_is_option(name, one) for name in (*METHODS, *PATCH_METHODS))] == []
