"""Before a stage begins, people learn how much it is about to do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from torch import nn

from wsiseg.methods.sgd import SgdSettings
from wsiseg.tasks.patch_run import about
from wsiseg.training.patch_batches import Known, PatchBatches


def lines(patches: int, *, epochs: int = 20, last_batch: Literal["drop", "keep"] = "drop") -> list[str]:
    store: Any = SimpleNamespace()
    known = Known(patches=store, indices=np.arange(patches), present=np.ones((patches, 1), np.uint8))
    numbers = SgdSettings(
        epochs=epochs, batch_images=20, last_batch=last_batch, lr=0.1, heads=(), momentum=0, weight_decay=0
    )
    batches = PatchBatches(known, batch_size=20, last_batch=numbers.last_batch, flips="none", blur_px=0, seed=0)
    return about("classify", nn.Linear(999, 10), known, batches, numbers)


def test_a_stage_tells_its_updates_and_what_each_epoch_goes_without() -> None:
    (told,) = lines(2019)
    assert told.startswith("classify: 0.01 M weights to learn, 2019 patches, 20 images per step, ")
    assert told.endswith(", 2,000 updates in 20 epochs, 19 patches left out of each")
    (whole,) = lines(2019, last_batch="keep")
    assert whole.endswith("2,020 updates in 20 epochs")


def test_too_few_updates_are_warned_of_with_as_many_epochs_as_are_enough() -> None:
    told, warned = lines(39)

    assert told.endswith("40 updates in 20 epochs")
    assert warned.startswith("warning: classify learns little in 40 updates. Pass --epochs 500 ")
    assert len(lines(39, epochs=499)) == 2
    assert len(lines(39, epochs=500)) == 1
