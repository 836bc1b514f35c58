"""One writer at a time, and a dead writer does not block for ever."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from wsiseg import lock
from wsiseg.errors import BusyError
from wsiseg.lock import STALE_S, locked

if TYPE_CHECKING:
    from pathlib import Path


def test_a_second_writer_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "lock"),
        pytest.raises(BusyError, match=f"pid {os.getpid()}"),
        locked(tmp_path / "lock"),
    ):
        pass
    assert not (tmp_path / "lock").exists()


def test_the_lock_of_a_process_that_is_gone_is_taken_over(tmp_path: Path) -> None:
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    (tmp_path / "lock").write_text(json.dumps({"host": socket.gethostname(), "pid": int(child.stdout)}))

    with locked(tmp_path / "lock"):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_a_folder_made_for_the_lock_goes_with_it_where_nothing_came_into_it(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()

    with locked(tmp_path / "refused" / ".lock"), locked(tmp_path / "old" / ".lock"):
        pass
    with locked(tmp_path / "done" / ".lock"):
        (tmp_path / "done" / "result").touch()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["done", "old"]


def test_a_folder_that_its_holder_takes_along_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run" / ".lock"
    opens = os.open

    def gone_meanwhile(*arguments: object) -> int:
        monkeypatch.setattr(os, "open", opens)
        path.parent.rmdir()
        return opens(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", gone_meanwhile)

    with locked(path):
        assert path.exists()


def test_the_lock_of_another_host_holds_until_its_heart_stops(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1}))

    with pytest.raises(BusyError, match="elsewhere"), locked(path):
        pass
    os.utime(path, (0, path.stat().st_mtime - STALE_S - 1))
    with locked(path):
        pass


def test_who_finds_a_stale_lock_too_late_does_not_take_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    os.utime(path, (0, path.stat().st_mtime - STALE_S - 1))
    judge = lock._is_stale

    def taken_meanwhile(place: Path) -> bool:
        monkeypatch.setattr(lock, "_is_stale", judge)
        is_stale = judge(place)
        path.write_text(json.dumps({"host": "third", "pid": 1}))
        return is_stale

    monkeypatch.setattr(lock, "_is_stale", taken_meanwhile)

    with pytest.raises(BusyError, match="third"), locked(path):
        pass

    assert [file.name for file in tmp_path.iterdir()] == ["lock"]
    assert "third" in path.read_text()
