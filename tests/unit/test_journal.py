"""A journal survives a kill at any byte and refuses other plans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wsiseg.errors import StoreError
from wsiseg.journal import Journal, read_journal

if TYPE_CHECKING:
    from pathlib import Path


def test_a_kill_at_any_byte_loses_only_the_record_in_hand(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, {"a": 1}) as journal:
        journal.append({"band": 0})
        journal.append({"band": 1, "name": "é"})
    whole = path.read_bytes()

    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with Journal(path, {"a": 1}) as journal:
            known = len(journal.records)
            journal.append({"band": "again"})
        assert read_journal(path)[1:][-1] == {"band": "again"}
        assert len(read_journal(path)) == known + 2


def test_a_damaged_record_ends_what_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, {}) as journal:
        journal.append({"band": 0})
        journal.append({"band": 1})
    path.write_bytes(path.read_bytes().replace(b'"band":0', b'"band":7'))

    with Journal(path, {}) as journal:
        assert journal.records == []


def test_another_plan_is_refused_and_names_what_differs(tmp_path: Path) -> None:
    Journal(tmp_path / "journal", {"mpp": 0.5, "tile": 1}).close()

    with pytest.raises(StoreError, match=r"mpp differ"):
        Journal(tmp_path / "journal", {"mpp": 0.25, "tile": 1})
