"""Scripts that users run on laptops and old clusters do without what bash 3.2 of macOS and 4.2 of RHEL 7 lack."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PIPELINES = Path(__file__).parents[2] / "pipelines"
STARTERS = sorted([*PIPELINES.glob("slurm/*.sbatch"), *PIPELINES.glob("label_efficient/*.sh")])
NEWER = re.compile(r"\b(mapfile|readarray|coproc|wait -n|(declare|local|typeset) -[An])\b|\$\{\w+(\^|,|@)")


@pytest.mark.parametrize("script", STARTERS, ids=lambda path: path.name)
def test_nothing_needs_a_newer_bash(script: Path) -> None:
    assert NEWER.findall(script.read_text()) == []


@pytest.mark.parametrize("script", STARTERS, ids=lambda path: path.name)
def test_lists_that_begin_empty_may_stay_so(script: Path) -> None:
    text = script.read_text()
    begun = set(re.findall(r"\b(\w+)=\(\)", text)) | set(re.findall(r"read -ra (\w+)", text))

    for name in begun:
        plain = [
            line
            for line in text.splitlines()
            if f'"${{{name}[@]}}"' in line.replace(f'${{{name}[@]+"${{{name}[@]}}"}}', "")
        ]
        # Scripts go through a list, tell of it and signal it only where it has items.
        assert all("for " in line or "kill" in line or "printf" in line for line in plain), plain
