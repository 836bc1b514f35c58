"""What every reader of slides promises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.slide_makers import Layout, tissue, write_slide
from wsiseg.geometry import Size, Window
from wsiseg.slides.array import ArraySlide
from wsiseg.slides.open import open_slide

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wsiseg.slides.base import Slide

SIZE = Size(300, 220)
READERS = ("tiff", "openslide", "tiffslide", "images", "array")


@pytest.fixture(params=READERS)
def slide(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Slide]:
    if request.param == "array":
        opened: Slide = ArraySlide(tissue(SIZE), mpp=0.5, downsamples=(2, 4))
    elif request.param == "images":
        Image.fromarray(tissue(SIZE)).save(tmp_path / "image.png")
        opened = open_slide(tmp_path / "image.png", reader="images", slide_mpp=0.5)
    else:
        write_slide(tmp_path / "s.svs", Layout(size=SIZE, levels=(1, 2, 4), family="aperio"))
        opened = open_slide(tmp_path / "s.svs", reader=request.param)
    with opened:
        yield opened


def test_it_says_what_it_is(slide: Slide) -> None:
    info = slide.info

    assert info.size == SIZE
    assert info.levels[0].downsample == 1
    assert all(one.downsample < other.downsample for one, other in zip(info.levels, info.levels[1:], strict=False))
    assert info.mpp is not None
    assert info.mpp.value == pytest.approx(0.5)
    assert info.why


def test_pixels_are_rgb_bytes_of_the_windows_shape(slide: Slide) -> None:
    for level in range(len(slide.info.levels)):
        pixels = slide.read_level(level, Window(3, 5, 31, 17))

        assert pixels.shape == (17, 31, 3)
        assert pixels.dtype == np.uint8


def test_outside_lies_the_background(slide: Slide) -> None:
    beyond = slide.read_level(0, Window(-20, SIZE.height - 4, 30, 20))
    nowhere = slide.read_level(0, Window(SIZE.width, 0, 8, 8))

    assert (beyond[:, :20] == slide.info.background).all()
    assert (beyond[4:] == slide.info.background).all()
    assert (nowhere == slide.info.background).all()


def test_windows_agree_with_the_whole(slide: Slide) -> None:
    # The last level, 4, divides the size: OpenSlide can place its pixels exactly.
    for level in (0, len(slide.info.levels) - 1):
        size = slide.info.levels[level].size
        whole = slide.read_level(level, Window(0, 0, size.width, size.height))
        for window in (Window(0, 0, 16, 16), Window(33, 21, 40, 30), Window(size.width - 9, size.height - 7, 9, 7)):
            np.testing.assert_array_equal(slide.read_level(level, window), whole[window.slices])


def test_what_is_read_belongs_to_the_reader(slide: Slide) -> None:
    window = Window(64, 64, 64, 64)
    first = slide.read_level(0, window)
    kept = first.copy()
    first[:] = 0

    np.testing.assert_array_equal(slide.read_level(0, window), kept)


def test_threads_do_not_disturb_each_other(slide: Slide) -> None:
    windows = [Window(x, y, 50, 50) for y in range(0, SIZE.height, 40) for x in range(0, SIZE.width, 40)]
    alone = [slide.read_level(0, window) for window in windows]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda window: slide.read_level(0, window), windows * 3))

    for one, other in zip(alone * 3, together, strict=True):
        np.testing.assert_array_equal(one, other)
