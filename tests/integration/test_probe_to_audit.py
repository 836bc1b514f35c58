"""An audit judges the labels that a training told of, made as those that are learnt from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.patch_makers import write_patches
from wsiseg.config import load
from wsiseg.ingestion import IngestSettings
from wsiseg.methods.accumulation import AttentionAccumulator
from wsiseg.methods.craanet_classify import ATTENTION
from wsiseg.tasks.audit import AuditJob, audit
from wsiseg.tasks.ingest import ingest
from wsiseg.tasks.pseudo_label import PseudoLabelJob, PseudoLabelReport, pseudo_label
from wsiseg.tasks.train import train
from wsiseg.tasks.train_job import TrainConfig, TrainJob
from wsiseg.tiling.reading import open_patches
from wsiseg.training.log import read_table
from wsiseg.training.probe import LABEL_MIOU

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_the_last_score_of_the_training_is_that_of_the_audit(tmp_path: Path) -> None:
    store = tmp_path / "patches.zarr"
    ingest(write_patches(tmp_path / "source"), store, IngestSettings.model_validate({"layout": "wsss4luad"}))
    settings = {
        "method": "craanet",
        "stages": ["classify"],
        "epochs": 4,
        "batch_size": 3,
        "fit": {"num_workers": 0},
        "options": {"backbone": "mobilenetv3_small_050", "accumulation": {"mode": "mean"}},
    }
    config = load(TrainConfig, options=settings)
    train(TrainJob(stores=(store,), output=tmp_path / "run", config=config, device="cpu"))

    made = pseudo_label(PseudoLabelJob(stores=(store,), checkpoint=tmp_path / "run", device="cpu", with_val=True))
    figures = audit(AuditJob(store=store, output=tmp_path / "audit")).figures

    rows = read_table(tmp_path / "run" / "classify" / "validation.csv")
    assert isinstance(made, PseudoLabelReport)
    (complete,) = (name for layer, name in made.names.items() if layer.startswith("complete"))
    assert len(rows) == 4
    # The first epoch does not count.
    spread = [name for name in rows[0] if name.startswith("attention_")]
    assert len(spread) > 1
    assert all(np.isnan(rows[0][name]) and 0 < rows[-1][name] < 1 for name in spread)
    assert rows[-1][LABEL_MIOU] == pytest.approx(figures["layers"][complete]["truth"]["miou"], abs=1e-6)
    card = json.loads((tmp_path / "run" / "classify" / "last" / "model.json").read_text())
    assert card["metrics"][LABEL_MIOU] == rows[-1][LABEL_MIOU]
    counts = AttentionAccumulator.open(tmp_path / "run" / "classify" / "last" / ATTENTION).counts
    is_held_out = open_patches([store]).splits == "val"
    assert counts[is_held_out].any(axis=1).all()
    # Three epochs count, or two and the last.
    assert np.isin(counts[is_held_out], (0, 1, 2, 3)).all()
