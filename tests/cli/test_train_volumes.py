"""``wsiseg train`` learns from volumes, few of them labelled, and its models know what they are given."""

from __future__ import annotations

import csv
import json
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.listeners import Listener
from tests.volume_makers import write_cases
from wsiseg.checkpoint import read_card
from wsiseg.errors import ConfigError, DataError, MethodError
from wsiseg.ingestion.volumes import VolumeSettings
from wsiseg.methods.ugmcl_presets import TRAINING_OF_VOLUMES
from wsiseg.stores.volume_store import VolumeStore
from wsiseg.tasks.ingest_volumes import ingest_volumes
from wsiseg.tasks.train import prepared, train
from wsiseg.tasks.train_job import TrainConfig, TrainJob, TrainReport
from wsiseg.tasks.volume_data import VolumeData, volume_data
from wsiseg.training.log import TRAINING, read_table
from wsiseg.training.ranks import Ranks
from wsiseg.training.settings import FitSettings
from wsiseg.volumes import IntensityRule

if TYPE_CHECKING:
    from pathlib import Path

NET = {"arch": "unet3d", "net": {"widths": [2, 4]}}
FIT = {"steps": 3, "log_every": 1, "validate_every": 3, "num_workers": 0}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of six volumes, one of them without labels."""
    folder = tmp_path_factory.mktemp("volumes")
    ingest_volumes(
        write_cases(folder / "src", 6, unlabelled=1), folder / "volumes.zarr", VolumeSettings(), num_workers=0
    )
    return folder / "volumes.zarr"


def trained(store: Path, output: Path, **settings: Any) -> TrainReport:  # noqa: ANN401 - any settings
    config = {"options": NET, "fit": FIT, "patch": (8, 8, 8), "val_fraction": 0.4, **settings}
    return train(TrainJob(stores=(store,), output=output, config=TrainConfig(**config), device="cpu"))


def test_a_model_of_volumes_says_what_it_is_given(store: Path, tmp_path: Path) -> None:
    report = trained(store, tmp_path / "run")

    card = read_card(report.checkpoint)
    assert report.fit.metric == "dice"
    assert card.volume is not None
    assert card.volume.patch == (8, 8, 8)
    assert card.volume.spacing_mm == (1.0, 1.0, 1.0)
    assert card.volume.intensities == IntensityRule()
    assert card.metrics.keys() == {"dice", "jaccard"}
    assert card.labels.names == ("background", "class 1", "class 2")
    assert card.training_data == {"volumes.zarr": VolumeStore.open(store).fingerprint}
    assert "nothing to do" in str(trained(store, tmp_path / "run"))


@pytest.mark.parametrize("method", ["mean-teacher", "ugmcl"])
def test_volumes_without_labels_are_learnt_from_too(store: Path, tmp_path: Path, method: str) -> None:
    options = NET if method == "mean-teacher" else {**NET, "mc_passes": 2}

    report = trained(store, tmp_path / "run", method=method, options=options, labelled="2")

    rows = read_table(tmp_path / "run" / TRAINING)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(math.isfinite(row["loss"]) for row in rows)
    assert len((tmp_path / "run" / "labelled.txt").read_text(encoding="utf-8").split()) == 2
    assert read_card(report.checkpoint).volume is not None


def test_one_labelled_volume_is_enough(store: Path, tmp_path: Path) -> None:
    trained(store, tmp_path / "run", method="mean-teacher", labelled="1", batch_size=2)

    assert len((tmp_path / "run" / "labelled.txt").read_text(encoding="utf-8").split()) == 1
    assert len(read_table(tmp_path / "run" / TRAINING)) == 3


@pytest.mark.parametrize(
    ("settings", "patch"), [({}, (8, 8, 16)), ({"crop_px": 8}, (8, 8, 8)), ({"patch": (16, 8, 8)}, (16, 8, 8))]
)
def test_windows_are_the_methods_own_where_nobody_says_more(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], patch: tuple[int, int, int]
) -> None:
    monkeypatch.setitem(TRAINING_OF_VOLUMES, "wsiseg", {"patch": (8, 8, 16)})

    options = {**NET, "mc_passes": 1}
    asked = {"method": "ugmcl", "options": options, "fit": FIT, "val_fraction": 0.4, "labelled": "2", **settings}
    config = TrainConfig.model_validate(asked)

    report = train(TrainJob(stores=(store,), output=tmp_path / "run", config=config, device="cpu"))

    card, kept = read_card(report.checkpoint), json.loads((tmp_path / "run" / "config.json").read_bytes())
    assert card.volume is not None
    assert card.volume.patch == patch == tuple(kept["patch"])
    assert kept["options"]["sdf"]["longest"] == 2


def test_held_out_volumes_are_no_part_of_the_rest(store: Path) -> None:
    config = TrainConfig(val_fraction=0.4, labelled="1")

    data = volume_data([store], config, takes_unlabelled=True)
    alone = volume_data([store], config, takes_unlabelled=False)

    (labelled,), (free,), (held_out,) = (
        [source.indices.tolist() for source in part] for part in (data.labelled, data.unlabelled, data.held_out)
    )
    assert (len(labelled), len(held_out)) == (1, 2)
    assert sorted([*labelled, *free, *held_out]) == list(range(6))
    assert 5 in free
    assert data.chosen == [f"case{labelled[0]}"]
    assert alone.unlabelled == []


def test_what_cannot_be_drawn_is_called_by_its_name(store: Path, divided: Path) -> None:
    for path, what in ((store, "4 labelled volumes"), (divided, "2 labelled patients")):
        with pytest.raises(ConfigError, match=f"99 of {what} cannot be drawn"):
            volume_data([path], TrainConfig(labelled="99"), takes_unlabelled=False)


@pytest.mark.parametrize("consistency", [0, 0.1])
def test_without_consistency_no_volumes_without_labels_are_drawn(
    store: Path, tmp_path: Path, consistency: float
) -> None:
    options = {**NET, "consistency": consistency}
    config = TrainConfig(method="mean-teacher", options=options, patch=(8, 8, 8), labelled="2", val_fraction=0.4)

    work = prepared(TrainJob(stores=(store,), output=tmp_path / "run", config=config), Ranks())

    assert work.batches.images_per_batch == (4 if consistency else 2)
    assert ("train-unlabelled" in work.roles) == (consistency > 0)


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of eight volumes, the last two without labels, of patients of whom some are marked."""
    folder = tmp_path_factory.mktemp("divided")
    rows = ["p,test", "p,train", "q,test", "r,train", "s,train", "t,val", "p,unlabelled", "u,unlabelled"]
    table = "".join(f"case{number},{row}\n" for number, row in enumerate(rows))
    (folder / "split.csv").write_text("image,patient_id,split\n" + table, encoding="utf-8")
    settings = VolumeSettings(split=str(folder / "split.csv"))
    ingest_volumes(write_cases(folder / "src", 8, unlabelled=2), folder / "volumes.zarr", settings, num_workers=0)
    return folder / "volumes.zarr"


