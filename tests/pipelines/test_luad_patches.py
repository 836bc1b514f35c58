"""Patches that are cut for weak training hide their masks, say what they show, and are split by image."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from wsiseg.ingestion import IngestSettings
from wsiseg.labels import IGNORE
from wsiseg.rasters import read_labels
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks.ingest import ingest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

SIDE = 32


@pytest.fixture(scope="module")
def script(scripts: Callable[..., AbstractContextManager[dict[str, Any]]]) -> Iterator[Any]:
    """Return the script."""
    with scripts("experiments", "luad_patches") as found:
        yield found["luad_patches"]


@pytest.fixture
def run(script: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:  # noqa: ANN401 - a script
    """Return a function that runs the script."""

    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["luad_patches.py", *map(str, arguments)])
        script.main()

    return call


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return nine images, of which three each show mostly tumour, stroma and normal lung."""
    folder = tmp_path / "src"
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rng = np.random.default_rng(0)
    for number in range(9):
        height, width = 40 + 9 * number, 75 - 5 * number
        mask = np.full((height, width), number % 3, np.uint8)
        mask[: height // 3] = 3
        mask[-6:, -6:] = (number + 1) % 3
        Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8)).save(
            folder / "images" / f"{number:02}.png"
        )
        Image.fromarray(mask).save(folder / "masks" / f"{number:02}.png")
    return folder


def test_names_say_what_the_masks_show(tmp_path: Path, source: Path, run: Callable[..., None]) -> None:
    run(source, "-o", tmp_path / "out", "--patch-size", SIDE, "--stride", 16, "--folds", 3)

    files = sorted((tmp_path / "out" / "weak" / "train").iterdir())
    assert len(files) > 20
    for file in files:
        name, _, label = file.stem.partition("-")
        stem, x, y = name.split("_")
        there = np.s_[int(y) : int(y) + SIDE, int(x) : int(x) + SIDE]
        image = np.asarray(Image.open(source / "images" / f"{stem}.png"))[there]
        mask = read_labels(source / "masks" / f"{stem}.png")[there]
        shares = [(mask == index).sum() / SIDE**2 for index in range(3)]
        np.testing.assert_array_equal(np.asarray(Image.open(file))[: image.shape[0], : image.shape[1]], image)
        assert label == "[" + " ".join("1" if share >= 0.05 else "0" for share in shares) + "]"
        assert "1" in label


def test_every_pixel_of_validation_is_scored_once(tmp_path: Path, source: Path, run: Callable[..., None]) -> None:
    run(source, "-o", tmp_path / "out", "--patch-size", SIDE, "--folds", 3)

    folder = tmp_path / "out" / "weak" / "val"
    images = sorted(file.name for file in (folder / "img").iterdir())
    assert images == sorted(file.name for file in (folder / "mask").iterdir())
    stems = {name.split("_")[0] for name in images}
    cut = [read_labels(folder / "mask" / name) for name in images]
    whole = [read_labels(source / "masks" / f"{stem}.png") for stem in stems]
    for index in range(3):
        assert sum((mask == index).sum() for mask in cut) == sum((mask == index).sum() for mask in whole)


def test_images_to_test_on_are_whole(tmp_path: Path, source: Path, run: Callable[..., None]) -> None:
    run(source, "-o", tmp_path / "out", "--patch-size", SIDE, "--folds", 3)

    for file in (tmp_path / "out" / "test" / "images").iterdir():
        np.testing.assert_array_equal(
            np.asarray(Image.open(file)), np.asarray(Image.open(source / "images" / file.name))
        )
        mask, labels = (
            read_labels(folder / file.name) for folder in (source / "masks", tmp_path / "out" / "test" / "labels")
        )
        np.testing.assert_array_equal(np.where(mask == 3, IGNORE, mask), labels)


