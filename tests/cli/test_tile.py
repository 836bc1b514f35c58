"""`wsiseg tile` and `wsiseg ingest`: whatever the input, one clear line and the promised exit code."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import fsspec
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.slide_makers import Layout, write_slide
from wsiseg.cli import app
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tiling.reading import open_patches

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Result:
    """What a run of the command gave."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Return a function that runs the command in this process."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["wsiseg", "--progress", "plain", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            app.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(int(exit_info.value.code or 0), captured.out, captured.err)

    return call


def good_slide(path: Path) -> Path:
    write_slide(path, Layout())
    return path


def test_a_slide_becomes_a_store(tmp_path: Path, run: Callable[..., Result]) -> None:
    good_slide(tmp_path / "a slide, größer.tiff")

    result = run("tile", tmp_path / "a slide, größer.tiff", "-o", tmp_path / "out", "--tissue", "none", "--mpp", 1)

    assert result.code == 0
    assert "a slide, größer: 1 patch, " in result.err
    assert result.out.startswith("1 done: 1 patch, ")
    assert len(PatchStore.open(tmp_path / "out" / "a slide, größer.zarr")) == 1
    again = run("tile", tmp_path / "a slide, größer.tiff", "-o", tmp_path / "out", "--tissue", "none", "--mpp", 1)
    assert again.code == 0
    assert again.out.startswith("1 already done")


def test_all_options_reach_the_settings(tmp_path: Path, run: Callable[..., Result]) -> None:
    (tmp_path / "in").mkdir()
    good_slide(tmp_path / "in" / "a.tiff")
    (tmp_path / "c.toml").write_text('patch_size = 32\n[tissue]\nmpp = 4.0\nmethod = "otsu"\n')

    result = run(
        "tile", "--slide-dir", tmp_path / "in", "-o", tmp_path / "out", "--mpp", "native", "--overlap", "25%",
        "--min-tissue", 0, "--codec", "jpeg", "--limit", 5, "--num-workers", 0, "--config", tmp_path / "c.toml",
        "--tissue", "none", "--set", "jpeg_quality=70", "--set", "tissue.min_area_mm2=0.5", "--slide-mpp", 0.4,
        "--reader", "tiff", "--num-shards", 1, "--shard-index", 0, "--fail-fast", "--overwrite",
    )  # fmt: skip

    assert result.code == 0
    meta = PatchStore.open(tmp_path / "out" / "a.zarr").meta
    assert meta.grid is not None
    assert (meta.grid.patch_px, meta.grid.stride_px, meta.mpp, meta.codec) == (32, 24, 0.4, "jpeg")
    assert meta.config["tissue"] == {"method": "none", "mpp": 4.0, "min_area_mm2": 0.5, "max_hole_mm2": 0.02}
    assert meta.config["jpeg_quality"] == 70
    assert len(PatchStore.open(tmp_path / "out" / "a.zarr")) == 5


def test_a_dry_run_tells_the_plan(tmp_path: Path, run: Callable[..., Result]) -> None:
    result = run("tile", good_slide(tmp_path / "a.tiff"), "-o", tmp_path / "out", "--tissue", "none", "--dry-run")

    assert result.code == 0
    assert result.out.startswith("1 planned: 4 patches")
    assert not (tmp_path / "out").exists()


def test_some_failures_are_three_and_all_are_five(tmp_path: Path, run: Callable[..., Result]) -> None:
    good_slide(tmp_path / "good.tiff")
    (tmp_path / "bad.svs").write_text("not a slide")
    (tmp_path / "empty.svs").touch()
    some = ("-o", tmp_path / "out", "--tissue", "none")

    result = run("tile", tmp_path, *some)

    assert result.code == 3
    assert "2 of 3 slides failed: bad, empty" in result.err
    assert "bad: failed" in result.err
    assert run("tile", tmp_path / "bad.svs", tmp_path / "empty.svs", *some).code == 5
    assert run("tile", tmp_path / "good.tiff", tmp_path / "gone.svs", *some).code == 3


def write_gray(path: Path) -> None:
    tifffile.imwrite(path, np.full((300, 300), 90, np.uint8), tile=(64, 64))


def write_deep(path: Path) -> None:
    tifffile.imwrite(path, np.full((300, 300, 3), 900, np.uint16), tile=(64, 64), photometric="rgb")


def cut_at(share: float) -> Callable[[Path, Path], None]:
    def write(path: Path, svs: Path) -> None:
        data = svs.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return write


BAD: dict[str, Callable[[Path, Path], object]] = {
    "empty": lambda path, _: path.touch(),
    "text": lambda path, _: path.write_text("label,notes\nslide 1,lost"),
    "pointer": lambda path, _: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
    "cut at 10 %": cut_at(0.1),
    "cut at 50 %": cut_at(0.5),
    "cut at 90 %": cut_at(0.9),
    "no mpp": lambda path, _: write_slide(path, Layout(mpp=None)),
    "absurd mpp": lambda path, _: write_slide(path, Layout(mpp=900.0)),
    "16 bit": lambda path, _: write_deep(path),
    "grey without mpp": lambda path, _: write_gray(path),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_slides_are_five(tmp_path: Path, cmu_svs: Path, run: Callable[..., Result], kind: str) -> None:
    BAD[kind](tmp_path / "bad.svs", cmu_svs)

    result = run("tile", tmp_path / "bad.svs", "-o", tmp_path / "out", "--tissue", "none")

    assert result.code == 5
    errors = [line for line in result.err.splitlines() if line.startswith("Error")]
    assert len(errors) == 1
    assert "bad.svs" in errors[0]
    assert not (tmp_path / "out" / "bad.zarr").exists()


@pytest.mark.parametrize("name", ["unopenable.tiff", "unreadable.svs"])
def test_odd_slides_are_five(tmp_path: Path, data_dir: Path, run: Callable[..., Result], name: str) -> None:
    result = run(
        "tile", data_dir / "slides" / "odd" / name, "-o", tmp_path, "--tissue", "none", "--slide-mpp", 0.5, "--mpp", 0.5
    )

    assert result.code == 5


@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("tissue", ["none", "otsu"])
def test_tiny_images_are_no_error(tmp_path: Path, run: Callable[..., Result], size: int, tissue: str) -> None:
    Image.new("RGB", (size, size), (150, 90, 160)).save(tmp_path / "tiny.png")

    result = run("tile", tmp_path / "tiny.png", "-o", tmp_path, "--slide-mpp", 0.5, "--tissue", tissue)

    assert result.code == 0
    assert PatchStore.open(tmp_path / "tiny.zarr").extents.tolist() in ([[size, size]], [])


def test_grey_slides_are_read(tmp_path: Path, run: Callable[..., Result]) -> None:
    write_gray(tmp_path / "grey.tiff")

    result = run("tile", tmp_path / "grey.tiff", "-o", tmp_path, "--tissue", "none", "--slide-mpp", 0.5)

    assert result.code == 0
    assert (PatchStore.open(tmp_path / "grey.zarr").read_images([0])[0, :200, :200] == 90).all()


def test_nothing_to_do_is_four(tmp_path: Path, run: Callable[..., Result]) -> None:
    (tmp_path / "empty").mkdir()

    for arguments in ([tmp_path / "gone.svs"], [tmp_path / "empty"], [tmp_path / "*.svs"], []):
        assert run("tile", *arguments, "-o", tmp_path / "out").code == 4
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--mpp", "coarse"),
        ("--overlap", "300"),
        ("--min-tissue", "2"),
        ("--codec", "webp"),
        ("--set", "tisue.mpp=3"),
        ("--set", "nonsense"),
        ("--num-shards", "2"),
        ("--config", "gone.toml"),
        ("--manifest", "gone.csv"),
        ("--num-workers", "-1"),
        ("--slide-mpp", "-1"),
        ("--reader", "eyes"),
    ],
)
def test_wrong_options_are_two(tmp_path: Path, run: Callable[..., Result], arguments: tuple[str, ...]) -> None:
    result = run("tile", good_slide(tmp_path / "a.tiff"), "-o", tmp_path / "out", *arguments)

    assert result.code == 2
    assert not (tmp_path / "out" / "a.zarr").exists()


