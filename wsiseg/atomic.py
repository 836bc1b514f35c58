"""Files that are either whole or not there."""

from __future__ import annotations

import glob
import os
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path that takes the place of `path` when the block ends well.

    Parameters
    ----------
    path
        File or folder to write; one of the same kind that is there is replaced, at the end of a link its target.

    Yields
    ------
    Path
        A sibling to write to; removed if the block fails.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        yield temporary
        sync(temporary)
        if temporary.is_dir():
            put_folder(temporary, path)
        else:
            temporary.replace(path)
            sync_names(path.parent)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def put_folder(new: Path, path: Path) -> None:
    """Give a finished folder the name `path`; a folder that has the name is removed once the new one is there.

    A kill in between leaves the old folder beside it, under a hidden name that ends in ``.old``; see `put_back`.
    """
    if path.exists():
        # What an earlier writer left must not be taken for what is moved aside now.
        _remove_old(path)
        path.rename(path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old"))
    new.rename(path)
    sync_names(path.parent)
    _remove_old(path)


def put_back(path: Path) -> None:
    """Give a folder its name back that a writer was killed while replacing; only for who holds its lock."""
    left = sorted(path.parent.glob(f".{glob.escape(path.name)}.*.old"))
    if left and not path.exists():
        left[0].rename(path)
        sync_names(path.parent)


def sweep(folder: Path) -> None:
    """Remove what killed writers left half done in `folder`; only for who holds the folder's lock."""
    for half in folder.glob(".*.part"):
        if half.is_dir():
            shutil.rmtree(half, ignore_errors=True)
        else:
            half.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _remove_old(path: Path) -> None:
    for old in path.parent.glob(f".{glob.escape(path.name)}.*.old"):
        shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file, or all files of a folder, are on disk."""
    if not path.is_dir():
        _sync_file(path)
        return
    files = [file for file in path.rglob("*") if file.is_file()]
    # Side by side, a disk writes its own journal once for many files.
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(_sync_file, files))


def sync_names(folder: Path) -> None:
    """Wait until the names in a folder are on disk: a renamed file could lose its name to a power failure."""
    if os.name == "posix":
        _sync_file(folder)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