def test_patients_who_are_tested_are_not_learnt_from_even_without_labels(divided: Path) -> None:
    data = volume_data([divided], TrainConfig(labelled="1"), takes_unlabelled=True)

    (labelled,), (free,), (held_out,) = (
        [source.indices.tolist() for source in part] for part in (data.labelled, data.unlabelled, data.held_out)
    )
    assert held_out == [5]
    assert len(labelled) == 1
    # All of patient p is for testing, and so is what is marked so.
    assert sorted([*labelled, *free]) == [3, 4, 7]


def test_a_run_tells_what_each_volume_was(divided: Path, tmp_path: Path) -> None:
    trained(divided, tmp_path / "run", method="mean-teacher", labelled="1", fit={**FIT, "steps": 1})

    rows = list(csv.DictReader((tmp_path / "run" / "split.csv").read_text(encoding="utf-8").splitlines()))
    (name,) = (tmp_path / "run" / "labelled.txt").read_text(encoding="utf-8").split()
    drawn = {"r": "train-unlabelled", "s": "train-unlabelled", name: "train-labelled"}
    roles = ["test", "unused", "test", drawn["r"], drawn["s"], "val", "unused", "train-unlabelled"]
    assert [(row["volume"], row["group"]) for row in rows] == [(f"case{at}", who) for at, who in enumerate("ppqrstpu")]
    assert [row["role"] for row in rows] == roles


