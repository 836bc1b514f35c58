"""``wsiseg doctor`` finds what is wrong, says how to mend it, and fails only for what is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from wsiseg.cli.app import app
from wsiseg.tasks import doctor
from wsiseg.tasks.doctor import Finding, Status

GIB = 1 << 30


class Usage(NamedTuple):
    free: int


@pytest.mark.slow
def test_every_finding_that_is_not_fine_says_how_to_mend_it() -> None:
    findings = doctor.examine()

    assert {"python", "torch", "openslide", "codecs", "cpu", "memory", "shipped models"} <= {
        one.name for one in findings
    }
    assert all(one.fix for one in findings if one.status is not Status.OK)
    assert all(one.status is Status.OK for one in findings if one.name in doctor.LIBRARIES)


def test_only_what_is_needed_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    fine = Finding(name="a", status=Status.OK, finding="fine")
    hint = Finding(name="b", status=Status.HINT, finding="so so", fix="mend [it]")
    broken = Finding(name="c", status=Status.BROKEN, finding="gone", fix="install it")

    monkeypatch.setattr(doctor, "examine", lambda: [fine, hint])
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "mend [it]" in result.stdout

    monkeypatch.setattr(doctor, "examine", lambda: [fine, broken])
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)[1] == {"name": "c", "status": "broken", "finding": "gone", "fix": "install it"}


def test_weights_must_be_whole(tmp_path: Path) -> None:
    assert doctor._weights(tmp_path).status is Status.BROKEN

    model = tmp_path / "nuclei"
    model.mkdir()
    (model / "model.json").touch()
    assert doctor._weights(tmp_path).finding == "without weights: nuclei"

    (model / "model.safetensors").touch()
    assert doctor._weights(tmp_path) == Finding(name="shipped models", status=Status.OK, finding="nuclei")


def test_a_library_that_does_not_load_is_broken() -> None:
    finding = doctor._library("no_such_library")

    assert finding.status is Status.BROKEN
    assert "pip install" in finding.fix


def test_a_missing_extra_is_a_hint() -> None:
    finding = doctor._extra("remote", ("json", "no_such_module"))

    assert (finding.status, finding.finding) == (Status.HINT, "without no_such_module")


def test_missing_codecs_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsiseg.slides.tiff_codecs.missing_codecs", lambda: ["JPEG8"])

    assert doctor._codecs().status is Status.BROKEN


def test_little_room_is_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(1000))
    monkeypatch.setattr(doctor, "memory_limits", lambda: {"machine": 8 * GIB, "cgroup": 2 * GIB})

    assert doctor._space("results", tmp_path, "mend").status is Status.HINT
    assert [one.status for one in doctor._shared_memory(tmp_path)] == [Status.HINT]
    assert list(doctor._shared_memory(tmp_path / "none")) == []
    memory = doctor._memory()
    assert memory.status is Status.HINT
    assert memory.finding.startswith("2.0 GiB by cgroup (machine 8.0 GiB)")


def test_a_folder_that_is_gone_is_broken() -> None:
    assert doctor._space("results", Path("/no/such/folder"), "mend").status is Status.BROKEN
