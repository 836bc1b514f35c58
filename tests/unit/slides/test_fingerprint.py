"""The fingerprint tells slides apart by what they hold, whatever they are called."""

from __future__ import annotations

import shutil
from pathlib import Path

import fsspec
import pytest

from wsiseg.errors import SlideError
from wsiseg.slides.fingerprint import fingerprint


def test_it_does_not_depend_on_the_name(tmp_path: Path, cmu_svs: Path) -> None:
    copy = tmp_path / "other name.svs"
    shutil.copy(cmu_svs, copy)

    assert fingerprint(copy) == fingerprint(cmu_svs)
    assert len(fingerprint(copy)) == 32


@pytest.mark.parametrize("position", [0, 999_999, 1_999_999])
def test_a_change_at_either_end_or_in_the_middle_shows(tmp_path: Path, position: int) -> None:
    data = bytearray(2_000_000)
    (tmp_path / "a").write_bytes(data)
    data[position] = 1
    (tmp_path / "b").write_bytes(data)

    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")


def test_a_byte_more_shows(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(10))
    (tmp_path / "b").write_bytes(bytes(11))

    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")


def test_a_folder_is_the_sum_of_its_files(tmp_path: Path) -> None:
    for folder, names in (("one", ("a", "b")), ("two", ("y", "x"))):
        (tmp_path / folder).mkdir()
        for name, content in zip(names, (b"1", b"2"), strict=True):
            (tmp_path / folder / name).write_bytes(content)

    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two")
    (tmp_path / "two" / "x").write_bytes(b"3")
    assert fingerprint(tmp_path / "one") != fingerprint(tmp_path / "two")


def test_a_missing_file_is_a_slide_error(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="No such file"):
        fingerprint(tmp_path / "none.svs")


def test_a_remote_slide_has_the_fingerprint_of_its_copy(cmu_svs: Path) -> None:
    fsspec.filesystem("memory").pipe("/far/a.svs", cmu_svs.read_bytes())

    assert fingerprint(Path("memory://far/a.svs")) == fingerprint(cmu_svs)
    with pytest.raises(SlideError, match="cannot be read"):
        fingerprint(Path("memory://far/gone.svs"))
