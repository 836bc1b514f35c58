"""One writer at a time, and a dead writer does not block for ever."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from wsiseg.errors import StoreError
from wsiseg.lock import STALE_S, locked

if TYPE_CHECKING:
    from pathlib import Path


def test_a_second_writer_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "lock"),
        pytest.raises(StoreError, match=f"pid {os.getpid()}"),
        locked(tmp_path / "lock"),
    ):
        pass
    assert not (tmp_path / "lock").exists()


def test_the_lock_of_a_process_that_is_gone_is_taken_over(tmp_path: Path) -> None:
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    (tmp_path / "lock").write_text(json.dumps({"host": socket.gethostname(), "pid": int(child.stdout)}))

    with locked(tmp_path / "lock"):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_the_lock_of_another_host_holds_until_its_heart_stops(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1}))

    with pytest.raises(StoreError, match="elsewhere"), locked(path):
        pass
    os.utime(path, (0, path.stat().st_mtime - STALE_S - 1))
    with locked(path):
        pass
