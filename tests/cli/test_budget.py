"""``wsiseg budget``: a grid of trainings that goes on where it was stopped, and what it says."""

from __future__ import annotations

import csv
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.volume_makers import write_cases
from wsiseg.cli import app
from wsiseg.config import flattened
from wsiseg.errors import BusyError, ConfigError, DataError, MethodError, SomeFailedError, StoppedError
from wsiseg.labels import LabelMap
from wsiseg.lock import locked
from wsiseg.tasks import budget as budget_module
from wsiseg.tasks import train as train_module

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.conftest import MakePatchStore
    from wsiseg.tasks.budget_report import Study
    from wsiseg.tasks.train_job import TrainJob, TrainReport
    from wsiseg.training.batches import Batches
    from wsiseg.training.sources import Source

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


def settings(folder: Path, method: str, size: str = "1", seed: int = 0) -> dict[str, Any]:
    path = folder / "cells" / method / size / f"seed{seed}" / "config.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def labelled(folder: Path, method: str, size: str, seed: int = 0) -> set[str]:
    return set((folder / "cells" / method / size / f"seed{seed}" / "labelled.txt").read_text().split())


def losses(folder: Path, *, seed: int) -> list[str]:
    with (folder / f"cells/supervised/4/seed{seed}/log.csv").open(encoding="utf-8") as file:
        return [row["loss"] for row in csv.DictReader(file)]


def test_jobs_of_an_array_make_one_study(study: Path) -> None:
    found = rows(study)

    assert {(row["method"], row["images"]) for row in found} == {
        (method, images) for method in ("supervised", "mean-teacher") for images in ("1", "2")
    }
    assert all(0 <= float(row["foreground_dice"]) <= 1 for row in found)
    dice = {(row["method"], row["images"]): 100 * float(row["foreground_dice"]) for row in found}
    for row in found:
        gain = dice["mean-teacher", row["images"]] - dice["supervised", row["images"]]
        told = row["points_over_supervised"]
        assert told == "" if row["method"] == "supervised" else float(told) == pytest.approx(gain, abs=1e-3)
    assert (study / "budget.png").stat().st_size > 1000
    assert "Learning curves" in (study / "budget.html").read_text()
    assert "another recipe" not in (study / "budget.html").read_text()


def test_methods_learn_from_the_same_images_and_more_labels_hold_the_fewer(study: Path) -> None:
    assert labelled(study, "supervised", "2") == labelled(study, "mean-teacher", "2")
    assert labelled(study, "supervised", "1") < labelled(study, "supervised", "2")


