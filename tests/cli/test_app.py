"""The command starts fast, says one line for an error, and exits with the promised code."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from wsiseg import __version__
from wsiseg.cli import app, console
from wsiseg.errors import SlideError, StoppedError, StoreError, WsisegError


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wsiseg.cli.app", *arguments], capture_output=True, text=True, check=False
    )


def test_help_names_every_command_and_starts_without_torch() -> None:
    code = (
        "import sys; from wsiseg.cli.app import app; print([m for m in ('torch', 'zarr', 'scipy') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == "[]"
    result = run("--help")
    assert result.returncode == 0
    for name in app.COMMANDS:
        assert name in result.stdout


def test_the_version_is_the_packages() -> None:
    assert run("--version").stdout.strip() == f"wsiseg {__version__}"


def test_an_unknown_command_is_a_usage_error() -> None:
    result = run("predct")

    assert result.returncode == 2
    assert "predct" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_full_disk_is_one_line_and_other_failures_of_the_system_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(code: int) -> None:
        raise OSError(code, os.strerror(code), "run/log.csv")

    monkeypatch.setattr(app, "app", lambda: fail(errno.ENOSPC))
    with pytest.raises(SystemExit) as exit_info:
        app.main()

    assert exit_info.value.code == StoreError.exit_code
    assert capsys.readouterr().err == "Error: run/log.csv: cannot be written: No space left on device\n"
    monkeypatch.setattr(app, "app", lambda: fail(errno.EIO))
    with pytest.raises(OSError, match="run/log"):
        app.main()


@pytest.mark.parametrize(
    ("error", "code"),
    [(SlideError("it is broken", where="a.svs", mend="Mend it"), 5), (StoppedError("time is up"), 75)],
)
def test_an_error_is_one_line_and_its_exit_code(
    error: WsisegError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(app, "app", fail)

    with pytest.raises(SystemExit) as exit_info:
        app.main()

    assert exit_info.value.code == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.strip().splitlines() == [f"Error: {error}"]


def test_plain_progress_says_a_line_now_and_then_and_never_a_carriage_return(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "PLAIN_INTERVAL_S", 0.0)
    console.configure(console.ProgressStyle.PLAIN, 0)

    with console.progress_bar() as progress, progress.task("tiles", total=2, unit="tiles") as advance:
        advance()
        advance(status="0.5 GiB")

    lines = capsys.readouterr().err
    assert "tiles: 1/2 tiles" in lines
    assert "0.5 GiB" in lines
    assert "\r" not in lines
