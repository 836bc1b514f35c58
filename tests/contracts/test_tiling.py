"""Whatever the codec, patches hold the pixels of the slide; stores are complete or not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import zarr
from zarr.registry import register_codec

from tests.slide_makers import Layout, write_slide
from wsiseg.errors import SlideError, SomeFailedError, StoppedError, StoreError, UnreadableError
from wsiseg.geometry import Canvas, Size, Window
from wsiseg.lock import locked
from wsiseg.progress import SILENT
from wsiseg.slides.array import ArraySlide
from wsiseg.slides.open import open_slide
from wsiseg.slides.reading import read_window
from wsiseg.stopping import Stop
from wsiseg.stores.jpeg_codec import JpegCodec
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks.tile import TileConfig, TileJob, tile
from wsiseg.tiling.plan import plan_patches
from wsiseg.tiling.reading import open_patches
from wsiseg.tiling.writing import Overview, SlideWork, write_patches
from wsiseg.tissue import TissueMask, TissueSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.tasks.tile_report import TileReport

EVERYTHING = TissueSettings(method="none")
LAYOUT = Layout(shared_tables=True)
ALL = TissueMask.everything(LAYOUT.size)


def settings(**changes: Any) -> TileConfig:  # noqa: ANN401 - any of the settings
    values = {"mpp": "native", "patch_size": 64, "tissue": EVERYTHING, "min_tissue": 0.0} | changes
    return TileConfig.model_validate(values)


def cut(path: Path, folder: Path, wanted: TileConfig, **changes: Any) -> TileReport:  # noqa: ANN401 - any of the job
    report = tile(replace(TileJob(inputs=(str(path),), output=folder, settings=wanted, num_workers=2), **changes))
    report.raise_failures()
    return report


def expected(path: Path, store: PatchStore, *, mpp: float | None = None) -> NDArray[np.uint8]:
    """Return the patches as single reads give them."""
    size = store.patch_px
    with open_slide(path) as slide:
        canvas = Canvas.over(slide.info.size, slide_mpp=0.5, mpp=mpp)
        return np.stack([read_window(slide, canvas, Window(x, y, size, size)) for x, y in store.windows.tolist()])


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = tmp_path / "slide.tiff"
    write_slide(path, LAYOUT)
    return path


@pytest.mark.parametrize("codec", ["zstd", "copy", "none", "auto"])
@pytest.mark.parametrize("photometric", ["ycbcr", "rgb"])
def test_patches_hold_the_slides_pixels(tmp_path: Path, codec: str, photometric: Any) -> None:  # noqa: ANN401 - literal
    path = tmp_path / "slide.tiff"
    write_slide(path, replace(LAYOUT, photometric=photometric, missing=(8, 12)))

    cut(path, tmp_path / "out", settings(codec=codec))

    with open_patches([tmp_path / "out"]) as patches:
        store = patches.stores[0]
        np.testing.assert_array_equal(patches.read_images(range(30)), expected(path, store))
    assert store.meta.codec == ("copy" if codec == "auto" else codec)
    assert len(patches) == 6 * 5
    assert patches.mpp == pytest.approx(0.5)
    assert patches.positions[7].tolist() == [64, 64]
    assert patches.extents[-1].tolist() == [333 - 5 * 64, 287 - 4 * 64]
    assert set(patches.parents) == {"slide"}


def test_lossy_patches_are_close(tmp_path: Path, slide: Path) -> None:
    cut(slide, tmp_path / "out", settings(codec="jpeg"))

    store = PatchStore.open(tmp_path / "out" / "slide.zarr")
    apart = np.abs(store.read_images(range(30)).astype(int) - expected(slide, store))
    assert apart.mean() < 6


def test_plain_zarr_reads_copied_tiles(tmp_path: Path, slide: Path) -> None:
    register_codec("imagecodecs_jpeg", JpegCodec)
    cut(slide, tmp_path / "out", settings(codec="copy"))

    images = np.asarray(zarr.open_array(tmp_path / "out" / "slide.zarr" / "images", mode="r"))

    store = PatchStore.open(tmp_path / "out" / "slide.zarr")
    whole = (store.extents == 64).all(axis=1)
    np.testing.assert_array_equal(images[whole], expected(slide, store)[whole])


def test_copied_tiles_are_the_files_own_bits(tmp_path: Path, slide: Path) -> None:
    cut(slide, tmp_path / "out", settings(codec="copy"))

    with open_slide(slide, reader="tiff") as opened:
        tile_bytes = opened.raw_tile(0, 3, 2).data  # type: ignore[attr-defined] # the TIFF reader's own
    shard = tmp_path / "out" / "slide.zarr" / "images" / "c" / "0" / "0" / "0" / "0"
    assert tile_bytes in shard.read_bytes()


@pytest.mark.parametrize("codec", ["zstd", "copy", "none"])
def test_levels_serve_their_own_resolution(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "slide.tiff"
    write_slide(path, replace(LAYOUT, size=Size(512, 384), levels=(1, 2)))

    cut(path, tmp_path / "out", settings(codec=codec, mpp=1.0))

    with open_patches([tmp_path / "out" / "slide.zarr"]) as patches:
        images = patches.read_images(range(len(patches)))
    assert patches.positions[5].tolist() == [128, 128]
    np.testing.assert_array_equal(images, expected(path, patches.stores[0], mpp=1.0))


@pytest.mark.parametrize("codec", ["zstd", "none"])
def test_any_resolution_and_overlap_is_resampled(tmp_path: Path, slide: Path, codec: str) -> None:
    cut(slide, tmp_path / "out", settings(codec=codec, mpp=0.83, patch_size=50, overlap="25%"))

    with open_patches([tmp_path / "out"]) as patches, patches.stores[0] as store:
        images = patches.read_images(range(len(patches)))
    assert store.meta.grid is not None
    assert store.meta.grid.stride_px == 38
    np.testing.assert_array_equal(patches.positions, np.rint(store.windows * (0.83 / 0.5)))
    np.testing.assert_array_equal(images, expected(slide, store, mpp=0.83))


@pytest.mark.parametrize(
    ("layout", "changes", "why"),
    [
        (LAYOUT, {"patch_size": 128}, "its tiles are 64x64, not 128x128"),
        (LAYOUT, {"mpp": 0.55}, "no level has the resolution"),
        (LAYOUT, {"overlap": 16}, "overlap"),
        (replace(LAYOUT, compression="lzw", shared_tables=False, photometric="rgb"), {}, "lzw, not jpeg"),
        (replace(LAYOUT, photometric="gray"), {}, "no colour JPEG"),
    ],
)
def test_tiles_are_not_copied_where_patches_are_none(
    tmp_path: Path, layout: Layout, changes: dict[str, Any], why: str
) -> None:
    write_slide(tmp_path / "s.tiff", layout)

    with open_slide(tmp_path / "s.tiff") as opened:
        assert plan_patches(opened, settings(**changes), ALL).codec == "zstd"
        with pytest.raises(SlideError, match=why):
            plan_patches(opened, settings(codec="copy", **changes), ALL)


def test_other_readers_give_no_tiles(tmp_path: Path, cmu_svs: Path) -> None:
    with open_slide(cmu_svs, reader="openslide") as opened, pytest.raises(SlideError, match="decoded pixels only"):
        plan_patches(opened, settings(codec="copy", patch_size=240), ALL)
    cut(cmu_svs, tmp_path, settings(codec="copy", patch_size=240, limit=7))

    store = PatchStore.open(tmp_path / f"{cmu_svs.stem}.zarr")
    assert len(store) == 7
    np.testing.assert_array_equal(store.read_images(range(7)), expected(cmu_svs, store))


def test_tissue_chooses_the_patches(tmp_path: Path, cmu_svs: Path) -> None:
    report = cut(cmu_svs, tmp_path, TileConfig(mpp=1.0, patch_size=128))

    store = PatchStore.open(tmp_path / f"{cmu_svs.stem}.zarr")
    assert 30 < len(store) < 60
    assert (store.tissue >= 0.5).all()
    assert (store.read_images(range(len(store))).mean(axis=(1, 2, 3)) < 235).all()
    assert store.tissue_mask().shape == store.thumbnail().shape[:2]
    assert 0.3 < store.tissue_mask().mean() < 0.45
    assert report.slides[0].tissue_mm2 == pytest.approx(0.62, abs=0.05)


def test_a_slide_without_tissue_gives_an_empty_store(tmp_path: Path) -> None:
    write_slide(tmp_path / "s.tiff", LAYOUT, np.full((287, 333, 3), 243, np.uint8))

    report = cut(tmp_path / "s.tiff", tmp_path / "out", settings(tissue=TissueSettings(), min_tissue=0.5))

    assert len(PatchStore.open(tmp_path / "out" / "s.zarr")) == 0
    assert report.slides[0].status == "done"
    assert report.slides[0].tissue_mm2 == 0


def test_a_slide_smaller_than_a_patch_is_one_padded_patch(tmp_path: Path, slide: Path) -> None:
    cut(slide, tmp_path / "out", settings(patch_size=512, min_tissue=0.5))

    store = PatchStore.open(tmp_path / "out" / "slide.zarr")
    assert store.extents.tolist() == [[333, 287]]
    assert (store.read_images([0])[0, 287:] == 255).all()


def test_a_second_run_does_nothing_unless_settings_differ(tmp_path: Path, slide: Path) -> None:
    cut(slide, tmp_path / "out", settings())
    before = (tmp_path / "out" / "slide.zarr" / "zarr.json").stat().st_mtime_ns

    again = cut(slide, tmp_path / "out", settings())

    assert again.slides[0].status == "already done"
    assert (tmp_path / "out" / "slide.zarr" / "zarr.json").stat().st_mtime_ns == before
    with pytest.raises(StoreError, match=r"other settings \(overlap differ\).*--overwrite"):
        cut(slide, tmp_path / "out", settings(overlap=8))
    assert cut(slide, tmp_path / "out", settings(overlap=8), overwrite=True).slides[0].status == "done"
    write_slide(slide, replace(LAYOUT, seed=5))
    with pytest.raises(StoreError, match="another slide"):
        cut(slide, tmp_path / "out", settings(overlap=8))


def test_two_runs_write_the_same_bytes(tmp_path: Path, slide: Path) -> None:
    for name in ("one", "two"):
        cut(slide, tmp_path / name, settings(codec="zstd"), num_workers=0 if name == "one" else 3)

    files = sorted(file.relative_to(tmp_path / "one") for file in (tmp_path / "one").rglob("*.zarr/**/*"))
    assert files
    for file in files:
        if (tmp_path / "one" / file).is_file():
            assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_dry_run_writes_nothing(tmp_path: Path, slide: Path) -> None:
    report = cut(slide, tmp_path / "out", settings(), dry_run=True)

    assert report.slides[0].patches == 30
    assert report.slides[0].status == "planned"
    assert not (tmp_path / "out").exists()


def damaged(path: Path, slide: Path, *, tiles: Sequence[int]) -> Path:
    """Write a copy of a slide with zeros where some of its tiles were."""
    with tifffile.TiffFile(slide) as file:
        places = [(file.pages[0].dataoffsets[tile], file.pages[0].databytecounts[tile]) for tile in tiles]
    content = bytearray(slide.read_bytes())
    for offset, count in places:
        content[offset : offset + count] = bytes(count)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("codec", ["zstd", "copy", "jpeg"])
@pytest.mark.parametrize("lost", [[0], [8, 9, 29]])
def test_damaged_tiles_cost_their_own_patches_only(tmp_path: Path, slide: Path, codec: str, lost: list[int]) -> None:
    broken = damaged(tmp_path / "broken.tiff", slide, tiles=lost)
    wanted = settings(codec=codec)
    cut(slide, tmp_path / "out", wanted)
    job = TileJob(inputs=(str(broken),), output=tmp_path / "out", settings=wanted)

    report = tile(job)

    assert [(one.status, one.patches, one.unreadable) for one in report.slides] == [
        ("partly unreadable", 30 - len(lost), len(lost))
    ]
    with pytest.raises(SomeFailedError, match="1 of 1 slides failed at least in parts: broken"):
        report.raise_failures()
    assert f"{30 - len(lost)} patches, {len(lost)} unreadable and left out" in str(report.slides[0])
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["slides"][0]["unreadable"] == len(lost)
    whole, rest = (PatchStore(tmp_path / "out" / f"{name}.zarr") for name in ("slide", "broken"))
    kept = np.setdiff1d(np.arange(30), lost)
    np.testing.assert_array_equal(rest.positions, whole.positions[kept])
    np.testing.assert_array_equal(rest.read_images(range(len(rest))), whole.read_images(kept))
    assert tile(job).slides[0].status == "partly unreadable"


def test_patches_that_overlap_are_lost_singly(tmp_path: Path, slide: Path) -> None:
    holed = ArraySlide(np.full((256, 256, 3), 100, np.uint8), mpp=0.5, broken=[Window(70, 70, 5, 5)])
    wanted = settings(codec="zstd", overlap=32)
    plan = plan_patches(holed, wanted, TissueMask.everything(Size(256, 256)))
    work = SlideWork(slide_id="holed", path=slide, settings=wanted, tissue={})
    overview = Overview(thumbnail=np.zeros((1, 1, 3), np.uint8), tissue_mask=np.ones((1, 1), np.bool_), area_mm2=None)

    write_patches(
        holed, plan, work, tmp_path / "s.zarr", overview=overview, workers=2, progress=SILENT, stop=Stop()
    )  # fmt: skip

    store = PatchStore(tmp_path / "s.zarr")
    corners = store.positions
    assert (len(plan), len(store), store.meta.unreadable) == (49, 45, 4)
    assert not ((corners <= 70) & (corners + 64 > 70)).all(axis=1).any()
    assert (store.read_images(range(45)) == 100).all()


def test_a_slide_of_which_no_patch_can_be_read_fails(tmp_path: Path, slide: Path) -> None:
    broken = damaged(tmp_path / "broken.tiff", slide, tiles=range(30))

    report = tile(TileJob(inputs=(str(broken),), output=tmp_path / "out", settings=settings()))

    assert isinstance(report.slides[0].error, UnreadableError)
    assert not (tmp_path / "out" / "broken.zarr").exists()


def test_a_corrupt_slide_fails_alone(tmp_path: Path, slide: Path) -> None:
    (tmp_path / "broken.tiff").write_bytes(slide.read_bytes()[:400])
    job = TileJob(inputs=(str(tmp_path),), output=tmp_path / "out", settings=settings(codec="zstd"))

    report = tile(job)

    assert [one.slide_id for one in report.failed] == ["broken"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["slide.zarr", "summary.json"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [one["status"] for one in summary["slides"]] == ["failed", "done"]
    assert len(tile(replace(job, fail_fast=True)).slides) == 1


def test_a_requested_stop_leaves_nothing_half_made(tmp_path: Path, slide: Path) -> None:
    class Later(Stop):
        calls = 0

        @property
        def is_requested(self) -> bool:
            self.calls += 1
            return self.calls > 1

    with pytest.raises(StoppedError):
        tile(TileJob(inputs=(str(slide),), output=tmp_path / "out", settings=settings()), stop=Later())

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["summary.json"]
    (told,) = json.loads((tmp_path / "out" / "summary.json").read_text())["slides"]
    assert told["status"] == "stopped"


def test_a_kill_leaves_no_store_and_the_next_run_makes_it(tmp_path: Path, slide: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from wsiseg.stores import shards\n"
        "from wsiseg.tasks.tile import TileConfig, TileJob, tile\n"
        ""
        "shards.MAX_PER_SHARD = 8\n"
        "write = shards.ShardedArray.write_shard\n"
        "def write_and_die(self, shard, chunks):\n"
        "    write(self, shard, chunks)\n"
        "    if shard == 1: os.kill(os.getpid(), signal.SIGKILL)\n"
        "shards.ShardedArray.write_shard = write_and_die\n"
        "settings = TileConfig.model_validate_json(sys.argv[3])\n"
        "tile(TileJob(inputs=(sys.argv[1],), output=Path(sys.argv[2]), settings=settings))\n"
    )
    wanted = settings(codec="zstd")
    arguments = [str(slide), str(tmp_path / "out"), wanted.model_dump_json()]

    died = subprocess.run([sys.executable, "-c", script, *arguments], check=False)

    assert died.returncode == -9
    assert not (tmp_path / "out" / "slide.zarr").exists()
    assert cut(slide, tmp_path / "out", wanted).slides[0].status == "done"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["slide.zarr", "summary.json"]


def test_two_processes_on_one_output_are_kept_apart(tmp_path: Path, slide: Path) -> None:
    with locked(tmp_path / "out" / ".slide.zarr.lock"), pytest.raises(StoreError, match=f"pid {os.getpid()}"):
        cut(slide, tmp_path / "out", settings())


def test_a_store_of_another_version_is_left_alone(tmp_path: Path, slide: Path) -> None:
    cut(slide, tmp_path / "out", settings())
    metadata = tmp_path / "out" / "slide.zarr" / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"schema_version": 1', '"schema_version": 7'))

    with pytest.raises(StoreError, match="schema version 7"):
        cut(slide, tmp_path / "out", settings())
    assert cut(slide, tmp_path / "out", settings(), overwrite=True).slides[0].status == "done"


def test_positions_alone_need_their_slide(tmp_path: Path, slide: Path) -> None:
    cut(slide, tmp_path / "out", settings(codec="none"))
    pixels = slide.read_bytes()

    slide.unlink()
    with pytest.raises(SlideError, match="gone"):
        open_patches([tmp_path / "out"]).read_images([0])
    slide.write_bytes(pixels[:-1] + b"?")
    with pytest.raises(SlideError, match="not the slide"):
        open_patches([tmp_path / "out"]).read_images([0])


def test_a_manifest_brings_resolution_split_patient_and_mask(tmp_path: Path, slide: Path) -> None:
    from wsiseg.rasters import write_labels

    mask = np.zeros((2, 1), np.uint8)
    mask[0] = 1
    write_labels(tmp_path / "mask.png", mask)
    (tmp_path / "m.csv").write_text(f"path,mpp,split,patient_id,mask_path\n{slide.name},0.25,val,p7,mask.png\n")
    job = TileJob(
        inputs=(), manifest=tmp_path / "m.csv", output=tmp_path / "out", settings=settings(mpp=0.5, min_tissue=0.9)
    )

    tile(job).raise_failures()

    store = PatchStore.open(tmp_path / "out" / "slide.zarr")
    assert store.meta.slide is not None
    assert store.meta.slide.mpp == 0.25
    assert set(store.splits) == {"val"}
    assert set(store.groups) == {"p7"}
    assert store.positions[:, 1].max() < 287 / 2


def test_shards_write_summaries_of_their_own(tmp_path: Path, slide: Path) -> None:
    (tmp_path / "b.tiff").write_bytes(slide.read_bytes())
    for index in (0, 1):
        cut(tmp_path, tmp_path / "out", settings(), num_shards=2, shard_index=index)

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "b.zarr", "slide.zarr", "summary-0-of-2.json", "summary-1-of-2.json",
    ]  # fmt: skip


def test_a_full_disk_is_told(tmp_path: Path, slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wsiseg.stores.shards.ShardedArray.write_shard", full)

    with pytest.raises(StoreError, match="No space left on device"):
        cut(slide, tmp_path / "out", settings())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["summary.json"]
