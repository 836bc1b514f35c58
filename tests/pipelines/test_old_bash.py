"""Scripts that users run on laptops and old clusters do without what bash 3.2 of macOS and 4.2 of RHEL 7 lack."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PIPELINES = Path(__file__).parents[2] / "pipelines"
SCRIPTS = sorted([*PIPELINES.glob("*/*.sbatch"), *PIPELINES.glob("*/*.sh")])
NEWER = re.compile(r"\b(mapfile|readarray|coproc|wait -n|(declare|local|typeset) -[An])\b|\$\{\w+(\^|,|@)")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_nothing_needs_a_newer_bash(script: Path) -> None:
    assert NEWER.findall(script.read_text()) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_lists_that_begin_empty_may_stay_so(script: Path) -> None:
    text = script.read_text()
    begun = set(re.findall(r"\b(\w+)=\(\)", text)) | set(re.findall(r"read -ra (\w+)", text))

    for name in begun:
        asks_how_many = f"${{#{name}[@]}}" in text
        plain = text.replace(f'${{{name}[@]+"${{{name}[@]}}"}}', "")
        assert asks_how_many or f'"${{{name}[@]}}"' not in plain, name
