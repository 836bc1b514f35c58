"""The engine counts a nucleus on a seam once, never hides what it could not read, and bends to memory and signals."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
import torch

from tests.fake_predictors import FakePredictor, job_on, read, run, whole
from wsiseg.errors import PredictionError, StoppedError
from wsiseg.geometry import Size, Window
from wsiseg.grid import Grid
from wsiseg.inference.forward import Network
from wsiseg.inference.labelling import entropy
from wsiseg.journal import Journal
from wsiseg.slides.array import ArraySlide
from wsiseg.stopping import Stop

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.inference.blending import Blend
    from wsiseg.inference.forward import ReadTile
    from wsiseg.journal import Record


@pytest.mark.parametrize("blend", ["none", "gaussian"])
def test_a_nucleus_on_a_corner_of_four_tiles_is_one_nucleus(tmp_path: Path, blend: Blend) -> None:
    pixels = np.full((150, 150, 3), 255, dtype=np.uint8)
    pixels[40:56, 36:60] = 0  # across x = 48 and y = 48
    pixels[90:102, 48:60] = 0  # touches x = 48 and crosses y = 96
    predictor = FakePredictor(task="instance", radius=0)

    with job_on(tmp_path, ArraySlide(pixels), predictor, blend=blend) as job:
        run(job, predictor, blend=blend)

        np.testing.assert_array_equal(read(job, "instances") > 0, pixels[:, :, 0] == 0)
        objects = job.objects()
        assert objects.area_px.tolist() == [16 * 24, 12 * 12]
        assert (objects.cx.tolist(), objects.cy.tolist()) == ([48.0, 54.0], [48.0, 96.0])


def test_ids_do_not_depend_on_batches_or_threads(tmp_path: Path) -> None:
    pixels = np.full((200, 200, 3), 255, dtype=np.uint8)
    pixels[5::20, 7::20] = pixels[6::20, 7::20] = pixels[5::20, 8::20] = 0
    results = []
    for index, (batch, threads) in enumerate([(1, 0), (4, 1), (7, 3)]):
        predictor = FakePredictor(task="instance", radius=0)
        with job_on(tmp_path / str(index), ArraySlide(pixels), predictor) as job:
            run(job, predictor, batch_size=batch, threads=threads)
            results.append(read(job, "instances"))

    assert results[0].max() == 100
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("task", ["semantic", "instance"])
def test_a_tile_whose_core_cannot_be_read_is_not_analysed(
    tmp_path: Path, task: Literal["semantic", "instance"]
) -> None:
    pixels = np.zeros((144, 144, 3), dtype=np.uint8)
    pixels[::12] = 255
    predictor = FakePredictor(task=task, radius=0)
    # Within the core of the middle tile, beyond the reads of all others.
    slide = ArraySlide(pixels, broken=[Window(70, 70, 2, 2)])

    with job_on(tmp_path, slide, predictor, with_probs=True) as job:
        run(job, predictor)

        classes = read(job, "classes")
        expected = (pixels[:, :, 0] == 0).astype(np.uint8)
        expected[48:96, 48:96] = 255
        np.testing.assert_array_equal(classes, expected)
        assert (job.unreadable_px, job.analysed_px) == (48 * 48, 144 * 144 - 48 * 48)
        assert not read(job, "uncertainty")[48:96, 48:96].any()
        np.testing.assert_array_equal(read(job, "probability").any(axis=0), expected < 255)
        if task == "instance":
            np.testing.assert_array_equal(read(job, "instances") > 0, expected == 1)


@pytest.mark.parametrize("task", ["semantic", "instance"])
def test_of_a_damaged_tile_only_the_surroundings_of_the_damage_are_lost(
    tmp_path: Path, task: Literal["semantic", "instance"]
) -> None:
    pixels = np.zeros((600, 600, 3), dtype=np.uint8)
    pixels[::12] = 255
    pixels[:, ::12] = 255
    predictor = FakePredictor(task=task, tile_px=272, radius=0)
    slide = ArraySlide(pixels, broken=[Window(300, 300, 40, 40)])

    with job_on(tmp_path, slide, predictor) as job:
        run(job, predictor)

        classes = read(job, "classes")
        lost = classes == 255
        rows, columns = np.nonzero(lost)
        assert rows.min() <= 300 - 16
        assert rows.max() >= 339 + 16
        assert rows.max() - rows.min() < 40 + 2 * (16 + 68)
        np.testing.assert_array_equal(rows.min(), columns.min())
        assert job.unreadable_px == lost.sum() == (rows.max() - rows.min() + 1) ** 2
        assert job.analysed_px == 600 * 600 - lost.sum()
        np.testing.assert_allclose((1 - job.readable).sum() * 256**2, lost.sum())
        expected = np.where(lost, 255, pixels[:, :, 0] == 0)
        np.testing.assert_array_equal(classes, expected)
        if task == "instance":
            np.testing.assert_array_equal(read(job, "instances") > 0, expected == 1)
            assert job.objects().area_px.sum() == (expected == 1).sum()


def test_a_band_is_on_disk_under_its_name_before_the_journal_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    noted: list[tuple[set[int], set[int]]] = []
    fsync, append = os.fsync, Journal.append

    def note_sync(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def note_append(journal: Journal, record: Record) -> None:
        shards = [file for file in tmp_path.rglob("s0/c/**/*") if file.is_file()]
        places = {place for file in shards for place in (file, *file.parents) if "s0" in place.parts}
        noted.append(({place.stat().st_ino for place in places}, set(synced)))
        append(journal, record)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Journal, "append", note_append)
    pixels = np.zeros((144, 144, 3), dtype=np.uint8)
    predictor = FakePredictor(task="semantic", radius=0)

    with job_on(tmp_path, ArraySlide(pixels), predictor) as job:
        run(job, predictor)

    assert any(written for written, _ in noted)
    assert all(written <= on_disk for written, on_disk in noted)


def test_cells_without_tissue_stay_background(tmp_path: Path) -> None:
    pixels = np.zeros((144, 144, 3), dtype=np.uint8)
    predictor = FakePredictor(radius=0)
    tissue = np.eye(3, dtype=np.bool_)

    with job_on(tmp_path, ArraySlide(pixels), predictor, blend="gaussian", tissue=tissue) as job:
        run(job, predictor, blend="gaussian")

        np.testing.assert_array_equal(read(job, "classes"), np.kron(tissue, np.ones((48, 48), dtype=np.uint8)))
        assert sum(predictor.batches) == 3


def test_a_slide_without_tissue_is_done_at_once(tmp_path: Path) -> None:
    predictor = FakePredictor(task="instance")
    tissue = np.zeros((3, 3), dtype=np.bool_)

    with job_on(tmp_path, ArraySlide(np.zeros((144, 144, 3), dtype=np.uint8)), predictor, tissue=tissue) as job:
        run(job, predictor)

        assert job.closed_bands == job.walk.bands
        assert len(job.objects()) == 0
        assert not predictor.batches


def read_tiles(count: int) -> list[ReadTile]:
    rng = np.random.default_rng(0)
    grid = Grid(Size(48 * count, 48), Size(48, 48), 8)
    return [(tile, rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for tile in grid]


def roomy(predictor: FakePredictor) -> Network:
    """Return a network that takes whole batches, as it does on a GPU."""
    network = Network(predictor, device=torch.device("cpu"))
    network._limit = None
    return network


def test_running_out_of_memory_halves_the_batch_and_changes_nothing() -> None:
    tiles = read_tiles(11)
    poor = FakePredictor(fail_beyond=2)

    expected = list(roomy(FakePredictor()).outputs(tiles, batch_size=8, trim_px=8))
    outputs = list(roomy(poor).outputs(tiles, batch_size=8, trim_px=8))

    assert poor.batches == [8, 4, 2, 2, 2, 2, 2, 1]
    for (tile, output), (other_tile, other) in zip(outputs, expected, strict=True):
        assert tile == other_tile
        np.testing.assert_array_equal(output, other)


def test_a_tile_too_large_for_the_memory_is_an_error() -> None:
    with pytest.raises(PredictionError, match="one tile does not fit"):
        list(roomy(FakePredictor(fail_beyond=0)).outputs(read_tiles(3), batch_size=2, trim_px=8))


def test_a_cpu_takes_tiles_one_by_one_so_that_batches_change_no_bit() -> None:
    predictor = FakePredictor()

    list(Network(predictor, device=torch.device("cpu")).outputs(read_tiles(3), batch_size=2, trim_px=8))

    assert predictor.batches == [1, 1, 1]


def test_the_mean_over_symmetries_of_a_symmetric_network_is_the_network(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    predictor = FakePredictor()

    with job_on(tmp_path, ArraySlide(pixels), predictor) as job:
        run(job, predictor, tta="d4")

        np.testing.assert_array_equal(read(job, "classes"), whole(predictor, pixels).argmax(axis=0))
    assert len(predictor.batches) == 8 * 9 + 1


def test_a_stop_leaves_closed_bands_and_the_next_run_goes_on(tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (300, 100, 3), dtype=np.uint8)
    predictor = FakePredictor()
    stop = Stop()

    class Stopping(ArraySlide):
        def read_level(self, level: int, window: Window) -> NDArray[np.uint8]:
            if window.y > 130:
                stop.request("the test says so")
            return super().read_level(level, window)

    with job_on(tmp_path, Stopping(pixels), predictor) as job:
        with pytest.raises(StoppedError, match="the test says so"):
            run(job, predictor, batch_size=1, stop=stop)
        assert 0 < job.closed_bands < job.walk.bands
    with job_on(tmp_path, ArraySlide(pixels), predictor) as job:
        run(job, predictor, batch_size=1)
        np.testing.assert_array_equal(read(job, "classes"), whole(predictor, pixels).argmax(axis=0))


def test_entropy_is_0_when_certain_and_255_when_nothing_is_known() -> None:
    probs = np.array([[1, 0.25, 0.5], [0, 0.25, 0.5], [0, 0.25, 0], [0, 0.25, 0]], dtype=np.float32)[:, None]

    np.testing.assert_array_equal(entropy(probs), [[0, 255, 128]])
