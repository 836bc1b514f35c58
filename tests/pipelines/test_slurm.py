"""Jobs are queued again where a step stopped in good order, and only there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "pipelines" / "slurm"
AGAIN = ("budget_array", "predict_array", "train_ddp")


def job(script: str, folder: Path, *, step: str) -> tuple[int, bool]:
    """Run a script with a step that is a line of shell; return its exit code and whether it was queued again."""
    tools = folder / "bin"
    tools.mkdir()
    queued = folder / "queued"
    for name, line in {"wsiseg": step, "scontrol": f"touch {queued}"}.items():
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)
    done = subprocess.run(
        ["/usr/bin/env", "bash", str(SCRIPTS / f"{script}.sbatch")],
        env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "GPUS": "2"},
        cwd=folder,
        capture_output=True,
        check=False,
        timeout=60,
    )
    return done.returncode, queued.exists()


@pytest.mark.parametrize("script", AGAIN)
@pytest.mark.parametrize("wait", ["", "sleep 0.3; "], ids=["at-once", "later"])
def test_what_stopped_in_good_order_is_queued_again(script: str, wait: str, tmp_path: Path) -> None:
    assert job(script, tmp_path, step=f"{wait}exit 75") == (0, True)


@pytest.mark.parametrize("script", AGAIN)
@pytest.mark.parametrize("code", [0, 2, 127])
def test_what_ends_otherwise_is_not_even_if_it_ends_at_once(script: str, code: int, tmp_path: Path) -> None:
    assert job(script, tmp_path, step=f"exit {code}") == (code, False)


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("wait", ["", "sleep 0.3; "], ids=["at-once", "later"])
def test_where_one_process_fails_the_others_do_not_wait_for_it(failing: int, wait: str, tmp_path: Path) -> None:
    # As one that waits for the others does, they do not stop when they are asked to.
    step = f"trap '' TERM USR1\nif [ $RANK -eq {failing} ]; then {wait}exit 3; fi\nexec sleep 300"

    assert job("train_ddp", tmp_path, step=step) == (3, False)
