"""An append-only record of finished units that survives a kill at any byte."""

from __future__ import annotations

import json
import os
import zlib
from typing import TYPE_CHECKING, Any, Self

from wsiseg.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

# A record is what the caller says it is; JSON is all we ask of it.
Record = dict[str, Any]


class Journal:
    """Finished units of work, one checksummed line each.

    Opening reads what is there and cuts off a torn last line. The first line holds
    the `plan`, everything that the units depend on; a journal of another plan is refused.

    Parameters
    ----------
    path
        File to append to; made if missing.
    plan
        JSON-like description of the work, compared on opening.

    Raises
    ------
    StoreError
        If the file was written for another plan.
    """

    def __init__(self, path: Path, plan: Record) -> None:
        self._path = path
        lines = read_journal(path)
        if lines and lines[0] != {"plan": plan}:
            changed = sorted(
                key for key in {*plan, *lines[0].get("plan", {})} if lines[0].get("plan", {}).get(key) != plan.get(key)
            )
            raise StoreError(
                f"unfinished work was begun with other settings ({', '.join(changed)} differ)",
                where=path.parent,
                mend="Use the same settings, another output folder, or --overwrite",
            )
        self.records = lines[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._file.truncate(sum(len(_line(record)) for record in lines))
        if not lines:
            self._write({"plan": plan})

    def append(self, record: Record) -> None:
        """Note a finished unit; on disk when this returns."""
        self._write(record)
        self.records.append(record)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, record: Record) -> None:
        self._file.write(_line(record))
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self.close()


def read_journal(path: Path) -> list[Record]:
    """Return the whole lines of a journal up to the first damaged one, the plan first."""
    if not path.exists():
        return []
    records = []
    for line in path.read_bytes().splitlines(keepends=True):
        checksum, _, body = line.rstrip(b"\n").partition(b" ")
        if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body):
            break
        records.append(json.loads(body))
    return records


def _line(record: Record) -> bytes:
    body = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)
