"""Which patches a training learns from, with labels and without, and which it is judged by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from wsiseg.errors import DataError
from wsiseg.stores.patch_set import PatchSet
from wsiseg.tasks.train_data import training_data
from wsiseg.tasks.train_job import TrainConfig, with_usual

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePatchStore

IMAGES = np.zeros((6, 8, 8, 3), np.uint8)
MASKS = np.ones((6, 8, 8), np.uint8)


def stores(tmp_path: Path, make_patch_store: MakePatchStore) -> list[PatchSet]:
    """Return a store with labels, and one without any layer."""
    known = make_patch_store(
        tmp_path / "known.zarr", IMAGES, MASKS, parents=list("aabbcc"), splits=["train"] * 4 + ["val"] * 2
    )
    return [PatchSet([known]), PatchSet([make_patch_store(tmp_path / "more.zarr", IMAGES, parents=list("defghi"))])]


def test_what_is_not_drawn_is_learnt_from_without_labels(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    both = stores(tmp_path, make_patch_store)

    data = training_data(both, 0.5, TrainConfig(labelled="1"), takes_unlabelled=True)

    assert data.layer == "truth"
    assert data.chosen is not None
    assert len(data.chosen) == 1
    assert [len(source.indices) for source in data.labelled] == [2]
    assert [len(source.indices) for source in data.unlabelled] == [2, 6]
    assert [source.indices.tolist() for source in data.held_out] == [[4, 5]]


def test_methods_that_need_labels_use_the_same_ones_and_no_more(
    tmp_path: Path, make_patch_store: MakePatchStore
) -> None:
    known = stores(tmp_path, make_patch_store)[:1]

    few, also = (
        training_data(known, 0.5, TrainConfig(labelled="1"), takes_unlabelled=takes) for takes in (False, True)
    )

    assert few.chosen == also.chosen
    assert few.unlabelled == []
    assert [source.indices.tolist() for source in few.labelled] == [source.indices.tolist() for source in also.labelled]


def test_stores_without_labels_are_refused_where_they_are_of_no_use(
    tmp_path: Path, make_patch_store: MakePatchStore
) -> None:
    both = stores(tmp_path, make_patch_store)

    with pytest.raises(DataError, match="a store has no layer 'truth'"):
        training_data(both, 0.5, TrainConfig(), takes_unlabelled=False)
    with pytest.raises(DataError, match="the stores have no layer of labels"):
        training_data(both[1:], 0.5, TrainConfig(), takes_unlabelled=True)


def test_the_draw_has_a_seed_of_its_own(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    known = stores(tmp_path, make_patch_store)[:1]

    def chosen(**settings: object) -> list[str] | None:
        config = TrainConfig.model_validate({"labelled": 1, **settings})
        return training_data(known, 0.5, config, takes_unlabelled=True).chosen

    assert chosen(split_seed=3, fit={"seed": 8}) == chosen(fit={"seed": 3})
    assert {tuple(chosen(split_seed=seed) or ()) for seed in range(8)} == {("a",), ("b",)}


def test_usual_settings_of_a_method_give_way_to_what_is_asked_for() -> None:
    usual = {"batch_size": 16, "fit": {"lr": 0.5, "optimiser": "adam"}}

    config = with_usual(TrainConfig.model_validate({"crop_px": 64, "fit": {"lr": 0.1}}), usual)

    assert (config.batch_size, config.crop_px, config.fit.lr, config.fit.optimiser) == (16, 64, 0.1, "adam")
    assert config.fit.steps == TrainConfig().fit.steps
