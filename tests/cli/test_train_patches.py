"""From patches of which is known what they show to a map of an image, by the command line alone."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.patch_makers import COLOURS, SIDE, texture, write_patches
from wsiseg.cli import app
from wsiseg.errors import ConfigError, DataError
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks.pseudo_label import PseudoLabelJob

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRAIN = ("--method=mlps", "--backbone=mobilenetv3_small_050", "--epochs=2", "--batch-size=3", "--device=cpu")


def run(*arguments: str | Path) -> None:
    app.app([str(argument) for argument in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a store and a run."""
    folder = tmp_path_factory.mktemp("patches")
    run("ingest", write_patches(folder / "source"), "-o", folder / "patches.zarr", "--layout", "wsss4luad")
    run("train", folder / "patches.zarr", "-o", folder / "run", *TRAIN)
    return folder


@pytest.fixture
def work(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of it."""
    return shutil.copytree(trained, tmp_path / "work")


@pytest.mark.slow
def test_a_run_predicts_an_image_and_is_evaluated(work: Path, tmp_path: Path) -> None:
    image, mask = texture(0, 2, seed=7)
    (tmp_path / "truth").mkdir()
    Image.fromarray(image).save(tmp_path / "slide.png")
    Image.fromarray(mask).save(tmp_path / "truth" / "slide.png")

    run("predict", tmp_path / "slide.png", "--model", work / "run", "-o", tmp_path / "out", "--slide-mpp=1",
        "--tissue=none", "--label-png", "--device=cpu")  # fmt: skip
    with Image.open(tmp_path / "out" / "slide" / "labels.png") as found:
        classes = np.asarray(found)
    run("evaluate", tmp_path / "out", tmp_path / "truth", "--task=semantic", "--num-classes=3", "--ignore-index=3",
        "-o", tmp_path / "metrics.json")  # fmt: skip

    assert classes.shape == (SIDE, SIDE)
    assert set(np.unique(classes)) <= {0, 1, 2, 254}
    np.testing.assert_array_equal(classes == 254, mask == 3)
    assert "miou" in (tmp_path / "metrics.json").read_text().lower()
    summary = json.loads((tmp_path / "out" / "slide" / "summary.json").read_text())
    assert "normal" in json.dumps(summary)


@pytest.mark.slow
def test_pseudo_labels_alone_are_those_of_the_training(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = work / "patches.zarr"
    made = sorted(name for name in PatchStore.open(store).layers if name != "labels")
    before = [PatchStore.open(store).read_labels(name, range(6)) for name in made]
    command = ("pseudo-label", store, "--checkpoint", work / "run" / "classify", "--device=cpu")
    capsys.readouterr()

    run(*command)
    assert "6 patches labelled" in (said := capsys.readouterr().out)
    assert "already done" in said
    for name in made:
        shutil.rmtree(store / "labels" / name)
    run(*command)
    assert "6 of them new" in capsys.readouterr().out
    run(*command, "--overwrite")
    assert "6 of them new" in capsys.readouterr().out

    after = PatchStore.open(store)
    assert sorted(name for name in after.layers if name != "labels") == made
    np.testing.assert_array_equal([after.read_labels(name, range(6)) for name in made], before)
    shown = after.read_image_labels("labels", range(6))
    for masks in before:
        for mask, present in zip(masks, shown, strict=True):
            assert {*np.unique(mask)} <= {*np.flatnonzero(present), 255}
            assert (mask[:8, :8] == 255).all()


def test_all_stores_that_are_named_are_labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[PseudoLabelJob] = []

    def note(job: PseudoLabelJob, *_: object) -> str:
        asked.append(job)
        return ""

    monkeypatch.setattr("wsiseg.tasks.pseudo_label.pseudo_label", note)

    run("pseudo-label", "a.zarr", "b.zarr", "--checkpoint", "run")

    assert asked == [PseudoLabelJob(stores=(Path("a.zarr"), Path("b.zarr")), checkpoint=Path("run"))]


@pytest.mark.slow
def test_only_a_run_that_labels_can_label(work: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run of wsiseg train"):
        run("pseudo-label", work / "patches.zarr", "--checkpoint", tmp_path)
    config = json.loads((work / "run" / "config.json").read_text())
    (work / "run" / "config.json").write_text(json.dumps({**config, "method": "supervised", "options": {}}))
    with pytest.raises(ConfigError, match="supervised makes no pseudo-labels"):
        run("pseudo-label", work / "patches.zarr", "--checkpoint", work / "run" / "classify" / "last")


def test_textures_are_what_their_masks_say() -> None:
    image, mask = texture(0, 1, seed=0)

    nearest = np.abs(image.astype(np.int64)[:, :, None] - COLOURS).sum(axis=3).argmin(axis=2)
    assert (nearest == mask)[mask < 3].mean() > 0.9


def pictures(page: str) -> dict[str, list[NDArray[np.uint8]]]:
    """Return the pictures of a page by their captions."""
    found: dict[str, list[NDArray[np.uint8]]] = {}
    for data, caption in re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)">', page):
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            found.setdefault(caption, []).append(np.asarray(picture.convert("RGB")))
    return found


@pytest.mark.slow
def test_the_page_shows_what_each_stage_learnt(trained: Path) -> None:
    page = (trained / "run" / "report.html").read_text(encoding="utf-8")
    found = pictures(page)

    assert "://" not in page
    layers = [name for name in json.loads((trained / "run" / "pseudo-labels.json").read_text()) if name]
    counts = {caption: len(shown) for caption, shown in found.items()}
    assert counts == {
        "Curves of classify": 1,
        "Curves of segment": 1,
        "patch": 6,
        "classify: activation": 6,
        **dict.fromkeys(layers, 4),
        "segment: prediction": 6,
        "mask": 2,
    }
    # What is ignored in a mask stays as it is.
    for image, covered in zip(found["patch"][-2:], found["mask"], strict=True):
        assert (image[:12, :12] == covered[:12, :12]).all()
        assert (image[12:] != covered[12:]).any(axis=2).all()
    for told in ("Scores on 2 of 2 validation patches", "IoU normal", "tumour, stroma", "Classes of the pseudo-labels"):
        assert told in page


@pytest.mark.slow
def test_pseudo_labels_of_validation_patches_are_audited(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = work / "patches.zarr"
    masks = ("--export", tmp_path / "masks")
    run("pseudo-label", store, "--checkpoint", work / "run", "--val", "--device=cpu", *masks)
    assert "8 patches labelled" in (said := capsys.readouterr().out)
    assert "2 of them new" in said
    assert "18 new masks as PNG" in said
    folders = sorted((tmp_path / "masks").glob("PM_*"))
    assert len(folders) == 3
    assert all(min(path.stem for path in folder.iterdir()) == "0-0-0-[1, 0, 0]" for folder in folders)

    run("audit", store, "-o", tmp_path / "audit")

    figures = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert figures["truth"] == "labels"
    assert len(figures["layers"]) == len(figures["agreement"]) == 3
    assert all(one["patches"] == 8 and one["truth"]["patches"] == 2 for one in figures["layers"].values())
    made, layers = PatchStore.open(store), list(figures["layers"])
    for name, one in figures["layers"].items():
        # Nothing tells of training patches what their confidence is worth.
        assert made.is_labelled(f"{name}-confidence").tolist() == (made.splits == "val").tolist()
        assert one["confidence"]["accuracy"] == pytest.approx(one["truth"]["accuracy"])
        assert [row["share"] for row in one["confidence"]["bins"][:5]] == [0] * 5
    capsys.readouterr()
    run("pseudo-label", store, "--checkpoint", work / "run", "--val", "--device=cpu")
    assert "already done" in capsys.readouterr().out
    shutil.rmtree(store / "labels" / f"{layers[0]}-confidence")
    run("pseudo-label", store, "--checkpoint", work / "run", "--val", "--device=cpu")
    assert "2 of them new" in capsys.readouterr().out
