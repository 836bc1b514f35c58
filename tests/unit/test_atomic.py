"""Files are whole or not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wsiseg.atomic import atomic_path, put_back, sweep, write_bytes

if TYPE_CHECKING:
    from pathlib import Path


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a" / "file"
    write_bytes(target, b"old")

    with pytest.raises(FileNotFoundError), atomic_path(target) as temporary:
        temporary.with_name("another").rename(temporary)

    assert target.read_bytes() == b"old"
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_a_folder_appears_at_once(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "inside").write_bytes(b"x")
        assert not (tmp_path / "folder").exists()

    assert (tmp_path / "folder" / "inside").read_bytes() == b"x"


def test_a_folder_is_replaced_and_never_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(content: bytes) -> None:
        with atomic_path(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / "inside").write_bytes(content)

    def found() -> list[bytes]:
        return sorted(file.read_bytes() for file in tmp_path.glob("**/inside"))

    write(b"first")
    write(b"second")
    assert found() == [b"second"]

    rename = type(tmp_path).rename

    def killed(path: Path, target: Path) -> Path:
        if target.name == "folder":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            write(b"third")
    assert found() == [b"second"]
    put_back(tmp_path / "folder")
    put_back(tmp_path / "folder")
    # What is left of earlier ones is not what was moved aside last.
    for name in ("00000000", "ffffffff"):
        (tmp_path / f".folder.{name}.old").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            write(b"third")
    put_back(tmp_path / "folder")
    assert (tmp_path / "folder" / "inside").read_bytes() == b"second"
    write(b"fourth")
    assert found() == [b"fourth"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_link_to_a_folder_stays_a_link_to_what_is_new(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        with atomic_path(tmp_path / "link") as temporary:
            temporary.mkdir()
            (temporary / "inside").write_bytes(content)
        if content == b"old":
            (tmp_path / "disk").mkdir()
            (tmp_path / "link").rename(tmp_path / "disk" / "folder")
            (tmp_path / "link").symlink_to(tmp_path / "disk" / "folder")

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "folder" / "inside").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["disk", "folder", "inside", "link"]


def test_sweeping_removes_what_a_killed_writer_left_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".file.0123.part").write_bytes(b"half")
    (tmp_path / ".folder.4567.part").mkdir()
    (tmp_path / "file").write_bytes(b"whole")

    sweep(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["file"]