def test_stores_that_were_prepared_otherwise_do_not_go_together(store: Path, tmp_path: Path) -> None:
    settings = VolumeSettings(intensities=IntensityRule(clip=None))
    ingest_volumes(write_cases(tmp_path / "src", 2), tmp_path / "other.zarr", settings, num_workers=0)

    with pytest.raises(DataError, match="differ in their preparation of intensities"):
        volume_data([store, tmp_path / "other.zarr"], TrainConfig(), takes_unlabelled=False)


@pytest.mark.parametrize(
    ("settings", "kind", "told"),
    [
        ({"mpp": 0.5}, ConfigError, "--mpp"),
        ({"options": {"arch": "unet-gn"}}, MethodError, "unet-gn is no network of volumes.*unet3d or vnet"),
        ({"patch": (8, 8, 7)}, MethodError, "8 × 8 × 7 voxels do not fit"),
        (
            {"augmentation": {"blur_px": 1.0, "noise": 0.1}},
            ConfigError,
            r"^augmentation.blur_px: .* change by symmetries",
        ),
        ({"unlabelled_batch_size": 1}, ConfigError, "does not learn from volumes without labels"),
    ],
)
def test_what_makes_no_sense_for_volumes_is_refused(
    store: Path, tmp_path: Path, settings: dict[str, Any], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        trained(store, tmp_path / "run", **settings)

    assert not (tmp_path / "run" / "config.json").exists()


def test_images_have_no_patch(tmp_path: Path) -> None:
    config = TrainConfig(patch=(8, 8, 8))

    with pytest.raises(ConfigError, match="images are cut by --crop-px"):
        train(TrainJob(stores=(tmp_path,), output=tmp_path / "run", config=config, device="cpu"))


def test_windows_change_as_they_are_told_and_not_as_images_do(store: Path, tmp_path: Path) -> None:
    trained(store, tmp_path / "run", augmentation={"symmetries": False, "noise": 0.2, "blur_px": 0})

    kept = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    changes = {name: value for name, value in kept["augmentation"].items() if value}
    assert changes == {"noise": 0.2, "brightness": 0.1, "contrast": 0.15}
    # The settings of a run make the same run.
    again = train(
        TrainJob(stores=(store,), output=tmp_path / "run", config=TrainConfig.model_validate(kept), device="cpu")
    )
    assert "nothing to do" in str(again)


@pytest.mark.parametrize(
    ("shapes", "patch"),
    [
        ([(35, 51, 36)] * 3, (48, 64, 64)),
        ([(12, 14, 16)], (16, 32, 32)),
        ([(96, 97, 30), (155, 170, 140)], (96, 96, 96)),
        ([(16, 40, 40), (17, 49, 30), (500, 500, 500)], (32, 64, 64)),
    ],
)
def test_the_usual_window_holds_most_volumes(shapes: list[tuple[int, int, int]], patch: tuple[int, int, int]) -> None:
    volumes = [SimpleNamespace(shape=shape) for shape in shapes]
    store: Any = SimpleNamespace(meta=SimpleNamespace(volumes=volumes))

    assert VolumeData(stores=[store], labelled=[], unlabelled=[], held_out=[], chosen=None).usual_patch == patch


def test_small_volumes_are_learnt_from_in_small_windows(store: Path, tmp_path: Path) -> None:
    progress = Listener()
    config = TrainConfig(options={"arch": "unet3d"}, fit=FitSettings(steps=1, num_workers=0), val_fraction=0)

    report = train(TrainJob(stores=(store,), output=tmp_path / "run", config=config, device="cpu"), progress)

    card = read_card(report.checkpoint)
    assert card.volume is not None
    assert card.volume.patch == (16, 32, 32)
    assert "in windows of 16 x 32 x 32 voxels" in progress.heard[0]


def test_a_cube_is_the_window_that_one_side_asks_for(store: Path, tmp_path: Path) -> None:
    report = trained(store, tmp_path / "run", patch=None, crop_px=8, fit={**FIT, "steps": 1})

    card = read_card(report.checkpoint)
    assert card.volume is not None
    assert card.volume.patch == (8, 8, 8)
    assert np.isfinite(report.fit.best)
