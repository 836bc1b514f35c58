"""``wsiseg train --method label-efficient``: a teacher, pseudo-labels and students, each done once."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from wsiseg.cli import app
from wsiseg.errors import ConfigError, DataError, MethodError, StoppedError
from wsiseg.methods.predictor import load_predictor
from wsiseg.methods.pseudo_objects import PseudoObjects
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks import object_labels, train_rounds
from wsiseg.tasks.train_job import TrainConfig, TrainJob
from wsiseg.training.log import read_table
from wsiseg.training.pseudo_labels import PseudoLabeller

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from numpy.typing import NDArray

    from tests.conftest import MakePatchStore

SIDE = 32
SMALL = (
    "--method=label-efficient",
    "--head=ternary",
    "--crop-px=32",
    "--batch-size=5",
    "--steps=30",
    "--lr=0.02",
    "--device=cpu",
    "--num-workers=1",
    "--set=options.net.widths=[8, 16]",
    "--set=fit.log_every=10",
    "--set=fit.validate_every=15",
)


def discs(count: int, *, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return dark discs on a light ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    labels = np.zeros((count, SIDE, SIDE), np.int32)
    for image in labels:
        for number, (row, column) in enumerate([(8, 8), (8, 24), (23, 9), (24, 23)], start=1):
            image[np.hypot(y - row - rng.integers(-1, 2), x - column) < 5 + rng.random()] = number
    images = np.where(labels[..., None] > 0, (110, 70, 140), (225, 190, 215))
    return (images + rng.integers(-10, 10, images.shape)).astype(np.uint8), labels


def run(*arguments: str | Path) -> None:
    app.app([str(argument) for argument in arguments], standalone_mode=False)


def times(folder: Path) -> dict[str, int]:
    """Return when each model and layer was written."""
    files = [*folder.glob("run/*/last/model.safetensors"), *folder.glob("*.zarr/labels/*/zarr.json")]
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in files}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, make_patch_store: MakePatchStore) -> list[Path]:
    """Return stores of annotated patches of three images, of synthetic ones, and of patches without labels."""
    folder = tmp_path_factory.mktemp("nuclei")
    paths = [folder / name for name in ("real.zarr", "made.zarr", "free.zarr")]
    images, labels = discs(3, seed=0)
    splits = ["train", "train", "val"]
    make_patch_store(paths[0], images, labels, kind="instances", parents=["a", "b", "c"], splits=splits)
    images, labels = discs(4, seed=1)
    make_patch_store(paths[1], images, labels, kind="instances", parents=["a", "a", "b", "b"], origin="synthetic")
    images, _ = discs(5, seed=2)
    make_patch_store(paths[2], images, parents=["a", "d", "e", "f", "g"])
    return paths


@pytest.fixture(scope="module")
def done(stores: list[Path]) -> Path:
    """Return a run that was stopped once when its teacher was about to label."""
    output = stores[0].parent / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_labels, "PseudoLabeller", Stopped)
        with pytest.raises(StoppedError):
            run("train", *stores, "-o", output, *SMALL)
    before = times(output.parent)
    assert not [name for name in before if "run-" in name or "student" in name]

    run("train", *stores, "-o", output, *SMALL)

    assert times(output.parent).items() >= before.items()
    return output


class Stopped:
    """A labeller that never comes to anything."""

    def __init__(self, *_: object, **__: object) -> None:
        raise StoppedError("stopped")


def test_no_more_is_labelled_than_a_student_looks_at(stores: list[Path], tmp_path: Path) -> None:
    copies = [Path(shutil.copytree(path, tmp_path / path.name)) for path in stores]
    # Two of five images of a step have pseudo-labels, and there are four patches that could.
    run("train", *copies, "-o", tmp_path / "run", *SMALL, "--steps=1")

    health = json.loads((tmp_path / "run" / "student-1" / "pseudo-labels.json").read_bytes())
    assert PatchStore.open(copies[2]).is_labelled(health["layer"]).sum() == 2


def test_a_teacher_labels_what_its_student_learns(done: Path, stores: list[Path]) -> None:
    health = json.loads((done / "student-1" / "pseudo-labels.json").read_bytes())
    free = PatchStore.open(stores[2])
    # The first patch without labels lies on an image that is annotated there.
    assert free.is_labelled(health["layer"]).tolist() == [False, True, True, True, True]
    assert free.layers[health["layer"]].made_by
    assert health["patches"] == 4
    assert health["kept"] == 16
    assert health["mean_score"] > 0.5
    assert 0.1 < health["coverage"] < 0.5
    labels = free.read_labels(health["layer"], range(1, 5))
    assert labels.min() >= -1
    assert [len(np.unique(own[own > 0])) for own in labels] == [4] * 4
    log = read_table(done / "student-1" / "log.csv")
    assert {"pseudo", "weight"} <= set(log[0])
    assert log[0]["weight"] < log[-1]["weight"] == 1
    assert "pseudo" not in read_table(done / "teacher" / "log.csv")[0]
    student = (done / "student-1" / "best" / "model.safetensors").read_bytes()
    assert (done / "best" / "model.safetensors").read_bytes() == student
    assert load_predictor(done).spec.task == "instance"
    roles = (done / "split.csv").read_text().splitlines()
    assert {"a,a,unused,1", "d,d,train-unlabelled,1", "c,c,val,1"} <= set(roles)


def test_the_page_shows_what_the_student_was_told(done: Path, stores: list[Path]) -> None:
    page = (done / "report.html").read_text(encoding="utf-8")
    health = json.loads((done / "student-1" / "pseudo-labels.json").read_bytes())
    labels = PatchStore.open(stores[2]).read_labels(health["layer"], range(1, 5))
    pictures: dict[str, list[NDArray[np.uint8]]] = {}
    for data, caption in re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)">', page):
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            pictures.setdefault(caption, []).append(np.asarray(picture.convert("RGB")))

    assert "What student-1 was told" in page
    assert f"<td>{health['kept']}</td>" in page
    assert {"Curves of teacher", "Curves of student-1"} <= set(pictures)
    titles = re.findall(r"<h3>(\w+): 4 believed, 0 dropped, (\d+)% ignored</h3>", page)
    assert sorted(name for name, _ in titles) == ["d", "e", "f", "g"]
    shares = [int(share) for _, share in titles]
    assert shares == sorted(shares)
    for (name, share), image, believed, veiled in zip(
        titles, pictures["patch"], pictures["believed"], pictures["dropped and ignored"], strict=True
    ):
        own = labels["defg".index(name)]
        assert abs(100 * (own == -1).mean() - int(share)) < 1
        is_yellow = (believed != image).any(axis=2)
        assert (believed[is_yellow] == (255, 220, 0)).all()
        assert is_yellow.any()
        assert (own[is_yellow] > 0).all()
        # All are believed, so nothing but the veil is to be seen.
        assert ((veiled != image).any(axis=2) <= (own == -1)).all()


def test_more_rounds_repeat_nothing(done: Path, stores: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    before = times(done.parent)

    run("train", *stores, "-o", done, *SMALL, "--rounds=2")

    said = " ".join(capsys.readouterr().err.split())
    assert re.search(r"aji of student-1 0\.\d{4}, of teacher 0\.\d{4}", said)
    assert re.search(r"aji of student-2 0\.\d{4}, of student-1 0\.\d{4}", said)
    after = times(done.parent)
    assert after.items() >= before.items()
    more = sorted(after.keys() - before.keys())
    assert [name.rpartition("-")[2] for name in more if ".zarr" in name] == ["2/zarr.json"]
    assert "run/student-2/last/model.safetensors" in more


def test_what_would_not_be_learnt_is_not_labelled(done: Path, stores: list[Path]) -> None:
    note = done / "student-1" / "pseudo-labels.json"
    before, told = times(done.parent), note.read_bytes()

    with pytest.raises(DataError, match="remove the folders from student-1 on to train these again"):
        run("train", *stores, "-o", done, *SMALL, "--set=options.pseudo.min_score=0.6")
    run("train", *stores, "-o", done, *SMALL)

    assert times(done.parent) == before
    assert note.read_bytes() == told


def test_labels_of_a_student_go_when_others_take_their_place(
    done: Path, stores: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(done.parent, folder)
    own, student = [folder / path.name for path in stores], folder / "run" / "student-1"
    free = PatchStore.open(own[2])
    old = json.loads((student / "pseudo-labels.json").read_bytes())["layer"]

    # Of a student that is finished nobody needs them any more.
    free.remove_layer(old)
    run("train", *own, "-o", folder / "run", *SMALL)
    assert old not in free.layers

    # This one was killed when it had its labels and nothing else.
    for path in student.iterdir():
        if path.name != "pseudo-labels.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    run("train", *own, "-o", folder / "run", *SMALL, "--set=options.pseudo.min_score=0.6")
    new = json.loads((student / "pseudo-labels.json").read_bytes())["layer"]
    assert new != old
    assert {name for name in free.layers if name.endswith("student-1")} == {new}

    monkeypatch.setattr(object_labels, "PseudoLabeller", Stopped)
    with pytest.raises(StoppedError):
        run("train", *own, "-o", folder / "run", *SMALL, "--overwrite", "--steps=1")
    assert not [name for name in free.layers if name.endswith("student-1")]


def test_masks_of_patches_that_were_not_selected_are_never_read(
    tmp_path: Path, make_patch_store: MakePatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = discs(6, seed=5)
    places = [(SIDE * column, SIDE * row) for row in range(2) for column in range(3)]
    make_patch_store(tmp_path / "all.zarr", images, labels, kind="instances", parents=["s"] * 6, positions=places)
    (tmp_path / "selection.csv").write_text("patch,slide,x,y,rank\ns-32-0,s,32,0,1\ns-0-32,s,0,32,1\ns-0-0,s,0,0,2\n")
    read, seen = PatchStore.read_labels, set[int]()

    def guarded(self: PatchStore, layer: str, indices: Sequence[int]) -> NDArray[Any]:
        seen.update(np.asarray(indices).tolist() if layer == "truth" else [])
        return read(self, layer, indices)

    monkeypatch.setattr(PatchStore, "read_labels", guarded)
    run(
        "train", tmp_path / "all.zarr", "-o", tmp_path / "run", *SMALL, "--steps=4", "--val-fraction=0",
        f"--labelled={tmp_path / 'selection.csv'}",
    )  # fmt: skip

    assert seen == {1, 3}
    assert (tmp_path / "run" / "labelled.txt").read_text() == "s-0-32\ns-32-0\n"
    store = PatchStore.open(tmp_path / "all.zarr")
    (made,) = (name for name, info in store.layers.items() if info.made_by)
    assert store.is_labelled(made).tolist() == [True, False, True, False, True, True]


def test_the_teacher_alone_labels_as_in_its_run(
    done: Path, stores: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    learnt = json.loads((done / "student-1" / "pseudo-labels.json").read_bytes())["layer"]
    command = ["pseudo-label", *map(str, stores), "--checkpoint", str(done / "teacher"), "--device=cpu"]

    run(*command)
    said = capsys.readouterr().out
    layer = said.partition("labels/")[2].partition(":")[0]
    run(*command)

    assert "4 patches labelled" in said
    assert "16 objects kept" in said
    assert f"{layer}: already done" in capsys.readouterr().out
    free = PatchStore.open(stores[2])
    # Annotated patches, those that overlap them, and synthetic ones get none.
    assert free.is_labelled(layer).tolist() == [False, True, True, True, True]
    assert not [store for store in stores[:2] if layer in PatchStore.open(store).layers]
    np.testing.assert_array_equal(free.read_labels(layer, range(5)), free.read_labels(learnt, range(5)))
    assert free.layers[layer].made_by == layer == learnt.removesuffix("-student-1")
    assert free.layers[layer].made_at


def test_objects_are_believed_from_the_score_that_is_asked_for(
    done: Path, stores: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    free, counts = stores[2], []
    for model, *score in ((done / "teacher",), (done,), (done / "best", "--min-score=0.9999"), (done, "--overwrite")):
        run("pseudo-label", free, "--checkpoint", model, "--device=cpu", *score)
        said = capsys.readouterr().out
        # Without the annotated store nobody knows that the first patch overlaps one of its patches.
        assert "5 patches labelled" in said
        layer = said.partition("labels/")[2].partition(":")[0]
        counts.append((layer, int(said.partition(" objects kept")[0].rpartition(" ")[2])))

    (_, of_teacher), (_, of_student), (_, certain), again = counts
    assert of_teacher == 20 >= of_student > certain == 0
    assert again == counts[1]


@pytest.mark.parametrize("option", ["--layer=truth", "--val", "--export=masks"])
def test_what_means_nothing_to_a_model_of_objects_is_refused(done: Path, stores: list[Path], option: str) -> None:
    with pytest.raises(ConfigError, match=f"a model of objects knows nothing of {option.partition('=')[0]}"):
        run("pseudo-label", stores[2], "--checkpoint", done, option)


def test_annotated_stores_alone_leave_nothing_to_label(done: Path, stores: list[Path]) -> None:
    with pytest.raises(DataError, match="there is no patch left to label"):
        run("pseudo-label", *stores[:2], "--checkpoint", done)


class Knowing(PseudoLabeller):
    """A labeller that knows the truth."""

    truth: ClassVar[dict[bytes, NDArray[np.int32]]] = {}

    def label(self, images: Iterable[NDArray[np.uint8]], *, workers: int) -> Generator[PseudoObjects]:  # noqa: ARG002 - quick
        for image in images:
            labels = self.truth[image.tobytes()]
            scores, dropped = np.ones(labels.max(), np.float32), np.zeros_like(labels)
            yield PseudoObjects(labels=labels, scores=scores, dropped=dropped)


@pytest.mark.slow
def test_a_student_of_perfect_labels_is_as_good_as_its_teacher(
    tmp_path: Path, make_patch_store: MakePatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = discs(6, seed=3)
    make_patch_store(
        tmp_path / "real.zarr", images, labels, kind="instances", splits=["train", *["val"] * 5],
        parents=[f"real{n}" for n in range(6)],
    )  # fmt: skip
    images, labels = discs(8, seed=4)
    make_patch_store(tmp_path / "free.zarr", images, parents=[f"free{n}" for n in range(8)])
    monkeypatch.setattr(Knowing, "truth", {image.tobytes(): own for image, own in zip(images, labels, strict=True)})
    monkeypatch.setattr(object_labels, "PseudoLabeller", Knowing)

    run("train", tmp_path / "real.zarr", tmp_path / "free.zarr", "-o", tmp_path / "run", *SMALL, "--steps=60")

    teacher, student = (
        max(row["aji"] for row in read_table(tmp_path / "run" / name / "validation.csv"))
        for name in ("teacher", "student-1")
    )
    assert student >= teacher > 0.3


@pytest.mark.slow
def test_a_mask_rcnn_teaches_another_one_whose_nuclei_are_predicted(stores: list[Path], tmp_path: Path) -> None:
    run(
        "train", *stores, "-o", tmp_path / "run", "--method=label-efficient", "--arch=maskrcnn", "--crop-px=32",
        "--batch-size=5", "--steps=80", "--lr=0.002", "--device=cpu", "--num-workers=1", "--set=fit.optimiser=adamw",
        "--set=fit.validate_every=40", "--set=options.net.encoder=resnet18", "--set=options.net.width=16",
        "--set=options.net.proposals=[60, 60]", "--set=options.net.rois=30",
    )  # fmt: skip
    images, _ = discs(4, seed=7)
    mosaic = np.concatenate([np.concatenate(images[at : at + 2], axis=1) for at in (0, 2)])
    Image.fromarray(mosaic).save(tmp_path / "slide.png")

    run("predict", tmp_path / "slide.png", "--model", tmp_path / "run", "-o", tmp_path / "out", "--device=cpu",
        "--tissue=none", "--slide-mpp=0.5")  # fmt: skip

    health = json.loads((tmp_path / "run" / "student-1" / "pseudo-labels.json").read_bytes())
    assert 12 <= health["kept"] <= 20
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    # What was not asked for is as published.
    assert settings["fit"]["schedule"] == "step"
    assert settings["fit"]["clip_norm"] == 5
    card = load_predictor(tmp_path / "run").card
    assert card.head is not None
    assert card.head.kind == "centre"
    objects = json.loads((tmp_path / "out" / "slide" / "summary.json").read_text())["objects"]
    # Of sixteen.
    assert 14 <= objects <= 18


def test_scores_of_what_no_object_is_are_one_line_before_anything_is_learnt(stores: list[Path], tmp_path: Path) -> None:
    scores = "--set=options.pseudo.class_min_score.background=0.9"

    with pytest.raises(MethodError, match=r"no objects are of a class 'background'\. There are: \w+$") as caught:
        run("train", *stores, "-o", tmp_path / "run", *SMALL, scores)

    assert caught.value.exit_code == 2
    assert not (tmp_path / "run" / "teacher").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"stages": ["teacher"]}, "--stages: label-efficient runs all of its stages"),
        ({"weights": [1.0]}, "weights: label-efficient has shares of its own"),
        ({"unlabelled_batch_size": 4}, "unlabelled_batch_size: label-efficient has shares of its own"),
        ({"batch_size": 1}, "--batch-size: a batch holds given labels and pseudo-labels"),
    ],
)
def test_what_means_nothing_to_the_method_is_refused(tmp_path: Path, given: dict[str, object], told: str) -> None:
    config = TrainConfig.model_validate({"method": "label-efficient", **given})

    with pytest.raises(ConfigError) as caught:
        train_rounds.check_settings(TrainJob(stores=(tmp_path,), output=tmp_path, config=config))

    assert told in str(caught.value)
