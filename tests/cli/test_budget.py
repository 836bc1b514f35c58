"""``wsiseg budget``: a grid of trainings that goes on where it was stopped, and what it says."""

from __future__ import annotations

import csv
import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.volume_makers import write_cases
from wsiseg.cli import app
from wsiseg.errors import ConfigError, DataError, MethodError, SomeFailedError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePatchStore

SMALL = (
    "--counts=1,2",
    "--seeds=1",
    "--steps=4",
    "--crop-px=32",
    "--batch-size=2",
    "--device=cpu",
    "--set=train.options.net.widths=[8, 16]",
    "--set=train.fit.num_workers=0",
    "--set=train.fit.lr=0.01",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, make_patch_store: MakePatchStore) -> Path:
    """Return dark glands on a light ground: four images to train on, one to choose by, two to judge by."""
    rng = np.random.default_rng(0)
    labels = (rng.random((7, 5, 5)) < 0.4).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
    images = np.where(labels[..., None] == 1, 90, 200) + rng.integers(-30, 30, (*labels.shape, 3))
    path = tmp_path_factory.mktemp("data") / "glands.zarr"
    splits = ["train"] * 4 + ["val"] + ["test"] * 2
    make_patch_store(path, images.astype(np.uint8), labels, parents=[f"image{n}" for n in range(7)], splits=splits)
    return path


def run(*arguments: str | Path) -> None:
    app.app([str(argument) for argument in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def study(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "budget"
    for index in (0, 1):
        run("budget", store, "-o", folder, *SMALL, "--num-shards=2", f"--shard-index={index}")
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "budget.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_jobs_of_an_array_make_one_study(study: Path) -> None:
    found = rows(study)

    assert {(row["method"], row["images"]) for row in found} == {
        (method, images) for method in ("supervised", "mean-teacher") for images in ("1", "2")
    }
    assert all(0 <= float(row["mean_dice"]) <= 1 for row in found)
    assert (study / "budget.png").stat().st_size > 1000
    assert "Learning curves" in (study / "budget.html").read_text()
    # Methods learn from the labels of the same images, and none of a test image.
    chosen = [
        (study / "cells" / method / "2" / "seed0" / "labelled.txt").read_text()
        for method in ("supervised", "mean-teacher")
    ]
    assert chosen[0] == chosen[1]
    assert set(chosen[0].split()) <= {f"image{n}" for n in range(4)}


def test_a_second_call_trains_nothing_and_more_seeds_are_added(
    study: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(study, tmp_path / "study")

    run("budget", store, "-o", tmp_path / "study", *SMALL)
    assert "4 made before, page in" in capsys.readouterr().out
    run("budget", store, "-o", tmp_path / "study", *SMALL, "--methods=supervised", "--counts=1", "--seeds=2")

    assert "1 trained, 1 made before" in capsys.readouterr().out
    assert {row["seed"] for row in rows(tmp_path / "study")} == {"0", "1"}


def test_other_settings_are_refused(study: Path, store: Path) -> None:
    before = (study / "study.json").read_bytes()

    with pytest.raises(DataError, match="begun with other settings"):
        run("budget", store, "-o", study, *SMALL, "--steps=5")
    assert (study / "study.json").read_bytes() == before


def test_trainings_that_fail_are_counted_and_the_others_are_made(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SomeFailedError) as caught:
        run("budget", store, "-o", tmp_path / "study", *SMALL, "--methods=supervised", "--counts=1,40")

    assert caught.value.exit_code == 3
    told = capsys.readouterr()
    assert "1 trained, 1 failed" in told.out
    assert "failed: --labelled: 40 of 4 labelled images cannot be drawn" in " ".join((told.out + told.err).split())


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        (["--methods=mlps"], ConfigError, "--methods: mlps learns from what patches show"),
        (["--methods=supervize"], MethodError, "Did you mean supervised"),
        (["--methods=supervised,../out"], ConfigError, "is no name"),
        (["--methods=alone", "--set=each.alone.method=mlps"], ConfigError, "learns from what patches show"),
        (["--counts=", "--fractions=0.1,2"], ConfigError, "shares lie above 0 and up to 1"),
        (["--set=each.mean-teacher.lr=1", "--methods=supervised"], ConfigError, "no method of the study"),
        (["--set=train.labelled=3"], ConfigError, "the study decides about it"),
        (["--set=train.options.arhc=unet"], ConfigError, "arhc"),
    ],
)
def test_what_makes_no_sense_is_told_before_anything_is_trained(
    store: Path, tmp_path: Path, options: list[str], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        run("budget", store, "-o", tmp_path / "study", *SMALL, *options)

    assert not (tmp_path / "study").exists()


def test_something_must_judge(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    path = tmp_path / "s.zarr"
    make_patch_store(path, np.zeros((3, 40, 40, 3), np.uint8), np.zeros((3, 40, 40), np.uint8))

    with pytest.raises(DataError, match=r"nothing is marked test.*--split"):
        run("budget", path, "-o", tmp_path / "study", *SMALL)


def test_settings_of_one_method_come_before_those_of_all(study: Path) -> None:
    config = json.loads((study / "cells" / "mean-teacher" / "1" / "seed0" / "config.json").read_text())

    assert (config["fit"]["steps"], config["fit"]["lr"], config["split_seed"], config["labelled"]) == (4, 0.01, 0, "1")


def test_variants_of_a_method_stand_beside_it(store: Path, tmp_path: Path) -> None:
    variant = ["--methods=mean-teacher,alone", "--set=each.alone.method=mean-teacher"]

    run(
        "budget",
        store,
        "-o",
        tmp_path / "study",
        *SMALL,
        "--counts=1",
        *variant,
        "--set=each.alone.options.consistency=0",
    )

    configs = {
        name: json.loads((tmp_path / "study" / "cells" / name / "1" / "seed0" / "config.json").read_text())
        for name in ("mean-teacher", "alone")
    }
    assert {config["method"] for config in configs.values()} == {"mean-teacher"}
    assert [configs[name]["options"]["consistency"] for name in ("alone", "mean-teacher")] == [0, 0.1]
    assert {row["method"] for row in rows(tmp_path / "study")} == {"mean-teacher", "alone"}


def test_volumes_are_judged_by_overlap_and_surface(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cases(tmp_path / "src", 6)
    names = sorted(file.name.removesuffix(".nii.gz") for file in (tmp_path / "src" / "images").iterdir())
    splits = ["train", "train", "train", "val", "test", "test"]
    table = "".join(f"{name},{split}\n" for name, split in zip(names, splits, strict=True))
    (tmp_path / "split.csv").write_text("image,split\n" + table)
    run("ingest", tmp_path / "src", "-o", tmp_path / "v.zarr", "--layout=volumes", f"--split={tmp_path / 'split.csv'}")

    run(
        "budget", tmp_path / "v.zarr", "-o", tmp_path / "study", "--methods=supervised", "--counts=2,3", "--seeds=1",
        "--steps=2", "--device=cpu", "--set=train.patch=[8, 8, 8]", "--arch=unet3d",
        "--set=train.options.net.widths=[2, 4]", "--set=train.fit.num_workers=0",
    )  # fmt: skip

    assert "2 trained" in capsys.readouterr().out
    found = rows(tmp_path / "study")
    assert [row["images"] for row in found] == ["2", "3"]
    assert list(found[0])[5:] == ["dice", "jaccard", "hd95", "asd", "assd"]
    assert all(0 <= float(row["jaccard"]) <= float(row["dice"]) <= 1 for row in found)
