"""What comes out does not depend on how the slide was cut, batched, threaded or interrupted."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Literal
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.ndimage import find_objects, label

from tests.fake_predictors import FakePredictor, job_on, read, run, whole
from wsiseg.geometry import Window
from wsiseg.inference import holes
from wsiseg.journal import Journal
from wsiseg.objects import Objects
from wsiseg.slides.array import ArraySlide
from wsiseg.stores.mask_store import MaskStore
from wsiseg.white import WhiteRule, white_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from wsiseg.inference.blending import Blend
    from wsiseg.inference.job import Job

BLENDS: tuple[Blend, ...] = ("none", "gaussian", "hann")


def blobs(width: int, height: int, *, seed: int, count: int, radius: int = 6) -> NDArray[np.uint8]:
    """Return dark discs of up to `radius` on white, some touching."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 255, dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    for _ in range(count):
        cx, cy, r = rng.integers(0, width), rng.integers(0, height), rng.integers(3, radius + 1)
        pixels[(x - cx) ** 2 + (y - cy) ** 2 <= r * r] = rng.integers(0, 60)
    return pixels


def canonical(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return labels renumbered in the order of their first pixels."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(np.where(np.unique(labels) == 0, -1, first)))
    return order[inverse].reshape(labels.shape)


def check_table(objects: Objects, ids: NDArray[np.uint32]) -> None:
    assert objects.id.tolist() == list(range(1, len(objects) + 1))
    np.testing.assert_array_equal(np.bincount(ids.ravel(), minlength=len(objects) + 1)[1:], objects.area_px)
    for index in range(len(objects)):
        rows, columns = np.nonzero(ids == objects.id[index])
        assert (objects.x0[index], objects.y0[index]) == (columns.min(), rows.min())
        assert (objects.x1[index], objects.y1[index]) == (columns.max() + 1, rows.max() + 1)
        np.testing.assert_allclose(objects.cx[index], columns.mean() + 0.5)
    assert (objects.label == 1).all()
    assert (objects.score == np.float32(0.75)).all()


@contextmanager
def worked_off(
    pixels: NDArray[np.uint8],
    predictor: FakePredictor,
    *,
    blend: Blend = "none",
    bands: int = 1,
    tissue: NDArray[np.bool_] | None = None,
    batch_size: int = 3,
    threads: int = 1,
    with_probs: bool = False,
) -> Iterator[Job]:
    """Give the job of an image when all of it is done."""
    slide = ArraySlide(pixels)
    with (
        tempfile.TemporaryDirectory() as folder,
        job_on(Path(folder), slide, predictor, blend=blend, bands=bands, tissue=tissue, with_probs=with_probs) as job,
    ):
        run(job, predictor, blend=blend, batch_size=batch_size, threads=threads)
        yield job


@settings(max_examples=10)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(12, 48), st.integers(1, 5), st.integers(1, 3))
def test_semantic_tiles_give_what_the_whole_gives(width: int, height: int, core: int, batch: int, bands: int) -> None:
    pixels = blobs(width, height, seed=core, count=15)
    predictor = FakePredictor(tile_px=core + 16)

    with worked_off(pixels, predictor, bands=bands, batch_size=batch) as job:
        np.testing.assert_array_equal(read(job, "classes"), whole(predictor, pixels).argmax(axis=0))


