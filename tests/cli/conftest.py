"""What tests of the command line share: a way to run it, and a store that it has cut from a slide."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.slide_makers import Layout, write_slide
from wsiseg.cli import app
from wsiseg.geometry import Size

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Result(NamedTuple):
    """What a run of the command gave; white space in what it told is single."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Return a function that runs the command in this process."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["wsiseg", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            app.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(int(exit_info.value.code or 0), captured.out, " ".join(captured.err.split()))

    return call


@pytest.fixture
def make_tiled_store(tmp_path: Path, run: Callable[..., Result]) -> Callable[..., Path]:
    """Return a function that writes ``a.tiff``, of 0.5 µm per pixel, and cuts it into patches of 1 µm per pixel."""

    def make(size: Size, *, patch_px: int, codec: str = "auto") -> Path:
        write_slide(tmp_path / "a.tiff", Layout(size=size, mpp=0.5))
        cut = ("--tissue", "none", "--mpp", 1, "--patch-size", patch_px, "--codec", codec)
        assert run("tile", tmp_path / "a.tiff", "-o", tmp_path, *cut).code == 0
        return tmp_path / "a.zarr"

    return make


@pytest.fixture
def store(make_tiled_store: Callable[..., Path]) -> Path:
    """Return a store of 2 × 3 patches of 50 pixels, 2 level-0 pixels wide each, the last ones cut off by the slide."""
    return make_tiled_store(Size(250, 200), patch_px=50)
