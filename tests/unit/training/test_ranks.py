"""Processes that train together have patience with each other."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from torch import distributed

from wsiseg.training.ranks import joined

if TYPE_CHECKING:
    import pytest


def test_others_wait_as_long_as_the_first_process_labels_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    waited: list[object] = []
    patient = object()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "init_process_group", lambda *backend, **given: asked.update(all=(backend, given)))
    monkeypatch.setattr(distributed, "new_group", lambda **given: asked.update(given) or patient)
    monkeypatch.setattr(distributed, "barrier", waited.append)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)

    with joined("cpu") as ranks:
        assert (ranks.rank, ranks.world, ranks.is_first) == (1, 2, False)
        ranks.wait()

    assert waited == [patient]
    # Libraries give up after ten minutes, which is enough to find that a process is gone.
    assert asked["all"] == (("gloo",), {})
    assert asked["backend"] == "gloo"
    assert asked["timeout"] >= timedelta(hours=12)