@pytest.mark.parametrize("mpp", [0, "nan", "inf", -1])
def test_a_pixel_size_that_cannot_be_is_refused_before_the_first_slide(
    tmp_path: Path, run: Callable[..., Result], mpp: object
) -> None:
    slides = [good_slide(tmp_path / f"{name}.tiff") for name in "ab"]

    result = run("tile", *slides, "-o", tmp_path / "out", "--slide-mpp", mpp)

    assert result.code == 2
    assert "--slide-mpp" in result.err
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_is_told(tmp_path: Path, run: Callable[..., Result]) -> None:
    (tmp_path / "file").touch()

    result = run("tile", good_slide(tmp_path / "a.tiff"), "-o", tmp_path / "file")

    assert result.code == 5
    assert "cannot be the output folder" in result.err


def make_images(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a", (40, 30)), ("b", (20, 50))):
        Image.fromarray(rng.integers(0, 255, (*size, 3)).astype(np.uint8)).save(folder / "images" / f"{name}.png")
        Image.fromarray(rng.integers(0, 3, size).astype(np.uint8)).save(folder / "labels" / f"{name}.png")
    return folder


def test_images_become_a_store(tmp_path: Path, run: Callable[..., Result]) -> None:
    source = make_images(tmp_path / "src")
    arguments = ["ingest", source, "-o", tmp_path / "s.zarr", "--mpp", 0.5, "--labels-as", "classes"]

    result = run(*arguments, "--classes", "background, gland,lumen", "--split", "train")

    assert result.code == 0
    assert result.out.startswith("2 images (2 labelled), 2 patches")
    store = PatchStore.open(tmp_path / "s.zarr")
    assert store.layers["labels"].labels.names == ("background", "gland", "lumen")
    assert "already done" in run(*arguments, "--classes", "background, gland,lumen", "--split", "train").out
    assert run(*arguments).code == 5
    assert run(*arguments, "--overwrite").code == 0


def test_images_are_labelled_by_a_table(tmp_path: Path, run: Callable[..., Result]) -> None:
    source = make_images(tmp_path / "src")
    (tmp_path / "labels.csv").write_text("image,tumour,stroma,split\na,1,0,train\nb.png,,1,val\n")
    table = tmp_path / "labels.csv"

    result = run(
        "ingest", source, "-o", tmp_path / "s.zarr", "--mpp", 0.5, "--labels", table, "--split", table,
        "--labels-as", "instances", "--no-white",
    )  # fmt: skip

    assert result.code == 0
    assert result.out.startswith("2 images (2 labelled, 2 with image labels), 2 patches")
    store = PatchStore.open(tmp_path / "s.zarr")
    assert store.splits.tolist() == ["train", "val"]
    assert store.image_layers["labels"].white is None
    assert store.read_image_labels("labels", [0, 1]).tolist() == [[1, 0], [255, 1]]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "mpp"),
        (("--layout", "wsss4luad"), 4, "holds no images"),
        (("--layout", "bcss-wsss", "--classes", "a,b"), 2, "leave out classes"),
        (("--mpp", 0.5, "--labels-as", "classes", "--labels", "gone.csv"), 2, "not a readable table"),
        (("--mpp", 0.5, "--labels-as", "classes", "--classes", "a,a"), 2, "must be distinct"),
        (("--mpp", 0.5, "--labels-as", "classes", "--set", "white=often"), 2, "white"),
        (("--mpp", 0.5, "--labels-as", "classes", "--set", "layout=[1]"), 2, "layout"),
        (("--mpp", 0.5), 2, "--labels-as"),
        (("--mpp", 0.5, "--labels-as", "classes", "--classes", "a,b"), 5, "holds the class 2"),
        (("--mpp", 0.5, "--layout", "coco"), 2, "known: images"),
        (("--mpp", 0.5, "--overlap", 3), 2, "needs patch_size"),
        (("--mpp", 0.5, "--labels-as", "instances", "--split", "gone.csv"), 2, "neither a split nor"),
    ],
)
def test_wrong_ingests_are_told(
    tmp_path: Path, run: Callable[..., Result], arguments: tuple[object, ...], code: int, told: str
) -> None:
    result = run("ingest", make_images(tmp_path / "src"), "-o", tmp_path / "s.zarr", *arguments)

    assert result.code == code
    assert told in result.err
    assert not (tmp_path / "s.zarr").exists()


