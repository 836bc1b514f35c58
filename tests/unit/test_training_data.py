"""Which patches a training learns from, with labels and without, and which it is judged by."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest

from wsiseg.config import load
from wsiseg.errors import ConfigError, DataError
from wsiseg.stores.patch_set import PatchSet
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks.train import prepared
from wsiseg.tasks.train_data import TrainingData, roles, training_data
from wsiseg.tasks.train_job import TrainConfig, TrainJob, with_usual
from wsiseg.training.ranks import Ranks, joined

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


def test_stores_without_labels_are_left_out_where_they_are_of_no_use(
    tmp_path: Path, make_patch_store: MakePatchStore, caplog: pytest.LogCaptureFixture
) -> None:
    both = stores(tmp_path, make_patch_store)

    with caplog.at_level("INFO", logger="wsiseg"):
        data = training_data(both, 0.5, TrainConfig(weights=(1, 2)), takes_unlabelled=False)

    assert "1 of 2 stores have no layer 'truth' and are left out, as supervised learns from labels" in caplog.text
    assert [(source.patches, source.weight) for source in data.labelled] == [(both[0], 1)]
    assert data.unlabelled == []
    with pytest.raises(DataError, match="a store has no layer 'tissue'"):
        training_data(both, 0.5, TrainConfig(layer="tissue"), takes_unlabelled=False)
    with pytest.raises(DataError, match="the stores have no layer of labels"):
        training_data(both[1:], 0.5, TrainConfig(), takes_unlabelled=True)


def test_the_draw_has_a_seed_of_its_own(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    known = stores(tmp_path, make_patch_store)[:1]

    def chosen(**settings: object) -> list[str] | None:
        config = TrainConfig.model_validate({"labelled": 1, **settings})
        return training_data(known, 0.5, config, takes_unlabelled=True).chosen

    assert chosen(split_seed=3, fit={"seed": 8}) == chosen(fit={"seed": 3})
    assert {tuple(chosen(split_seed=seed) or ()) for seed in range(8)} == {("a",), ("b",)}


@pytest.mark.parametrize("weights", [(1, -1), (float("inf"), 1)])
def test_weights_are_shares(weights: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="weights"):
        load(TrainConfig, options={"weights": weights})


def test_something_that_is_drawn_from_has_a_weight(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    both = stores(tmp_path, make_patch_store)
    config = TrainConfig.model_validate({"weights": (0, 1), "crop_px": 8, "options": {"net": {"widths": [8, 8]}}})
    paths = tuple(tmp_path / name for name in ("known.zarr", "more.zarr"))

    assert [source.weight for source in training_data(both, 0.5, config, takes_unlabelled=True).labelled] == [0]
    with pytest.raises(DataError, match=r"has the weight 0\. Give more stores a weight"):
        prepared(TrainJob(stores=paths, output=tmp_path / "run", config=config), Ranks())


def of_patients(tmp_path: Path, make_patch_store: MakePatchStore) -> PatchSet:
    """Return two patches of each of twelve images, four images of each of three patients, one of which is for testing.

    Of the second half of the images no mask was drawn.
    """
    images, masks = np.zeros((24, 8, 8, 3), np.uint8), np.ones((24, 8, 8), np.uint8)
    parents = [f"{name}{number}" for name in "pqr" for number in range(4) for _ in range(2)]
    splits = ["test" if name == "r0" else "unlabelled" if name[1] == "3" else "train" for name in parents]
    store = PatchSet([make_patch_store(tmp_path / "p.zarr", images, masks, parents=parents, splits=splits)])
    store.groups = np.array([name[0] for name in parents], dtype=np.object_)
    return store


@pytest.mark.parametrize("by", ["patient", "image"])
def test_patients_are_drawn_unless_images_are_asked_for(
    tmp_path: Path, make_patch_store: MakePatchStore, by: str
) -> None:
    store = of_patients(tmp_path, make_patch_store)
    config = TrainConfig.model_validate({"labelled": 1, "labelled_by": by, "val_fraction": 0})

    data = training_data([store], 0.5, config, takes_unlabelled=True)

    assert data.has_patients
    assert len(data.chosen or []) == 1
    images = set(store.parents[data.labelled[0].indices])
    assert (len(images) > 1) == (by == "patient")
    assert {name[0] for name in data.chosen or []} == {name[0] for name in images}
    with pytest.raises(ConfigError, match=f"99 of . labelled {by}s cannot be drawn"):
        training_data([store], 0.5, config.model_copy(update={"labelled": "99"}), takes_unlabelled=True)


def test_what_is_held_out_may_be_of_what_was_drawn(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    store = of_patients(tmp_path, make_patch_store)
    store.groups = store.parents

    def data(**settings: object) -> TrainingData:
        config = TrainConfig.model_validate({"labelled": 4, "val_fraction": 0.25, **settings})
        return training_data([store], 0.5, config, takes_unlabelled=True)

    beyond, within = data(), data(val_from="labelled")

    assert [len(one.labelled[0].indices) for one in (beyond, within)] == [8, 6]
    judges = [set(one.held_out[0].patches.parents[one.held_out[0].indices]) for one in (beyond, within)]
    assert not judges[0] & set(beyond.chosen or [])
    assert len(judges[1]) == 1
    assert judges[1] < set(within.chosen or [])
    assert within.chosen == data(val_from="labelled", val_fraction=0).chosen
    # All that was not drawn is free.
    assert len(within.unlabelled[0].indices) == 24 - 2 - 8


def test_it_is_told_what_each_image_is(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    store = of_patients(tmp_path, make_patch_store)
    few = TrainConfig.model_validate({"labelled": 1, "labelled_by": "image", "val_fraction": 0.1})
    told = {}
    for takes_unlabelled in (True, False):
        text = roles([store], training_data([store], 0.5, few, takes_unlabelled=takes_unlabelled))
        rows = list(csv.DictReader(text.splitlines()))
        assert [row["image"] for row in rows] == list(dict.fromkeys(store.parents))
        assert {row["patches"] for row in rows} == {"2"}
        assert all(row["group"] == row["image"][0] for row in rows)
        told[takes_unlabelled] = {row["image"]: row["role"] for row in rows}

    assert told[True]["r0"] == told[False]["r0"] == "test"
    # Who is tested or held out is not learnt from without labels either.
    assert told[True]["r3"] == "unused"
    assert sorted(told[True].values()).count("train-labelled") == 1
    assert {"val", "train-unlabelled"} <= set(told[True].values())
    assert set(told[False].values()) == {"train-labelled", "val", "test", "unused"}


def test_what_was_made_is_told_apart_from_what_was_annotated(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    images, masks = np.zeros((4, 32, 32, 3), np.uint8), np.ones((4, 32, 32), np.uint8)
    paths = (tmp_path / "real.zarr", tmp_path / "made.zarr")
    make_patch_store(paths[0], images, masks, parents=["a", "b", "c", "d"], splits=["train", "train", "train", "val"])
    make_patch_store(paths[1], images, masks, parents=["c", "c", "c", "d"], origin="synthetic")
    stores = [PatchSet([PatchStore.open(path)]) for path in paths]
    config = TrainConfig.model_validate({"crop_px": 32, "options": {"net": {"widths": [8, 16]}}})

    told = roles(stores, training_data(stores, 0.5, config, takes_unlabelled=False)).splitlines()
    with joined("cpu") as ranks:
        work = prepared(TrainJob(stores=paths, output=tmp_path / "run", config=config, device="cpu"), ranks)

    assert [line for line in told if line.startswith("c")] == ["c,c,train-labelled,1", "c,c,train-synthetic,3"]
    # What was made of those who judge teaches nothing.
    assert [line for line in told if line.startswith("d")] == ["d,d,val,1", "d,d,unused,1"]
    assert work.data == "3 annotated and 3 synthetic patches of 3 images to train on, 1 patches of 1 images held out"


def test_usual_settings_of_a_method_give_way_to_what_is_asked_for() -> None:
    usual = {"batch_size": 16, "fit": {"lr": 0.5, "optimiser": "adam"}}

    config = with_usual(TrainConfig.model_validate({"crop_px": 64, "fit": {"lr": 0.1}}), usual)

    assert (config.batch_size, config.crop_px, config.fit.lr, config.fit.optimiser) == (16, 64, 0.1, "adam")
    assert config.fit.steps == TrainConfig().fit.steps
