"""``wsiseg train`` and ``wsiseg models``: what they write, what they say, and how they fail."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from tests.training_logs import repeatable
from wsiseg.cli import app
from wsiseg.errors import WsisegError
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks import train_data
from wsiseg.training.log import read_table
from wsiseg.training.state_file import load_state, save_state
from wsiseg.training.training_run import STATE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.conftest import MakePatchStore
    from wsiseg.stores.patch_set import PatchSet

SMALL = (
    "--crop-px=32",
    "--batch-size=2",
    "--device=cpu",
    "--num-workers=1",
    "--set=options.net.widths=[8, 16]",
    "--set=fit.log_every=2",
    "--set=fit.validate_every=4",
)
RESULTS = (
    "log.csv",
    "validation.csv",
    "config.json",
    "best/model.safetensors",
    "best/model.json",
    "last/model.safetensors",
)


@pytest.fixture
def store(tmp_path: Path, make_patch_store: MakePatchStore) -> Path:
    """Return dark glands on a light ground, two patches of each of four images."""
    rng = np.random.default_rng(0)
    labels = (rng.random((8, 5, 5)) < 0.4).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
    images = np.where(labels[..., None] == 1, 90, 200) + rng.integers(-30, 30, (*labels.shape, 3))
    path = tmp_path / "glands.zarr"
    make_patch_store(path, images.astype(np.uint8), labels, parents=[f"image{n // 2}" for n in range(8)])
    return path


@pytest.fixture
def objects(tmp_path: Path, make_patch_store: MakePatchStore) -> Path:
    """Return dark squares, each an object."""
    labels = np.zeros((4, 40, 40), np.int32)
    for number, (row, column) in enumerate([(4, 4), (4, 24), (24, 4), (24, 24)], start=1):
        labels[:, row : row + 10, column : column + 10] = number
    images = np.where(labels[..., None] > 0, 90, 200).repeat(3, axis=3).astype(np.uint8)
    path = tmp_path / "objects.zarr"
    make_patch_store(path, images, labels, kind="instances")
    return path


def run(*arguments: str | Path) -> None:
    app.app([str(argument) for argument in arguments], standalone_mode=False)


def outcome(folder: Path) -> dict[str, bytes]:
    return {name: repeatable(folder / name) for name in RESULTS}


def test_few_labels_and_a_teacher(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--labelled=1", "--steps=8", "--lr=0.01", "--set=split_seed=3")
    run("train", store, "-o", tmp_path / "alone", *SMALL, *few)
    run(
        "train", store, "-o", tmp_path / "taught", *SMALL, *few, "--method=mean-teacher",
        f"--set=baseline={tmp_path / 'alone'}",
    )  # fmt: skip

    told = capsys.readouterr()
    said = " ".join((told.err + told.out).split())
    val = "2 patches of 1 images held out with labels beyond those drawn"
    assert f"2 patches of 1 images to train on, {val}, 2 images per step" in said
    free = "4 patches of 2 images to learn from without labels"
    assert f"2 patches of 1 images to train on, {free}, {val}, 4 images" in said
    names = [(tmp_path / name / "labelled.txt").read_text() for name in ("alone", "taught")]
    assert names[0] == names[1]
    assert names[0].count("\n") == 1
    images = list(csv.DictReader((tmp_path / "taught" / "split.csv").read_text().splitlines()))
    assert [image["image"] for image in images if image["role"] == "train-labelled"] == [names[0].strip()]
    assert sorted(image["role"] for image in images) == [
        "train-labelled",
        "train-unlabelled",
        "train-unlabelled",
        "val",
    ]
    rows = read_table(tmp_path / "taught" / "validation.csv")
    assert {"miou", "teacher_miou"} <= set(rows[0])
    log = read_table(tmp_path / "taught" / "log.csv")
    assert log[0]["weight"] < log[-1]["weight"] <= 0.1
    assert {"consistency", "agreement"} <= set(log[0])
    # What is kept is the student alone, and it predicts as any other model.
    weights = [(tmp_path / name / "best" / "model.safetensors").stat().st_size for name in ("alone", "taught")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("method", "names"), [("supervised", ["glands.zarr"]), ("mean-teacher", ["glands.zarr", "more.zarr"])]
)
def test_a_store_without_labels_serves_those_who_learn_without(
    store: Path, tmp_path: Path, make_patch_store: MakePatchStore, method: str, names: list[str]
) -> None:
    make_patch_store(tmp_path / "more.zarr", np.zeros((3, 40, 40, 3), np.uint8), parents=["x", "y", "z"])

    run("train", store, tmp_path / "more.zarr", "-o", tmp_path / "run", *SMALL, "--steps=1", f"--method={method}")

    card = json.loads((tmp_path / "run" / "last" / "model.json").read_text())
    assert list(card["training_data"]) == names


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--labelled=7"], "--labelled: 7 of 3 labelled images cannot be drawn"),
        (["--labelled=nonsense"], "--labelled: nonsense is no share, no count and no file"),
        (["--set=unlabelled_batch_size=4"], "unlabelled_batch_size: supervised does not learn from images without"),
        (["--method=mlps", "--labelled=1"], "--labelled: mlps learns from whole patches"),
        (["--method=mean-teacher", "--set=baseline=nowhere"], "nowhere"),
    ],
)
def test_a_subset_that_makes_no_sense_is_one_clear_line(
    store: Path, tmp_path: Path, options: list[str], told: str
) -> None:
    with pytest.raises(WsisegError) as caught:
        run("train", store, "-o", tmp_path / "run", *SMALL, "--steps=2", *options)

    assert told in str(caught.value)


def test_a_model_of_classes(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("train", store, "-o", tmp_path / "run", *SMALL, "--steps=40", "--lr=0.01")

    said = capsys.readouterr()
    assert said.out.startswith("best miou 0.")
    assert said.out.rstrip().endswith(str(tmp_path / "run" / "best"))
    assert "6 patches of 3 images to train on, 2 patches of 1 images held out, 2 images per step" in (
        " ".join(said.err.split())
    )
    card = json.loads((tmp_path / "run" / "best" / "model.json").read_text())
    assert card["metrics"]["miou"] > 0.8
    assert card["mpp"] == 0.5
    assert list(card["training_data"]) == ["glands.zarr"]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["layer"] == "truth"
    assert config["options"]["arch"] == "unet-gn"
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_model_of_objects(objects: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("train", objects, "-o", tmp_path / "run", *SMALL, "--epochs=2", "--head=hv", "--ema=0.9")

    assert capsys.readouterr().out.startswith("best aji ")
    card = json.loads((tmp_path / "run" / "best" / "model.json").read_text())
    assert card["head"]["kind"] == "hv"
    assert card["task"] == "instance"


def test_a_second_run_does_nothing_and_overwrite_starts_anew(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("train", store, "-o", tmp_path / "run", *SMALL)
    run(*command, "--steps=4")
    before = outcome(tmp_path / "run")
    capsys.readouterr()

    run(*command, "--steps=4")

    assert capsys.readouterr().out.startswith("nothing to do, all 4 steps were made before: best miou")
    assert outcome(tmp_path / "run") == before
    with pytest.raises(WsisegError, match=r"other settings or data \(fit\.steps was 4 and is 6\)"):
        run(*command, "--steps=6")
    run(*command, "--steps=6", "--overwrite")
    assert capsys.readouterr().out.startswith("best miou")


@pytest.mark.parametrize("at", [7, 0], ids=["learnt from", "held out"])
def test_labels_that_changed_are_not_taken_for_those_of_before(store: Path, tmp_path: Path, at: int) -> None:
    command = ("train", store, "-o", tmp_path / "run", *SMALL, "--steps=2", "--set=split_seed=3")
    run(*command)
    labels = PatchStore.open(store)
    before = labels.read_labels("truth", [at])

    labels.write_labels("truth", [at], list(1 - before))

    with pytest.raises(WsisegError, match=r"other settings or data \(labels differ\)"):
        run(*command)
    labels.write_labels("truth", [at], list(before))
    run(*command)


def test_a_training_that_was_begun_before_labels_were_noted_goes_on(store: Path, tmp_path: Path) -> None:
    command = ("train", store, "-o", tmp_path / "run", *SMALL, "--steps=2")
    run(*command)
    state = load_state(tmp_path / "run" / STATE)
    del state["plan"]["labels"]
    save_state(tmp_path / "run" / STATE, state)

    run(*command)


def test_labels_of_other_images_may_come_later(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("train", store, "-o", tmp_path / "run", *SMALL, "--steps=2", "--val-fraction=0", "--labelled=1")
    run(*command)
    used = (tmp_path / "run" / "labelled.txt").read_text().strip()
    labels = PatchStore.open(store)
    others = np.flatnonzero(labels.parents != used).tolist()

    labels.write_labels("truth", others, list(1 - labels.read_labels("truth", others)))
    run(*command)

    assert "nothing to do" in capsys.readouterr().out


def test_without_held_out_images_there_is_no_best(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("train", store, "-o", tmp_path / "run", *SMALL, "--steps=2", "--val-fraction=0")

    assert capsys.readouterr().out.strip() == f"no validation, model of step 2 in {tmp_path / 'run' / 'last'}"


def test_several_stores_share_the_draws(store: Path, objects: Path, tmp_path: Path) -> None:
    run("train", store, store, "-o", tmp_path / "run", *SMALL, "--steps=2", "--set=weights=[1, 3]")

    with pytest.raises(WsisegError, match="have different classes"):
        run("train", store, objects, "-o", tmp_path / "other", *SMALL)
    with pytest.raises(WsisegError, match="1 weights for 2 stores"):
        run("train", store, store, "-o", tmp_path / "other", *SMALL, "--set=weights=[1]")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--method=supervisd"], 2, r"Did you mean supervised\?"),
        (["--arch=unet-gm"], 2, r"Did you mean unet-gn\?"),
        (["--head=flo"], 2, r"the layer holds classes"),
        (["--layer=nuclei"], 5, r"no layer 'nuclei'.*There are: truth"),
        (["--set=fit.lrr=1"], 2, r"Did you mean lr\?"),
        (["--set=options.archi=1"], 2, r"Did you mean arch\?"),
        (["--set=augmentation.scael=1"], 2, r"Did you mean scale\?"),
        (["--crop-px=33"], 2, r"Use multiples of 2"),
        (["--arch=deeplabv3+", "--encoder=resnet10t", "--batch-size=1"], 2, r"--batch-size: .*Pass 2 or more"),
        (["--device=cuda:99"], 2, r"CUDA device"),
        (["--device=gpu"], 2, r"'gpu' is no device"),
        (["--rounds=2"], 2, r"--rounds: the method supervised has no rounds\. Leave it out, or .*label-efficient$"),
        (["--rounds=2", "--method=mlps"], 2, r"--rounds: the method mlps has no rounds"),
        (["--rounds=0", "--method=label-efficient"], 2, r"rounds: input should be greater than or equal to 1"),
        (["--lr=-1"], 2, r"fit\.lr: input should be greater than 0"),
    ],
)
def test_mistakes_are_one_line(store: Path, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    with pytest.raises(WsisegError, match=message) as caught:
        run("train", store, "-o", tmp_path / "run", *SMALL, *arguments)

    assert caught.value.exit_code == code
    assert not (tmp_path / "run" / "last.pt").exists()


def test_data_that_cannot_be_learnt_from_is_refused(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    images, labels = np.zeros((2, 40, 40, 3), np.uint8), np.zeros((2, 40, 40), np.uint8)
    make_patch_store(tmp_path / "bare.zarr", images)
    make_patch_store(tmp_path / "one.zarr", images, labels, parents=["a", "a"])
    make_patch_store(tmp_path / "unknown.zarr", images, labels + 9)

    for name, message in {
        "bare.zarr": "no layer of labels",
        "one.zarr": "come from one image",
        "missing.zarr": "missing",
    }.items():
        with pytest.raises(WsisegError, match=message) as caught:
            run("train", tmp_path / name, "-o", tmp_path / "run", *SMALL)
        assert caught.value.exit_code == 5
        assert not (tmp_path / "run").exists()
    with pytest.raises(WsisegError, match="the labels hold class 9"):
        run("train", tmp_path / "unknown.zarr", "-o", tmp_path / "run", *SMALL)


def test_names_of_a_call_that_was_killed_early_do_not_stay(store: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "labelled.txt").write_text("image0\n")

    run("train", store, "-o", tmp_path / "run", *SMALL, "--steps=2")

    assert not (tmp_path / "run" / "labelled.txt").exists()
    assert (tmp_path / "run" / "split.csv").exists()


@pytest.mark.parametrize(("text", "images"), [("0.00001", 1), ("1", 1), ("1.0", 3)])
def test_numbers_in_a_file_are_shares_and_counts(store: Path, tmp_path: Path, text: str, images: int) -> None:
    (tmp_path / "few.toml").write_text(f"labelled = {text}\n")

    run("train", store, "-o", tmp_path / "run", *SMALL, "--steps=1", "--config", tmp_path / "few.toml")

    assert (tmp_path / "run" / "labelled.txt").read_text().count("\n") == images


def test_masks_that_were_not_drawn_are_never_read(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, read = PatchStore.open(store), PatchStore.read_labels
    seen: set[str] = set()

    def guarded(self: PatchStore, layer: str, indices: Sequence[int]) -> NDArray[Any]:
        seen.update(known.parents[np.asarray(indices)].tolist())
        return read(self, layer, indices)

    monkeypatch.setattr(PatchStore, "read_labels", guarded)
    run(
        "train", store, "-o", tmp_path / "run", *SMALL, "--steps=12", "--labelled=1", "--method=mean-teacher",
        "--set=fit.validate_every=6",
    )  # fmt: skip

    rows = list(csv.DictReader((tmp_path / "run" / "split.csv").read_text().splitlines()))
    assert seen == {row["image"] for row in rows if row["role"] in ("train-labelled", "val")}
    assert len(seen) == 2


def test_two_trainings_of_one_run_do_not_meet(store: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text(json.dumps({"host": "elsewhere", "pid": 1}))

    with pytest.raises(WsisegError, match="another process is writing here") as caught:
        run("train", store, "-o", tmp_path / "run", *SMALL)

    assert caught.value.exit_code == 75


def start(*arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-m", "wsiseg.cli.app", *(str(argument) for argument in arguments)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_rows(table: Path, rows: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while not table.exists() or table.read_text().count("\n") <= rows:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_a_killed_training_goes_on_to_the_same_end(store: Path, tmp_path: Path, number: signal.Signals) -> None:
    settings = (*SMALL, "--steps=150", "--set=name=toy", "--set=fit.save_interval_s=0.2", "--ema=0.99")
    process = start("train", store, "-o", tmp_path / "parts", *settings)
    wait_for_rows(tmp_path / "parts" / "log.csv", 20, process)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)

    assert process.returncode == (-9 if number == signal.SIGKILL else 75), said
    for folder in ("parts", "whole"):
        process = start("train", store, "-o", tmp_path / folder, *settings)
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_train_as_one(store: Path, tmp_path: Path) -> None:
    common = ("--steps=6", "--set=name=toy", "--set=augmentation.noise=0", "--set=options.dice_weight=0")
    run("train", store, "-o", tmp_path / "one", *SMALL, *common, "--batch-size=4")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    command = [*torchrun, "wsiseg.cli.app", "train", str(store), "-o", str(tmp_path / "two"), *SMALL, *common]

    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, capture_output=True, timeout=240, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best miou") == 1
    one, two = (
        np.loadtxt(tmp_path / name / "log.csv", delimiter=",", skiprows=1, usecols=(0, 1, 2, 3))
        for name in ("one", "two")
    )
    np.testing.assert_allclose(one, two, rtol=2e-2)


@pytest.mark.slow
def test_a_warning_to_one_process_stops_all(store: Path, tmp_path: Path) -> None:
    variables = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29617"}
    steps = [
        start(
            "train", store, "-o", tmp_path / "run", *SMALL, "--steps=9999",
            RANK=str(rank), LOCAL_RANK=str(rank), **variables,
        )
        for rank in range(2)
    ]  # fmt: skip
    wait_for_rows(tmp_path / "run" / "log.csv", 2, steps[0])

    steps[1].send_signal(signal.SIGUSR1)

    assert [(step.communicate(timeout=120), step.returncode)[1] for step in steps] == [75, 75]
    assert (tmp_path / "run" / "last.pt").exists()


def test_models_are_shown(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("train", store, "-o", tmp_path / "run", *SMALL, "--steps=2")
    capsys.readouterr()

    run("models", "show", tmp_path / "run")
    shown = capsys.readouterr().out
    run("models", "show", tmp_path / "run", "--json")
    record = json.loads(capsys.readouterr().out)
    run("models", "list", "--json")
    listed = json.loads(capsys.readouterr().out)

    assert "background" in shown
    assert "0.5 µm/px" in shown
    assert record["card"]["name"] == "run"
    assert record["folder"] == str(tmp_path / "run" / "best")
    assert isinstance(listed, list)
    with pytest.raises(WsisegError, match="there is no such model") as caught:
        run("models", "show", "nuclei-hee")
    assert caught.value.exit_code == 5
    with pytest.raises(WsisegError, match="show needs a model"):
        run("models", "show")


def test_stores_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / "one" / "s.zarr", tmp_path / "two" / "s.zarr", tmp_path / "t.zarr"]
    stores = [cast("PatchSet", SimpleNamespace(fingerprint=name)) for name in "abc"]

    assert train_data.fingerprints(paths, stores) == {"s.zarr (1)": "a", "s.zarr (2)": "b", "t.zarr": "c"}