def test_each_seed_draws_images_and_weights_of_its_own(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    run("budget", store, "-o", folder, *SMALL, "--methods=supervised", "--counts=1,4", "--seeds=2")

    assert labelled(folder, "supervised", "1", 0) != labelled(folder, "supervised", "1", 1)
    # With all images the seed of the weights alone tells the trainings apart.
    assert labelled(folder, "supervised", "4", 0) == labelled(folder, "supervised", "4", 1)
    assert losses(folder, seed=0) != losses(folder, seed=1)


def test_nothing_is_learnt_from_images_that_choose_or_judge(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    for name in ("Batches", "unlabelled_batches"):
        make = getattr(train_module, name)

        def noted(sources: Sequence[Source], *args: object, make: type[Batches] = make, **options: object) -> Batches:
            seen.update(group for source in sources for group in source.patches.groups[source.indices])
            return make(sources, *args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(train_module, name, noted)

    run("budget", store, "-o", tmp_path / "study", *SMALL, "--counts=1,3", "--methods=mean-teacher")

    assert seen == {f"image{n}" for n in range(4)}
    assert json.loads((tmp_path / "study/cells/mean-teacher/3/seed0/scores.json").read_text())["held_out"] == 1


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


def test_settings_of_a_method_that_a_call_leaves_out_are_not_forgotten(
    study: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "study"
    shutil.copytree(study, folder)
    run("budget", store, "-o", folder, *SMALL, "--methods=supervised")

    with pytest.raises(DataError, match="begun with other settings"):
        run("budget", store, "-o", folder, *SMALL, "--set=each.mean-teacher.fit.lr=0.1")

    # Nor are its trainings lost from the page.
    assert "2 made before" in capsys.readouterr().out
    assert [row["method"] for row in rows(folder)] == ["supervised"] * 2 + ["mean-teacher"] * 2


def test_trainings_that_do_not_fit_fail_and_those_of_other_jobs_are_left(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(job: TrainJob, *others: object) -> TrainReport:
        if job.config.labelled == "2":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return train_module.train(job, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(budget_module, "train", full)
    with locked(tmp_path / "study/cells/supervised/3/seed0/.lock"), pytest.raises(SomeFailedError) as caught:
        run("budget", store, "-o", tmp_path / "study", *SMALL, "--methods=supervised", "--counts=1,2,3")

    assert caught.value.exit_code == 3
    assert "1 training failed, 1 done, 1 left to other jobs" in str(caught.value)
    told = capsys.readouterr()
    assert "1 trained, 1 left, 1 failed" in told.out
    assert "Pass a smaller --batch-size or --crop-px" in told.err
    assert len(rows(tmp_path / "study")) == 1
    page = (tmp_path / "study/budget.html").read_text()
    assert "Trainings that failed" in page
    assert "does not fit into the device" in page

    monkeypatch.undo()
    run("budget", store, "-o", tmp_path / "study", *SMALL, "--methods=supervised", "--counts=1,2")
    assert "Trainings that failed" not in (tmp_path / "study/budget.html").read_text()


def test_a_study_of_which_nothing_could_be_done_says_so(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> TrainReport:
        raise MethodError("the loss is no longer finite")

    monkeypatch.setattr(budget_module, "train", failing)
    with pytest.raises(DataError, match="2 trainings failed, none done") as caught:
        run("budget", store, "-o", tmp_path / "study", *SMALL, "--methods=supervised")

    assert caught.value.exit_code == 5
    assert (tmp_path / "study/budget.html").read_text().count("the loss is no longer finite") == 2


def test_what_an_error_advises_can_be_done(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> TrainReport:
        raise MethodError("the loss is no longer finite", mend="Pass --overwrite with a lower --lr, or with --amp off")

    one = ("budget", store, "-o", tmp_path / "study", *SMALL, "--methods=supervised", "--counts=1")
    monkeypatch.setattr(budget_module, "train", failing)
    with pytest.raises(DataError):
        run(*one)
    advice = "another --output with a lower --set train.fit.lr=…, or with --set train.fit.amp=off"
    assert advice in capsys.readouterr().err
    # Nothing is done, so that the same folder will do, too.
    monkeypatch.undo()
    run(*one, "--set=train.fit.lr=0.001")

    assert settings(tmp_path / "study", "supervised")["fit"]["lr"] == 0.001


def test_where_nothing_is_left_without_labels_the_page_says_so(store: Path, tmp_path: Path) -> None:
    run("budget", store, "-o", tmp_path / "study", *SMALL, "--counts=2,4")

    page = (tmp_path / "study/budget.html").read_text()
    assert "nothing is left to be learnt from without labels (mean-teacher with 4)" in page


def test_a_study_that_is_stopped_tells_what_it_has(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(job: TrainJob, *others: object) -> TrainReport:
        if job.config.labelled == "2":
            raise StoppedError("stopped because time is up")
        return train_module.train(job, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(budget_module, "train", stopped)
    with pytest.raises(StoppedError):
        run("budget", store, "-o", tmp_path / "study", *SMALL, "--methods=supervised")

    assert len(rows(tmp_path / "study")) == 1
    assert (tmp_path / "study/budget.html").exists()


def test_a_study_that_is_stopped_while_others_draw_its_page_says_that_it_is_stopped(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> TrainReport:
        raise StoppedError("stopped because time is up")

    def busy(output: Path) -> Study:
        raise BusyError("another process is writing here", where=output)

    monkeypatch.setattr(budget_module, "train", stopped)
    monkeypatch.setattr(budget_module, "write_study", busy)

    with pytest.raises(StoppedError, match="time is up"):
        run("budget", store, "-o", tmp_path / "study", *SMALL, "--methods=supervised")
    assert "other jobs draw the page" in capsys.readouterr().err


def test_sizes_of_as_many_images_are_trained_once(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shares = [option for option in SMALL if not option.startswith("--counts")]
    run("budget", store, "-o", tmp_path / "study", *shares, "--methods=supervised", "--fractions=0.1,0.2,0.5")

    assert [(row["labelled"], row["images"]) for row in rows(tmp_path / "study")] == [("10%", "1"), ("50%", "2")]
    assert "20% labelled and 10% are the same here" in capsys.readouterr().err


def test_images_that_are_drawn_and_then_held_out_are_counted_once(
    tmp_path: Path, make_patch_store: MakePatchStore, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.zarr"
    rng = np.random.default_rng(0)
    labels = (rng.random((8, 5, 5)) < 0.4).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
    splits = ["", "", "", "", "", "", "test", "test"]
    make_patch_store(path, rng.integers(0, 255, (*labels.shape, 3)).astype(np.uint8), labels, splits=splits)

    run(
        "budget", path, "-o", tmp_path / "study", *SMALL, "--counts=3,5", "--methods=supervised",
        "--set=train.val_from=labelled", "--set=train.val_fraction=0.4",
    )  # fmt: skip

    assert [(row["labelled"], row["images"]) for row in rows(tmp_path / "study")] == [("3", "2"), ("5", "3")]
    told = capsys.readouterr().out
    assert "with 3 labelled images" in told
    assert "beside these, 1 to 2 labelled images chose its models" in told


def test_what_is_drawn_is_what_is_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (tmp_path / "src" / kind).mkdir(parents=True)
        for number in range(8):
            shape = (40, 40, 3) if kind == "images" else (40, 40)
            pixels = rng.integers(0, 255 if kind == "images" else 2, shape).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "src" / kind / f"{number}.png")
    parts = ("train", "train", "val", "test")
    table = "".join(f"{number},{parts[number // 2]},p{number // 2}\n" for number in range(8))
    (tmp_path / "split.csv").write_text("image,split,patient_id\n" + table)
    run(
        "ingest",
        tmp_path / "src",
        "-o",
        tmp_path / "s.zarr",
        "--mpp=0.5",
        "--labels-as=classes",
        f"--split={tmp_path / 'split.csv'}",
    )

    for by, unit, held_out in (("patient", "patients", 1), ("image", "images", 2), ("patch", "patches", 2)):
        folder = tmp_path / by
        run(
            "budget", tmp_path / "s.zarr", "-o", folder, *SMALL, "--counts=1,2", "--methods=supervised",
            f"--set=train.labelled_by={by}",
        )  # fmt: skip

        cells = [json.loads(path.read_text()) for path in sorted(folder.glob("cells/*/*/*/scores.json"))]
        assert [(cell["images"], cell["unit"], cell["held_out"]) for cell in cells] == [
            (count, unit, held_out) for count in (1, 2)
        ]
        assert f"labelled {unit} to learn from" in (folder / "budget.html").read_text()
        assert f"<!-- labelled {unit} -->" in (folder / "budget.svg").read_text()


def test_layers_without_a_background_are_judged_by_all_their_classes(
    tmp_path: Path, make_patch_store: MakePatchStore
) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (4, 40, 40)).astype(np.uint8)
    path = tmp_path / "tissue.zarr"
    make_patch_store(
        path,
        rng.integers(0, 255, (4, 40, 40, 3)).astype(np.uint8),
        labels,
        names=("stroma", "tumour"),
        splits=["train", "train", "val", "test"],
    )

    run("budget", path, "-o", tmp_path / "study", *SMALL, "--counts=1", "--methods=supervised")

    assert list(rows(tmp_path / "study")[0])[6:] == [
        "mean_dice", "miou", "fw_iou", "pixel_accuracy", "points_over_supervised",
    ]  # fmt: skip


def test_a_settings_file_may_be_for_more_methods_than_are_asked_for(store: Path, tmp_path: Path) -> None:
    run(
        "budget", store, "-o", tmp_path / "study", *SMALL, "--counts=1", "--methods=mean-teacher",
        "--set=each.alone.method=mean-teacher", "--set=each.alone.options.consistency=0",
        "--set=train.unlabelled_batch_size=1", "--set=each.supervised.fit.lr=0.02",
    )  # fmt: skip

    assert [row["method"] for row in rows(tmp_path / "study")] == ["mean-teacher"]


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        (["--methods=mlps"], ConfigError, "--methods: mlps learns from what patches show"),
        (["--methods=supervize"], MethodError, "Did you mean supervised"),
        (["--methods=supervised,../out"], ConfigError, "is no name"),
        (["--methods=alone", "--set=each.alone.method=mlps"], ConfigError, "learns from what patches show"),
        (["--methods=alone", "--set=each.alone.method=3"], MethodError, "each.alone.method: unknown method '3'"),
        (["--counts=", "--fractions=0.1,2"], ConfigError, "shares lie above 0 and up to 1"),
        (
            ["--set=each.mean-teacher.lr=1", "--methods=supervised"],
            ConfigError,
            r"^each\.mean-teacher: unknown setting lr",
        ),
        (
            ["--set=each.mean-techer.fit.lr=1", "--methods=supervised"],
            MethodError,
            r"^each\.mean-techer: unknown method 'mean-techer'\. Did you mean mean-teacher",
        ),
        (["--set=train.labelled=3"], ConfigError, "the study decides about it"),
        (["--set=each.supervised.fit.seed=3"], ConfigError, r"each\.supervised\.fit\.seed: the study decides about it"),
        (["--methods=supervised,supervised"], ConfigError, "supervised is there twice"),
        (["--counts=0,2"], ConfigError, "0 is no number of images"),
        (["--counts=-1"], ConfigError, "-1 is no number of images"),
        (["--counts=1,40"], ConfigError, "40 of 4 labelled images cannot be drawn"),
        (["--set=train.unlabelled_batch_size=2"], ConfigError, "supervised does not learn from images without labels"),
        (["--set=train.options.arhc=unet"], ConfigError, "^supervised: unknown setting arhc"),
        (["--methods=pgfanet"], ConfigError, "^pgfanet: unknown setting widths. Did you mean width"),
        (["--methods=pgfanet", "--arch=unet"], ConfigError, "^--arch: no method of the study takes the network unet"),
        (["--set=each.mean-teacher.options.arch=unett"], MethodError, "Did you mean unet"),
        (
            ["--methods=supervised,ugmcl", "--arch=unet"],
            MethodError,
            r"ugmcl: this network has no dropout.*--set train\.options\.net\.dropout",
        ),
        (["--set=train.options.head=flow"], MethodError, "holds classes of pixels"),
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

    with pytest.raises(DataError, match=r"nothing that is marked test has labels.*--split"):
        run("budget", path, "-o", tmp_path / "study", *SMALL)

    labels = np.zeros((4, 40, 40), np.int32)
    labels[:, :8], labels[3] = 1, 255
    unknown = tmp_path / "unknown.zarr"
    store = make_patch_store(unknown, np.zeros((4, 40, 40, 3), np.uint8), splits=["train"] * 2 + ["val", "test"])
    store.add_layer("truth", "classes", LabelMap.from_names(("background", "gland")))
    store.write_labels("truth", [0, 1, 2], [label.astype(np.uint8) for label in labels[:3]])

    with pytest.raises(DataError, match=r"nothing that is marked test has labels.*--split"):
        run("budget", unknown, "-o", tmp_path / "study", *SMALL)
    assert not (tmp_path / "study").exists()


def test_settings_of_one_method_come_before_those_of_all(store: Path, tmp_path: Path) -> None:
    run("budget", store, "-o", tmp_path / "study", *SMALL, "--counts=1", "--set=each.mean-teacher.fit.lr=0.02")

    configs = [flattened(settings(tmp_path / "study", name)) for name in ("supervised", "mean-teacher")]
    assert [(config["fit.steps"], config["fit.lr"]) for config in configs] == [(4, 0.01), (4, 0.02)]


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
        "--set=each.alone.fit.clip_norm=2.0",
    )

    configs = {name: flattened(settings(tmp_path / "study", name)) for name in ("mean-teacher", "alone")}
    assert {config["method"] for config in configs.values()} == {"mean-teacher"}
    assert [configs[name]["options.consistency"] for name in ("alone", "mean-teacher")] == [0, 0.1]
    page = (tmp_path / "study/budget.html").read_text()
    assert "<td>fit.clip_norm</td><td>1.0</td><td>2.0</td>" in page
    assert "<td>options.consistency</td><td>0.1</td><td>0.0</td>" in page
    assert "<td>network</td>" not in page


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory, make_patch_store: MakePatchStore) -> Path:
    """Return single objects: two images to train on, one to choose by, one to judge by."""
    rng = np.random.default_rng(0)
    labels = np.zeros((4, 40, 40), np.int32)
    for number, (y, x) in enumerate(((2, 2), (2, 22), (22, 2), (22, 22)), start=1):
        labels[:, y : y + 12, x : x + 12] = number
    images = np.where(labels[..., None] > 0, 90, 200) + rng.integers(-30, 30, (*labels.shape, 3))
    path = tmp_path_factory.mktemp("data") / "nuclei.zarr"
    splits = ["train", "train", "val", "test"]
    make_patch_store(path, images.astype(np.uint8), labels, kind="instances", splits=splits)
    return path


def head(folder: Path, method: str) -> str:
    found: str = json.loads(next((folder / "cells" / method).glob("*/seed0/*/model.json")).read_text())["head"]["kind"]
    return found


@pytest.mark.parametrize(("method", "kind"), [("mean-teacher", "ternary"), ("ugmcl", "level-set")])
def test_methods_have_one_head_where_it_is_left_to_them(objects: Path, tmp_path: Path, method: str, kind: str) -> None:
    run(
        "budget", objects, "-o", tmp_path / "study", *SMALL, "--counts=1", f"--methods=supervised,{method}",
        "--arch=unet-gn", "--set=train.options.net.dropout=0.2",
    )  # fmt: skip

    assert head(tmp_path / "study", "supervised") == head(tmp_path / "study", method) == kind
    page = (tmp_path / "study/budget.html").read_text()
    assert "options.head" not in page
    assert "halo_px" not in page


def test_heads_that_differ_are_told(objects: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("budget", objects, "-o", tmp_path / "study", *SMALL, "--counts=1", "--set=each.supervised.options.head=flow")

    assert head(tmp_path / "study", "supervised") == "flow"
    assert "methods have different heads (supervised flow, mean-teacher ternary)" in capsys.readouterr().err
    page = (tmp_path / "study/budget.html").read_text()
    assert "<td>options.head</td><td>flow</td><td>ternary</td>" in page
    assert "Methods with different heads" in page


def test_a_head_stays_when_methods_are_added(objects: Path, tmp_path: Path) -> None:
    run("budget", objects, "-o", tmp_path / "study", *SMALL, "--counts=1", "--methods=supervised")
    run("budget", objects, "-o", tmp_path / "study", *SMALL)

    heads = {file.read_text().count("flow") > 0 for file in (tmp_path / "study/cells/supervised").rglob("model.json")}
    assert heads == {True}


def test_the_network_inside_one_of_two_tasks_is_told(store: Path, tmp_path: Path) -> None:
    run(
        "budget", store, "-o", tmp_path / "study", *SMALL, "--methods=ugmcl,supervised", "--counts=1", "--arch=unet-gn",
        "--set=each.ugmcl.options.net.dropout=0.2",
    )  # fmt: skip

    page = (tmp_path / "study/budget.html").read_text()
    assert "options.net.dropout" in page
    assert "<td>network</td>" not in page


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
    assert [(row["images"], row["unit"]) for row in found] == [("2", "volumes"), ("3", "volumes")]
    assert list(found[0])[6:] == [
        "dice",
        "jaccard",
        "hd95",
        "asd",
        "assd",
        "missing_structures",
        "points_over_supervised",
    ]
    assert all(0 <= float(row["jaccard"]) <= float(row["dice"]) <= 1 for row in found)