def test_nothing_to_ingest_is_four(tmp_path: Path, run: Callable[..., Result]) -> None:
    assert run("ingest", tmp_path / "gone", "-o", tmp_path / "s.zarr", "--mpp", 1).code == 4
    assert run("ingest", tmp_path, "-o", tmp_path / "s.zarr", "--mpp", 1).code == 4


def test_a_stop_is_seventy_five(tmp_path: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1")

    result = run("tile", good_slide(tmp_path / "a.tiff"), "-o", tmp_path / "out")

    assert result.code == 75
    assert "Run again to go on" in result.err


def test_without_a_pixel_size_the_slides_own_pixels_are_cut(tmp_path: Path, run: Callable[..., Result]) -> None:
    write_slide(tmp_path / "a.tiff", Layout(mpp=None))

    result = run("tile", tmp_path / "a.tiff", "-o", tmp_path, "--mpp", "native", "--tissue", "none", "--patch-size", 64)

    assert result.code == 0
    store = PatchStore.open(tmp_path / "a.zarr")
    assert (store.mpp, store.meta.codec, len(store)) == (None, "copy", 30)


def test_a_remote_slide_is_cut_like_a_local_one(tmp_path: Path, run: Callable[..., Result]) -> None:
    write_slide(tmp_path / "a.svs", Layout(family="aperio", mpp=0.5))
    fsspec.filesystem("memory").pipe("/slides/a.svs", (tmp_path / "a.svs").read_bytes())
    settings = ("--codec", "none", "--patch-size", 64, "--min-tissue", 0)

    for slide, folder in ((tmp_path / "a.svs", "near"), ("memory://slides/a.svs", "far")):
        assert run("tile", slide, "-o", tmp_path / folder, *settings).code == 0
    again = run("tile", "memory://slides/a.svs", "-o", tmp_path / "far", *settings)

    assert "1 already done" in again.out
    with open_patches([tmp_path / "near"]) as near, open_patches([tmp_path / "far"]) as far:
        assert (near.stores[0].meta.slide, far.stores[0].meta.slide) != (None, None)
        assert far.stores[0].meta.slide.path == "memory://slides/a.svs"  # type: ignore[union-attr] # checked above
        np.testing.assert_array_equal(far.read_images(range(len(far))), near.read_images(range(len(near))))
