"""Processes that train together agree on what they have seen, and one of them speaks for all."""

from __future__ import annotations

import logging
import multiprocessing
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import distributed

from tests.craanet_makers import CLASSES, batch, classify_learner, colourful
from wsiseg.labels import LabelMap
from wsiseg.methods.base import Clock
from wsiseg.methods.classifier_watch import ClassifierWatch
from wsiseg.methods.craanet_classify import AccumulatingNet
from wsiseg.methods.mlps_presets import PRESETS
from wsiseg.methods.processes import gathered, is_first, of_all

if TYPE_CHECKING:
    from pathlib import Path

    from wsiseg.methods.accumulation import AttentionAccumulator

WORLD = 2
PATCHES = 8
EPOCHS = 4
PRESENT = [[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]] * 2


def seen(rows: list[int], epoch: int) -> list[int]:
    """Return how patches are mirrored in an epoch."""
    return [(0, 4, 6)[(row + epoch) % 3] for row in rows]


def accumulated(rank: int, world: int) -> AttentionAccumulator:
    """Return the attention to all patches of a process that sees its share of them."""
    torch.set_num_threads(1)
    images, learner = colourful(PATCHES), classify_learner(patches=PATCHES, numbers={"classify": {"epochs": EPOCHS}})
    # Without dropout and norms of the batch it does not matter who sees which patch.
    learner.module.eval()
    rows = list(range(PATCHES))[rank::world]
    for epoch in range(EPOCHS):
        # Epochs differ by how bright patches are.
        shown = (images[rows] * (0.4 + 0.2 * epoch)).to(torch.uint8)
        present = [PRESENT[row] for row in rows]
        learner.training_step(batch(shown, rows, present, seen(rows, epoch)), Clock(step=epoch, steps=EPOCHS))
    assert isinstance(learner.module, AccumulatingNet)
    return learner.module.accumulator


def watched(rank: int) -> list[str]:
    """Return what a process says of a dead classifier, of which others see other patches."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("wsiseg").addHandler(handler)
    watch = ClassifierWatch(LabelMap.from_names(CLASSES), PRESETS["paper"].classify)
    present = torch.zeros(20, 3)
    present[:, rank] = 1
    watch.note(torch.full((20, 3), -0.1), present, torch.tensor(0.3))
    watch.tell(Clock(step=19, steps=20))
    return said


def work(rank: int, folder: Path) -> None:
    """Do in one of several processes what the test compares."""
    store = f"file://{folder / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD)
    try:
        for together in (gathered, of_all):
            assert together(torch.tensor([[rank, 7]])).tolist() == [[0, 7], [1, 7]]
        assert is_first() is (rank == 0)
        accumulated(rank, WORLD).save(folder / f"{rank}.npy")
        (folder / f"{rank}.txt").write_text("\n".join(watched(rank)))
    finally:
        distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_accumulate_as_one_and_warn_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(rank, tmp_path)) for rank in range(WORLD)]
    for process in processes:
        process.start()
    alone = accumulated(0, 1)
    for process in processes:
        process.join(timeout=240)

    assert [process.exitcode for process in processes] == [0, 0]
    first, second = (np.load(tmp_path / f"{rank}.npy") for rank in range(WORLD))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first["counts"], alone.counts)
    np.testing.assert_allclose(first["maps"].astype(float), alone.maps.astype(float), atol=2e-3)
    # Had some maps not been taken in, all would agree on nothing.
    assert (alone.counts.sum(axis=0) > 0).all()
    # Each process saw one class alone; together they know of both.
    assert "it says the same of all 40 patches" in (tmp_path / "0.txt").read_text()
    assert (tmp_path / "1.txt").read_text() == ""


def test_alone_there_is_nothing_to_share() -> None:
    values = torch.arange(6).view(3, 2).T

    assert torch.equal(gathered(values), values)
    assert of_all(values) is values
    assert is_first()
