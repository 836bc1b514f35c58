"""``wsiseg info`` says what slides are, and one bad slide does not hide the others."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.slide_makers import Layout, write_slide
from wsiseg.cli import app
from wsiseg.errors import NothingMatchedError, SlideError, SomeFailedError, UnreadableError
from wsiseg.geometry import Size, Window
from wsiseg.slides.openslide import OpenSlideSlide
from wsiseg.slides.tiff import TiffSlide
from wsiseg.tasks.info import describe_slides, raise_failures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wsiseg.cli.app", "info", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "", "COLUMNS": "120"},
    )


def test_a_person_sees_size_reader_and_pixel_size(cmu_svs: Path) -> None:
    result = run(cmu_svs, "--verify")

    assert result.returncode == 0
    for text in ("aperio", "2220 × 2967 px", "0.499 µm (aperio.MPP)", "240 × 240", "all equal", "label, macro"):
        assert text in result.stdout
    assert result.stderr == ""


def test_a_program_sees_json(cmu_svs: Path) -> None:
    result = run(cmu_svs, "--json")

    (slide,) = json.loads(result.stdout)
    assert slide["size"] == [2220, 2967]
    assert slide["mpp"] == {"value": 0.499, "x": 0.499, "y": 0.499, "source": "aperio.MPP"}
    assert slide["level_at_0.5_um"] == 0
    assert slide["levels"][0] == {"size": [2220, 2967], "downsample": 1.0, "tile": [240, 240], "compression": "jpeg"}


def test_one_bad_slide_does_not_hide_the_others(tmp_path: Path, cmu_svs: Path) -> None:
    bad = tmp_path / "bad [1].svs"
    bad.write_text("no slide")

    result = run(cmu_svs, bad)

    assert result.returncode == 3
    assert "2220 × 2967" in result.stdout
    assert "not a slide or image of any known format" in " ".join(result.stdout.replace("│", " ").split())
    assert result.stderr.count("\n") == 1


def test_exit_codes_tell_bad_from_none(tmp_path: Path) -> None:
    bad = tmp_path / "bad.svs"
    bad.touch()

    reports = describe_slides([str(bad)])

    with pytest.raises(SlideError, match="empty"):
        raise_failures(reports)
    with pytest.raises(SlideError, match="none of 2"):
        raise_failures(reports * 2)
    with pytest.raises(NothingMatchedError):
        describe_slides([])


def test_a_wrong_pixel_is_found(make_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_slide(family="aperio", levels=(1, 2))
    plain = TiffSlide.read_level

    def wrong(self: TiffSlide, level: int, window: Window) -> NDArray[np.uint8]:
        pixels = plain(self, level, window)
        pixels[0, 0] ^= 1
        return pixels

    (report,) = describe_slides([str(path)], is_verified=True)
    assert report.verification is not None
    assert (report.verification.different, report.verification.unreadable) == (0, 0)
    raise_failures([report])

    monkeypatch.setattr(TiffSlide, "read_level", wrong)
    (report,) = describe_slides([str(path)], is_verified=True)
    assert report.verification is not None
    assert report.verification.different == report.verification.tiles > 1
    with pytest.raises(SomeFailedError, match="look different"):
        raise_failures([report])


def test_a_slide_that_opens_but_cannot_be_read_fails(
    make_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_slide(family="aperio", levels=(1, 2))
    plain = OpenSlideSlide.read_level
    readable = {"levels": 0}

    def torn(self: OpenSlideSlide, level: int, window: Window) -> NDArray[np.uint8]:
        if level >= readable["levels"]:
            raise UnreadableError("torn")
        return plain(self, level, window)

    monkeypatch.setattr(OpenSlideSlide, "read_level", torn)

    (lost,) = describe_slides([str(path)], reader="openslide", is_verified=True)
    readable["levels"] = 1
    (partly,) = describe_slides([str(path)], reader="openslide", is_verified=True)

    with pytest.raises(UnreadableError, match=r"none of \d+ tiles can be read"):
        raise_failures([lost])
    with pytest.raises(SomeFailedError, match="1 of 2 slides cannot be read"):
        raise_failures([lost, partly])
    with pytest.raises(SomeFailedError, match="1 of 1 slides cannot be read everywhere"):
        raise_failures([partly])
    raise_failures(describe_slides([str(path)], reader="openslide"))
    from wsiseg.cli import info

    assert [info._panel(report).border_style for report in (lost, partly)] == ["red", "yellow"]


def test_unreadable_slides_are_said_to_be_so(data_dir: Path) -> None:
    result = run(data_dir / "slides/odd/unreadable.svs", "--verify")

    assert result.returncode == 5
    assert "tiles can be read" in result.stdout
    assert "all equal" not in result.stdout


def test_a_tile_that_only_one_reader_reads_is_a_difference(
    make_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_slide(family="aperio")

    def torn(self: OpenSlideSlide, level: int, window: Window) -> NDArray[np.uint8]:  # noqa: ARG001 - as the original
        raise UnreadableError("torn")

    monkeypatch.setattr(OpenSlideSlide, "read_level", torn)
    (report,) = describe_slides([str(path)], is_verified=True)

    with pytest.raises(SomeFailedError, match="look different"):
        raise_failures([report])


def test_a_pixel_size_that_is_not_believed_is_shown_with_the_reason(tmp_path: Path) -> None:
    write_slide(tmp_path / "a.svs", Layout(size=Size(130, 90), family="aperio", mpp=352.8))

    result = run(tmp_path / "a.svs")
    (described,) = json.loads(run(tmp_path / "a.svs", "--json").stdout)

    assert "352.8 µm (aperio.MPP, which no microscope slide has)" in " ".join(result.stdout.split())
    candidates = {one["source"]: one["is_plausible"] for one in described["mpp_candidates"]}
    assert candidates["aperio.MPP"] is False


def test_other_readers_are_not_compared(make_slide: Callable[..., Path]) -> None:
    path = make_slide(family="aperio")

    (report,) = describe_slides([str(path)], reader="openslide", is_verified=True)

    assert report.verification is not None
    assert report.verification.note == "only the fast reader is compared"
    json.dumps(report.as_json())


def test_every_kind_of_panel_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["wsiseg", "info"])
    layouts: dict[str, dict[str, Any]] = {
        "no mpp.tif": {"mpp": None},
        "two.svs": {"family": "aperio", "levels": (1, 2)},
        "j2k.tif": {"compression": "34712", "photometric": "rgb"},
        "holes.svs": {"family": "aperio", "missing": (0,)},
    }
    for name, fields in layouts.items():
        write_slide(tmp_path / name, Layout(size=Size(130, 90), **fields))
    reports = describe_slides([str(tmp_path / name) for name in layouts], is_verified=True)

    from wsiseg.cli import console, info

    for report in reports:
        console.out.print(info._panel(report), soft_wrap=False)

    text = " ".join(capsys.readouterr().out.split())
    assert "unknown: the slide carries no pixel size" in text
    assert "nothing to compare with" in text
    assert app.COMMANDS[0] == "info"
