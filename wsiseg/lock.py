"""One writer for each output, also across the machines of a cluster."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from wsiseg.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEARTBEAT_S = 60.0
STALE_S = 15 * 60.0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while the block runs.

    The file is created exclusively, which network file systems honour where they
    ignore flock, and touched every minute. A lock whose process is gone from this
    host, or that nobody has touched for a quarter of an hour, is taken over. A folder
    that was made for it goes with it, where nothing else has come into it.

    Raises
    ------
    BusyError
        If another process holds the lock.
    """
    is_new = not path.parent.exists()
    _acquire(path)
    done = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, done), daemon=True)
    heart.start()
    try:
        yield
    finally:
        done.set()
        heart.join()
        path.unlink(missing_ok=True)
        if is_new:
            with suppress(OSError):
                path.parent.rmdir()


def _acquire(path: Path) -> None:
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "job": os.environ.get("SLURM_JOB_ID", "")}
    for _ in range(2):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileNotFoundError:
            # Who held it has just taken the folder along.
            continue
        except FileExistsError:
            if path.parent.is_file():
                raise
            if _removed_stale(path):
                continue
            break
        with os.fdopen(descriptor, "w") as file:
            json.dump(owner, file)
        return
    holder = _holder(path)
    raise BusyError(
        f"another process is writing here (host {holder.get('host', '?')}, pid {holder.get('pid', '?')})",
        where=path.parent,
        mend=f"Wait for it, or remove {path.name} if you are sure that it is gone",
    )


def _removed_stale(path: Path) -> bool:
    """Remove the lock if its holder is gone; tell whether it did.

    Of several who find it stale at once, each takes aside whatever is there by then. Who has taken a lock
    that is alive after all, made by one who was faster, puts it back.
    """
    if not _is_stale(path):
        return False
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.stale")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return True
    if not (is_gone := _is_stale(aside)):
        with suppress(FileExistsError):
            path.hardlink_to(aside)
    aside.unlink(missing_ok=True)
    return is_gone


def _holder(path: Path) -> dict[str, object]:
    try:
        holder = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _is_stale(path: Path) -> bool:
    holder = _holder(path)
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return True
    if age > STALE_S:
        return True
    pid = holder.get("pid")
    if holder.get("host") != socket.gethostname() or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _beat(path: Path, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT_S):
        # A file system that is away for a moment must not stop the heart for good.
        with suppress(OSError):
            os.utime(path)