@settings(max_examples=10)
@given(
    st.integers(1, 150),
    st.integers(1, 150),
    st.integers(12, 48),
    st.tuples(st.sampled_from(BLENDS), st.integers(1, 3)),
    st.integers(0, 99),
)
def test_objects_are_the_same_however_the_slide_is_cut(
    width: int, height: int, core: int, how: tuple[Blend, int], seed: int
) -> None:
    blend, bands = how
    pixels = blobs(width, height, seed=seed, count=width * height // 700 + 1, radius=4)
    predictor = FakePredictor(task="instance", tile_px=core + 16, radius=1)
    expected, _ = label(whole(predictor, pixels)[0] > 0)
    widest = max((max(part.stop - part.start for part in box) for box in find_objects(expected)), default=0)
    # The margin, 24 px, must hold what lies on the other side of a centroid.
    assume(widest <= 22)

    with worked_off(pixels, predictor, blend=blend, bands=bands) as job:
        ids = read(job, "instances")
        np.testing.assert_array_equal(canonical(ids), canonical(expected))
        np.testing.assert_array_equal(read(job, "classes"), ids > 0)
        check_table(job.objects(), ids)


@settings(max_examples=15)
@given(
    st.integers(1, 120),
    st.integers(1, 120),
    st.integers(16, 48),
    st.tuples(st.sampled_from(BLENDS), st.integers(1, 3)),
    st.sampled_from(("semantic", "instance")),
)
def test_probabilities_are_those_of_the_whole_however_the_slide_is_cut(
    width: int, height: int, core: int, how: tuple[Blend, int], task: Literal["semantic", "instance"]
) -> None:
    blend, bands = how
    pixels = np.random.default_rng(core).integers(0, 256, (height, width, 3)).astype(np.uint8)
    predictor = FakePredictor(task=task, tile_px=core + 16)
    is_tissue = np.random.default_rng(width).random((-(-height // core), -(-width // core))) < 0.8
    inside = np.kron(is_tissue, np.ones((core, core), dtype=np.bool_))[:height, :width]

    with worked_off(pixels, predictor, blend=blend, bands=bands, tissue=is_tissue, with_probs=True) as job:
        found = read(job, "probability").astype(np.int64)
    maps = whole(predictor, pixels)
    probs = maps if task == "semantic" else predictor.foreground(maps)[None]
    expected = np.where(inside, np.rint(255 * probs), 0)
    np.testing.assert_allclose(found, expected, atol=1)
    assert not found[:, ~inside].any()


def glassy(width: int, height: int, *, seed: int) -> NDArray[np.uint8]:
    """Return tissue with bright spots of all sizes and bright lines as thin and long as the halo of a tile and more."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 150, (height, width, 3)).astype(np.uint8)
    for _ in range(width * height // 300 + 2):
        x, y, long = rng.integers(0, width), rng.integers(0, height), rng.integers(1, 40)
        wide, high = rng.permutation([long, rng.integers(1, 4)])
        pixels[y : y + high, x : x + wide] = 240
    return pixels


@settings(max_examples=25)
@given(
    st.integers(1, 120),
    st.integers(1, 120),
    st.integers(16, 48),
    st.tuples(st.sampled_from(BLENDS), st.integers(0, 60)),
    st.integers(0, 99),
)
def test_bare_glass_has_no_class_whatever_the_network_says_and_however_the_slide_is_cut(
    width: int, height: int, core: int, how: tuple[Blend, int], seed: int
) -> None:
    blend, min_area_px = how
    pixels = glassy(width, height, seed=seed)
    predictor = FakePredictor(tile_px=core + 16, white=WhiteRule(min_area_px=min_area_px))
    grid_shape = (-(-height // core), -(-width // core))
    is_tissue = np.random.default_rng(seed).random(grid_shape) < 0.8
    inside = np.kron(is_tissue, np.ones((core, core), dtype=np.bool_))[:height, :width]

    with worked_off(pixels, predictor, blend=blend, tissue=is_tissue, threads=2, with_probs=True) as job:
        classes, uncertainty, probs = read(job, "classes"), read(job, "uncertainty"), read(job, "probability")
    is_bare = white_pixels(pixels, WhiteRule(min_area_px=min_area_px)) | ~inside
    np.testing.assert_array_equal(classes == 254, is_bare)
    assert not uncertainty[is_bare].any()
    np.testing.assert_array_equal(probs.any(axis=0), ~is_bare)


class Killed(BaseException):
    """What a kill looks like from inside."""


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != "journal")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 40))])
def test_interrupted_work_ends_in_the_same_bytes(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(seed)
    # Holes that are smaller than these small tiles.
    monkeypatch.setattr(holes, "_SMALLEST_PX", 4 if seed % 2 else 64)
    monkeypatch.setattr(holes, "_MARGIN_PX", 2)
    task: Literal["semantic", "instance"] = "semantic" if seed % 3 == 0 else "instance"
    blend, core = random.choice(BLENDS), random.randint(12, 30)
    bands, batch = random.randint(1, 3), random.randint(1, 4)
    pixels = blobs(90, 200, seed=core, count=60, radius=5)
    white = WhiteRule(min_area_px=20) if task == "semantic" and seed % 2 else None
    pixels = np.minimum(pixels, glassy(90, 200, seed=core)) if white else pixels
    predictor = FakePredictor(task=task, tile_px=core + 16, radius=1, white=white)
    slide = ArraySlide(pixels, broken=[Window(70, 100, 3, 3)])
    grid_shape = (-(-200 // core), -(-90 // core))
    tissue = np.random.default_rng(core).random(grid_shape) < 0.8
    tissue[100 // core, 70 // core] = True  # damage where nobody looks is not noticed
    begun = partial(
        job_on, slide=slide, predictor=predictor, blend=blend, bands=bands, tissue=tissue, with_probs=seed % 4 != 1
    )

    with begun(tmp_path / "one") as job:
        run(job, predictor, blend=blend, batch_size=batch)
        lost = job.holes
    kills = 0
    is_done = False
    while not is_done:
        with begun(tmp_path / "other") as job, killing_after(random.randint(1, 6 + 8 * kills)):
            try:
                run(job, predictor, blend=blend, batch_size=batch)
                is_done = True
            except Killed:
                kills += 1

    assert kills > 0
    assert lost
    assert job.holes == lost
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "other")


@contextmanager
def killing_after(writes: int) -> Iterator[None]:
    """Kill the work at one of its writes, before or after it is on disk."""
    left = writes

    def deadly(write: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*args: object, **kwargs: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            write(*args, **kwargs)
            if left == 1:
                left = 0
                raise Killed

        return wrapped

    with (
        patch.object(MaskStore, "write", deadly(MaskStore.write)),
        patch.object(Objects, "save", deadly(Objects.save)),
        patch.object(Journal, "append", deadly(Journal.append)),
    ):
        yield