def test_the_network_that_sees_masks_sees_the_same_patches(
    tmp_path: Path, source: Path, run: Callable[..., None]
) -> None:
    run(source, "-o", tmp_path / "out", "--patch-size", SIDE, "--folds", 3)

    weak, full = tmp_path / "out" / "weak", tmp_path / "out" / "full"
    rows = dict(line.split(",") for line in (full / "split.csv").read_text().splitlines()[1:])
    trained = {file.name.partition("-[")[0] + ".png": file for file in (weak / "train").iterdir()}
    assert {name for name, split in rows.items() if split == "train"} == set(trained)
    assert {name for name, split in rows.items() if split == "val"} == {
        file.name for file in (weak / "val/img").iterdir()
    }
    for name, file in trained.items():
        np.testing.assert_array_equal(np.asarray(Image.open(file)), np.asarray(Image.open(full / "images" / name)))
        labels = read_labels(full / "labels" / name)
        shares = np.bincount(labels.ravel(), minlength=3)[:3] / labels.size
        assert file.stem.endswith("[" + " ".join(str(int(share >= 0.05)) for share in shares) + "]")


def test_each_image_is_tested_on_once_and_every_fold_tests_every_class(
    tmp_path: Path, source: Path, run: Callable[..., None]
) -> None:
    tested: list[str] = []
    for fold in range(3):
        run(source, "-o", tmp_path / str(fold), "--patch-size", SIDE, "--folds", 3, "--fold", fold)
        parts = {
            split: {file.stem.split("_")[0] for file in (tmp_path / str(fold) / folder).iterdir()}
            for split, folder in (("train", "weak/train"), ("val", "weak/val/img"), ("test", "test/images"))
        }
        assert not parts["train"] & parts["val"]
        assert not (parts["train"] | parts["val"]) & parts["test"]
        assert {int(stem) % 3 for stem in parts["test"]} == {0, 1, 2}
        tested += sorted(parts["test"])

    assert sorted(tested) == [f"{number:02}" for number in range(9)]


def test_the_seed_decides(tmp_path: Path, source: Path, run: Callable[..., None]) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(source, "-o", tmp_path / name, "--patch-size", SIDE, "--seed", seed)
    files = {
        name: sorted(file.relative_to(tmp_path / name) for file in (tmp_path / name).rglob("*.png")) for name in "abc"
    }

    assert files["a"] == files["b"] != files["c"]


def test_the_patches_can_be_ingested(tmp_path: Path, source: Path, run: Callable[..., None]) -> None:
    run(source, "-o", tmp_path / "out", "--patch-size", SIDE, "--folds", 3)
    full = {
        "labels_as": "classes", "classes": ["tumour", "stroma", "normal"], "mpp": 1.0,
        "split": str(tmp_path / "out/full/split.csv"),
    }  # fmt: skip

    ingest(tmp_path / "out/weak", tmp_path / "weak.zarr", IngestSettings.model_validate({"layout": "wsss4luad"}))
    ingest(tmp_path / "out/full", tmp_path / "full.zarr", IngestSettings.model_validate(full))

    weak, whole = PatchStore.open(tmp_path / "weak.zarr"), PatchStore.open(tmp_path / "full.zarr")
    train = np.flatnonzero(weak.splits == "train")
    assert weak.image_shape == (SIDE, SIDE)
    assert set(np.unique(weak.read_image_labels("labels", train))) == {0, 1}
    assert weak.is_labelled("labels").tolist() == (weak.splits == "val").tolist()
    assert sorted(weak.splits) == sorted(whole.splits)
    val = np.flatnonzero(whole.splits == "val")
    assert set(np.unique(whole.read_labels("labels", val))) == {0, 1, 2, IGNORE}
    groups = {split: set(weak.groups[weak.splits == split]) for split in ("train", "val")}
    assert not groups["train"] & groups["val"]


def test_wrong_options_are_told(tmp_path: Path, source: Path, run: Callable[..., None]) -> None:
    for arguments in (("--fold", 5), ("--folds", 2), ("--folds", 10), ("--stride", 0)):
        with pytest.raises(SystemExit):
            run(source, "-o", tmp_path / "out", *arguments)
    with pytest.raises(SystemExit):
        run(source, "-o", tmp_path)
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(source / "masks" / "00.png")
    with pytest.raises(SystemExit):
        run(source, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()
