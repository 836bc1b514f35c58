"""`wsiseg predict`: a folder per slide, and whatever the input, one clear line and the promised exit code."""

from __future__ import annotations

import errno
import json
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05 import Image as OmeImage
from PIL import Image
from shapely.geometry import shape

from tests.slide_makers import Layout, write_slide
from tests.tiny_models import save_tiny_model
from wsiseg.cli import app
from wsiseg.geometry import Size
from wsiseg.inference import outputs
from wsiseg.inference.forward import Network
from wsiseg.inference.prediction import JOURNAL
from wsiseg.inference.summary import WORK
from wsiseg.lock import locked
from wsiseg.stores.mask_store import MaskStore
from wsiseg.white import WhiteRule

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from _pytest.tmpdir import TempPathFactory

SLIDE = Layout(size=Size(500, 420), family="aperio", mpp=0.5)


@dataclass(frozen=True)
class Result:
    """What a run of the command gave."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def instance_model(tmp_path_factory: TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def semantic_model(tmp_path_factory: TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "semantic", task="semantic")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Return a function that runs `wsiseg predict` in this process."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["wsiseg", "--progress", "plain", "predict", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            app.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(int(exit_info.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder and return it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_slide(path: Path, layout: Layout = SLIDE) -> Path:
    write_slide(path, layout)
    return path


def test_a_slide_becomes_a_folder_with_everything(
    tmp_path: Path, run: Callable[..., Result], instance_model: Path
) -> None:
    slide = make_slide(tmp_path / "größer als, sonst.svs")

    result = run(slide, "--model", instance_model, "-o", tmp_path / "out", "--label-png")

    folder = tmp_path / "out" / "größer als, sonst"
    assert (result.code, result.out.split(",")[0]) == (0, "1 done")
    assert sorted(path.name for path in folder.iterdir()) == [
        "labels.png",
        "measurements.csv",
        "objects.csv",
        "objects.npy",
        "overlay.png",
        "polygons.geojson",
        "prediction.zarr",
        "summary.json",
    ]
    image = OmeImage.from_zarr(zarr.open_group(folder / "prediction.zarr", mode="r"))
    assert image.labels is not None
    store = MaskStore.open(folder / "prediction.zarr")
    ids = store.read("instances", store.canvas.window)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["objects"] == ids.max() == len(np.unique(ids)) - 1
    assert summary["unreadable_percent"] == 0
    features = json.loads((folder / "polygons.geojson").read_text(encoding="utf-8"))["features"]
    assert len(features) == ids.max()
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "labels.png")), ids)
    assert f"{ids.max():,} objects" in result.err


def test_a_semantic_model_gives_classes(tmp_path: Path, run: Callable[..., Result], semantic_model: Path) -> None:
    slide = make_slide(tmp_path / "a.svs")

    result = run(slide, "--model", semantic_model, "-o", tmp_path / "out", "--tta", "flips", "--format", "tiff")

    assert result.code == 0
    assert (tmp_path / "out/a/labels.ome.tif").exists()
    store = MaskStore.open(tmp_path / "out/a/prediction.zarr")
    assert store.layers == ("classes", "uncertainty")
    assert store.read("classes", store.canvas.window).max() <= 2
    assert store.read("uncertainty", store.canvas.window).any()


@pytest.mark.parametrize("task", ["instance", "semantic"])
def test_probabilities_are_kept_on_request(
    tmp_path: Path, run: Callable[..., Result], request: pytest.FixtureRequest, task: str
) -> None:
    slide, model = make_slide(tmp_path / "a.svs"), request.getfixturevalue(f"{task}_model")
    arguments = (slide, "--model", model, "-o", tmp_path / "out", "--polygons", "none", "--tissue", "none")

    result = run(*arguments, "--probability")
    without = run(*arguments)

    assert result.code == 0
    store = MaskStore.open(tmp_path / "out/a/prediction.zarr")
    probs, classes = store.read("probability", store.canvas.window), store.read("classes", store.canvas.window)
    assert store.layers[-1] == "probability"
    assert len(probs) == (1 if task == "instance" else 3)
    if task == "semantic":
        assert np.abs(probs.sum(axis=0, dtype=np.int64) - 255).max() <= 2
        np.testing.assert_array_equal(np.take_along_axis(probs, classes[None], axis=0)[0], probs.max(axis=0))
    OmeImage.from_zarr(zarr.open_group(tmp_path / "out/a/prediction.zarr/probability", mode="r"))
    assert without.code == 5
    assert "probability differ" in without.err


def test_white_belongs_to_no_class_where_the_model_has_a_rule(tmp_path: Path, run: Callable[..., Result]) -> None:
    model = save_tiny_model(tmp_path / "model", task="semantic", white=WhiteRule())
    pixels = np.random.default_rng(0).integers(60, 160, (150, 260, 3)).astype(np.uint8)
    pixels[:, 200:] = 255  # padding
    pixels[40:60, 40:60] = 230  # a lumen
    pixels[100:104, 100:110] = 230  # too small for one
    Image.fromarray(pixels).save(tmp_path / "a.png")
    arguments = (tmp_path / "a.png", "--slide-mpp", 0.5, "--model", model, "--label-png", "--simplify", 0)

    run(*arguments, "-o", tmp_path / "out")
    run(*arguments, "-o", tmp_path / "all", "--set", "white=false")

    is_white = np.zeros((150, 260), dtype=np.bool_)
    is_white[:, 200:] = is_white[40:60, 40:60] = True
    found, everywhere = (np.asarray(Image.open(tmp_path / name / "a/labels.png")) for name in ("out", "all"))
    np.testing.assert_array_equal(found == 254, is_white)
    np.testing.assert_array_equal(found[~is_white], everywhere[~is_white])
    assert everywhere.max() < 3
    summary = json.loads((tmp_path / "out/a/summary.json").read_text(encoding="utf-8"))
    assert sum(row["area_px"] for row in summary["classes"][:3]) == (~is_white).sum()
    assert summary["analysed_px"] == is_white.size
    features = json.loads((tmp_path / "out/a/polygons.geojson").read_text(encoding="utf-8"))["features"]
    assert sum(shape(feature["geometry"]).area for feature in features) == (~is_white).sum()


def test_a_second_run_does_nothing(tmp_path: Path, run: Callable[..., Result], semantic_model: Path) -> None:
    slide = make_slide(tmp_path / "a.svs")
    arguments = (slide, "--model", semantic_model, "-o", tmp_path / "out")
    run(*arguments)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/a").rglob("*")}

    result = run(*arguments)

    assert (result.code, result.out.split(",")[0]) == (0, "1 already done")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out/a").rglob("*")} == before


def test_what_a_run_leaves_that_was_killed_at_the_very_end_is_removed_by_the_next(
    tmp_path: Path, run: Callable[..., Result], semantic_model: Path
) -> None:
    slide = make_slide(tmp_path / "a.svs")
    arguments = (slide, "--model", semantic_model, "-o", tmp_path / "out")
    run(*arguments)
    made = contents(tmp_path / "out/a")
    (tmp_path / "out/a" / WORK).mkdir()
    (tmp_path / "out/a" / WORK / JOURNAL).touch()

    planned = run(*arguments, "--dry-run")
    assert (tmp_path / "out/a" / WORK).exists()
    again = run(*arguments)

    assert [result.out.split(",")[0] for result in (planned, again)] == ["1 already done"] * 2
    assert contents(tmp_path / "out/a") == made
    assert not (tmp_path / "out/a" / WORK).exists()


@pytest.mark.parametrize("task", ["instance", "semantic"])
def test_outputs_asked_for_later_are_those_of_a_fresh_run_and_take_no_network(
    tmp_path: Path,
    run: Callable[..., Result],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
) -> None:
    slide, model = make_slide(tmp_path / "a.svs"), request.getfixturevalue(f"{task}_model")
    more = ("--label-png", "--polygons", "parquet", "--simplify", 0, "--format", "tiff")
    run(slide, "--model", model, "-o", tmp_path / "fresh", *more)
    run(slide, "--model", model, "-o", tmp_path / "out")
    monkeypatch.setattr(Network, "__init__", lambda *_, **__: pytest.fail("the network is loaded"))

    result = run(slide, "--model", model, "-o", tmp_path / "out", *more)
    again = run(slide, "--model", model, "-o", tmp_path / "out", *more)

    assert (result.code, again.code) == (0, 0)
    assert (result.out.split(",")[0], again.out.split(",")[0]) == ("1 outputs made", "1 already done")
    fresh, made = contents(tmp_path / "fresh/a"), contents(tmp_path / "out/a")
    assert {name: made[name] for name in fresh} == fresh
    assert made.keys() - fresh.keys() == {"polygons.geojson"}


def contents(folder: Path) -> dict[str, object]:
    """Return the files of a prediction, without what its summary tells about the run."""
    files: dict[str, object] = {
        str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }
    files["summary.json"] = json.loads((folder / "summary.json").read_text(encoding="utf-8")) | {"run": None}
    return files


def test_outputs_that_could_not_be_made_are_made_by_the_next_run(
    tmp_path: Path, run: Callable[..., Result], semantic_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (make_slide(tmp_path / "a.svs"), "--model", semantic_model, "-o", tmp_path / "out")
    run(*arguments)
    with monkeypatch.context() as broken:
        broken.setattr(outputs, "write_label_png", lambda *_, **__: _no_space())
        assert run(*arguments, "--label-png", "--simplify", 0).code == 5

    # The polygons are no longer those of the first run.
    back = run(*arguments)
    result = run(*arguments, "--label-png")

    assert (back.out.split(",")[0], result.out.split(",")[0]) == ("1 outputs made", "1 outputs made")
    assert (tmp_path / "out/a/labels.png").exists()


def test_a_missing_table_of_objects_is_said(tmp_path: Path, run: Callable[..., Result], instance_model: Path) -> None:
    arguments = (make_slide(tmp_path / "a.svs"), "--model", instance_model, "-o", tmp_path / "out")
    run(*arguments)
    (tmp_path / "out/a/objects.npy").unlink()

    result = run(*arguments, "--label-png")

    assert result.code == 5
    assert "no such table of objects. Predict the slide again with --overwrite" in " ".join(result.err.split())
    assert run(*arguments).out.startswith("1 already done")


def test_overwriting_leaves_what_is_not_ours(tmp_path: Path, run: Callable[..., Result], semantic_model: Path) -> None:
    slide = make_slide(tmp_path / "a.svs")
    arguments = (slide, "--model", semantic_model, "-o", tmp_path / "out")
    run(*arguments, "--polygons", "geojson.gz")
    (tmp_path / "out/a/notes.txt").write_text("mine")

    result = run(*arguments, "--overwrite")

    assert result.code == 0
    names = {path.name for path in (tmp_path / "out/a").iterdir()}
    assert {"notes.txt", "polygons.geojson"} <= names
    assert "polygons.geojson.gz" not in names


def test_polygons_of_unfinished_work_are_counted_from_where_it_is_asked_now(
    tmp_path: Path, run: Callable[..., Result], semantic_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (make_slide(tmp_path / "a.svs"), "--model", semantic_model, "-o", tmp_path / "out")
    with monkeypatch.context() as broken:
        broken.setattr(outputs, "write_overlay", lambda *_, **__: _no_space())
        assert run(*arguments).code == 5
    asked = []
    monkeypatch.setattr(outputs, "export_shapes", lambda *_, origin, **__: asked.append(origin))

    result = run(*arguments, "--qupath-origin", "level0")

    assert (result.code, asked) == (0, ["level0"])


def _no_space() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_another_tissue_mask_of_the_same_name_needs_overwrite(
    tmp_path: Path, run: Callable[..., Result], semantic_model: Path
) -> None:
    slide, mask = make_slide(tmp_path / "a.svs"), tmp_path / "mask.png"
    arguments = (slide, "--model", semantic_model, "-o", tmp_path / "out", "--tissue", mask)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(mask)
    first = run(*arguments)
    Image.fromarray(np.full((4, 4), 255, np.uint8)).save(mask)

    second = run(*arguments)

    assert (first.code, second.code) == (0, 5)
    assert "tissue_mask differ" in second.err


def test_polygons_that_need_a_missing_library_are_refused_before_any_work(
    tmp_path: Path, run: Callable[..., Result], semantic_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pyarrow" else find_spec(name))
    slide = make_slide(tmp_path / "a.svs")

    result = run(slide, "--model", semantic_model, "-o", tmp_path / "out", "--polygons", "parquet")

    assert result.code == 2
    assert "wsiseg[parquet]" in result.err
    assert not (tmp_path / "out/a").exists()


def test_other_settings_need_overwrite(tmp_path: Path, run: Callable[..., Result], semantic_model: Path) -> None:
    slide = make_slide(tmp_path / "a.svs")
    arguments = (slide, "--model", semantic_model, "-o", tmp_path / "out", "--polygons", "none")
    run(*arguments)

    refused = run(*arguments, "--mpp", 1)
    done = run(*arguments, "--mpp", 1, "--overwrite")

    assert refused.code == 5
    assert "mpp differ" in refused.err
    assert done.code == 0
    assert MaskStore.open(tmp_path / "out/a/prediction.zarr").canvas.mpp == 1


@pytest.mark.parametrize("tissue", ["none", "otsu"])
def test_a_slide_that_is_damaged_in_parts_is_done_in_parts(
    tmp_path: Path, run: Callable[..., Result], semantic_model: Path, tissue: str
) -> None:
    slide = make_slide(tmp_path / "a.svs", Layout(size=Size(640, 640), family="aperio", mpp=0.5, tile=64))
    data = bytearray(slide.read_bytes())
    scans = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    at = scans[55]
    data[at - 40 : at + 4] = bytes(44)
    slide.write_bytes(data)

    result = run(slide, "--model", semantic_model, "-o", tmp_path / "out", "--tissue", tissue)
    again = run(slide, "--model", semantic_model, "-o", tmp_path / "out", "--tissue", tissue)

    assert result.code == again.code == 3
    assert "could not be read" in result.err
    assert "a: already done, partly unreadable: " in again.err
    store = MaskStore.open(tmp_path / "out/a/prediction.zarr")
    classes = store.read("classes", store.canvas.window)
    assert 0 < (classes == 255).mean() < 0.5
    summary = json.loads((tmp_path / "out/a/summary.json").read_text())
    assert summary["unreadable_percent"] == pytest.approx(100 * (classes == 255).mean(), abs=0.01)
    assert "Not analysed" in (tmp_path / "out/a/polygons.geojson").read_text()


def test_one_bad_slide_does_not_stop_the_others(
    tmp_path: Path, run: Callable[..., Result], semantic_model: Path
) -> None:
    (tmp_path / "slides").mkdir()
    make_slide(tmp_path / "slides/good.svs")
    (tmp_path / "slides/bad.svs").write_text("this is a text")

    result = run(tmp_path / "slides", "--model", semantic_model, "-o", tmp_path / "out", "--polygons", "none")

    assert result.code == 3
    assert "bad: failed" in result.err
    assert (tmp_path / "out/good/summary.json").exists()
    slides = json.loads((tmp_path / "out/summary.json").read_text())["slides"]
    assert [slide["status"] for slide in slides] == ["failed", "done"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("missing.svs",), (4, "no such file")),
        (("slide.svs", "--model", "nuclei-hee"), (5, "no such model")),
        (("slide.svs", "--device", "tpu"), (2, "device")),
        (("slide.svs", "--device", "cuda:77"), (2, "CUDA device")),
        (("slide.svs", "--batch-size", "none"), (2, "no number of tiles")),
        (("slide.svs", "--max-ram", "lots"), (2, "no amount of memory")),
        (("slide.svs", "--max-ram", "200MB"), (2, "GiB of memory")),
        (("slide.svs", "--overlap", "0.9"), (2, "cannot share")),
        (("slide.svs", "--set", "blnd=hann"), (2, "Did you mean blend")),
        (("slide.svs", "--reader", "magic"), (2, "no reader")),
        (("plain.png",), (5, "--slide-mpp")),
        (("empty.svs",), (5, "empty")),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    run: Callable[..., Result],
    semantic_model: Path,
    in_folder: Path,
    arguments: tuple[str, ...],
    expected: tuple[int, str],
) -> None:
    code, message = expected
    make_slide(in_folder / "slide.svs")
    Image.fromarray(np.zeros((50, 50, 3), dtype=np.uint8)).save(in_folder / "plain.png")
    (in_folder / "empty.svs").write_bytes(b"")
    model = () if "--model" in arguments else ("--model", semantic_model)

    result = run(*arguments, *model, "-o", "out")

    assert result.code == code
    assert message in result.err
    assert next(line for line in result.err.splitlines() if message in line).startswith("Error")
    assert "failed" not in result.err + result.out


@pytest.mark.parametrize("option", [("--device", "cuda:77"), ("--slide-mpp", 0), ("--max-ram", "10MB")])
def test_options_that_are_wrong_for_any_slide_are_refused_before_the_first(
    tmp_path: Path, run: Callable[..., Result], semantic_model: Path, option: tuple[object, ...]
) -> None:
    slides = [make_slide(tmp_path / f"{name}.svs") for name in "ab"]

    result = run(*slides, "--model", semantic_model, "-o", tmp_path / "out", *option)

    assert result.code == 2
    assert str(option[0]) in result.err
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [Size(1, 1), Size(30, 200)])
def test_an_image_smaller_than_a_tile_is_predicted(
    tmp_path: Path, run: Callable[..., Result], instance_model: Path, size: Size
) -> None:
    Image.fromarray(np.full((size.height, size.width, 3), 120, dtype=np.uint8)).save(tmp_path / "small.png")

    result = run(tmp_path / "small.png", "--slide-mpp", 0.5, "--model", instance_model, "-o", tmp_path / "out")

    assert result.code == 0
    assert MaskStore.open(tmp_path / "out/small/prediction.zarr").canvas.size == size


def test_a_slide_without_tissue_is_a_valid_empty_result(
    tmp_path: Path, run: Callable[..., Result], instance_model: Path
) -> None:
    write_slide(tmp_path / "a.svs", SLIDE, np.full((420, 500, 3), 243, dtype=np.uint8))

    result = run(tmp_path / "a.svs", "--model", instance_model, "-o", tmp_path / "out")

    assert result.code == 0
    assert json.loads((tmp_path / "out/a/summary.json").read_text())["tiles"] == 0


def test_two_processes_do_not_write_one_folder(
    tmp_path: Path, run: Callable[..., Result], semantic_model: Path
) -> None:
    slide = make_slide(tmp_path / "a.svs")
    (tmp_path / "out").mkdir()

    with locked(tmp_path / "out/.a.lock"):
        result = run(slide, "--model", semantic_model, "-o", tmp_path / "out")

    assert result.code == 75
    assert "another process is writing here" in result.err


def test_where_only_others_are_at_work_the_scheduler_is_to_try_again(
    tmp_path: Path, run: Callable[..., Result], semantic_model: Path
) -> None:
    slides = [make_slide(tmp_path / f"{name}.svs") for name in "ab"]
    (tmp_path / "out").mkdir()

    with locked(tmp_path / "out/.a.lock"):
        result = run(*slides, "--model", semantic_model, "-o", tmp_path / "out")

    assert result.code == 75
    assert "at work on 1 of 2 slides: a" in result.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_output_is_said(tmp_path: Path, run: Callable[..., Result], semantic_model: Path) -> None:
    slide = make_slide(tmp_path / "a.svs")
    (tmp_path / "out").mkdir(mode=0o500)

    assert run(slide, "--model", semantic_model, "-o", tmp_path / "out").code == 5


def test_an_output_that_is_a_file_is_said(tmp_path: Path, run: Callable[..., Result], semantic_model: Path) -> None:
    slide = make_slide(tmp_path / "a.svs")
    (tmp_path / "out").write_text("")

    result = run(slide, "--model", semantic_model, "-o", tmp_path / "out")

    assert result.code == 5
    assert "cannot be written" in result.err


def test_a_time_limit_of_nothing_stops_with_75(
    tmp_path: Path, run: Callable[..., Result], semantic_model: Path
) -> None:
    slide = make_slide(tmp_path / "a.svs")
    arguments = (slide, "--model", semantic_model, "-o", tmp_path / "out")

    stopped = run(*arguments, "--time-limit", 0)
    told = json.loads((tmp_path / "out/summary.json").read_text())["slides"]
    finished = run(*arguments)

    assert (stopped.code, finished.code) == (75, 0)
    assert "time limit" in stopped.err
    assert [slide["status"] for slide in told] == ["not begun"]


def test_a_dry_run_writes_nothing(tmp_path: Path, run: Callable[..., Result], semantic_model: Path) -> None:
    slide = make_slide(tmp_path / "a.svs")

    result = run(slide, "--model", semantic_model, "-o", tmp_path / "out", "--dry-run")

    assert result.code == 0
    assert "tiles of 128 px" in result.err
    assert not (tmp_path / "out").exists()


def test_shards_divide_the_slides(tmp_path: Path, run: Callable[..., Result], semantic_model: Path) -> None:
    (tmp_path / "slides").mkdir()
    for name in ("a", "b", "c"):
        make_slide(tmp_path / f"slides/{name}.svs")
    arguments = (tmp_path / "slides", "--model", semantic_model, "-o", tmp_path / "out", "--num-shards", 2)

    run(*arguments, "--shard-index", 1, "--polygons", "none")

    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["b"]
    assert (tmp_path / "out/summary-1-of-2.json").exists()


def test_jobs_of_a_slurm_array_write_summaries_of_their_own(
    tmp_path: Path, run: Callable[..., Result], semantic_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("ID", "1"), ("COUNT", "2"), ("MIN", "0")):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    slides = [make_slide(tmp_path / f"{name}.svs") for name in "ab"]

    result = run(*slides, "--model", semantic_model, "-o", tmp_path / "out")

    assert result.code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"b", "summary-1-of-2.json"}
