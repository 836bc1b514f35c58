"""Tissue is found in any stain; bare glass, noise and darkness are none, and nothing is a valid result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wsiseg.errors import ConfigError, DataError, UnreadableError
from wsiseg.geometry import Region, Size, Window
from wsiseg.slides.array import ArraySlide
from wsiseg.slides.open import open_slide
from wsiseg.tissue import TissueMask, TissueSettings, find_tissue, read_thumbnail
from wsiseg.tissue.pixels import tissue_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SETTINGS = TissueSettings()


@pytest.fixture(scope="module")
def cmu(cmu_svs: Path) -> NDArray[np.uint8]:
    with open_slide(cmu_svs) as slide:
        return slide.read_level(0, Window(0, 0, 2220, 2960))


def noise(mean: float, sd: float = 3.0, size: int = 1200) -> NDArray[np.uint8]:
    return np.clip(np.random.default_rng(0).normal(mean, sd, (size, size, 3)), 0, 255).astype(np.uint8)


def share(pixels: NDArray[np.uint8], mpp: float | None = 0.5) -> float:
    return float(find_tissue(ArraySlide(pixels, mpp=mpp), SETTINGS).mask.mean())


def test_tissue_is_found_in_every_stain(cmu: NDArray[np.uint8]) -> None:
    stained = share(cmu)

    assert 0.33 < stained < 0.43
    pale = (255 - (255 - cmu.astype(np.float32)) * 0.3).astype(np.uint8)
    yellowed = (cmu * np.array([0.95, 0.9, 0.78])).astype(np.uint8)
    inverted: NDArray[np.uint8] = 255 - cmu
    assert share(pale) == pytest.approx(stained, abs=0.03)
    assert share(yellowed) == pytest.approx(stained, abs=0.03)
    assert stained <= share(inverted) < 0.55


@pytest.mark.parametrize("mean", [2, 6, 20, 180, 215, 240, 254])
def test_a_blank_slide_is_empty(mean: float) -> None:
    assert share(noise(mean)) == 0
    assert share(np.full((600, 600, 3), mean, np.uint8)) == 0


def test_uneven_light_is_no_tissue() -> None:
    slope = np.linspace(0, -15, 1200)[None, :, None]

    assert share((noise(243).astype(np.float32) + slope).astype(np.uint8)) == 0


def test_a_slide_full_of_tissue_is_full(cmu: NDArray[np.uint8]) -> None:
    assert share(np.ascontiguousarray(cmu[1800:2800, 840:1100])) > 0.97


def test_black_and_white_margins_are_no_tissue(cmu: NDArray[np.uint8]) -> None:
    for colour in (0, 255):
        framed = np.full((3600, 4400, 3), colour, np.uint8)
        framed[300:3260, 300:2520] = (cmu * 0.95).astype(np.uint8)

        assert share(framed) == pytest.approx(0.38 * cmu.size / framed.size, abs=0.03)


def test_dark_backgrounds_of_fluorescence_are_no_tissue(data_dir: Path) -> None:
    with open_slide(data_dir / "slides" / "dapi-fluorescence.ndpi") as slide:
        mask = find_tissue(slide, SETTINGS).mask

    assert 0.5 < mask.mean() < 0.9
    assert not mask[-20:].any()
    assert not mask[:20, :60].any()


def test_slides_of_the_data_folder(data_dir: Path) -> None:
    with open_slide(data_dir / "slides" / "camelyon-jpeg.dcm") as slide:
        tissue = find_tissue(slide, SETTINGS)

    assert 0.15 < tissue.mask.mean() < 0.3
    assert tissue.fraction(Region(0, 640, 1152, 60)) < 0.01


def test_specks_go_and_holes_are_filled_by_area() -> None:
    pixels = np.full((2000, 2000, 3), 243, np.uint8)
    pixels[200:1400, 200:1400] = (200, 120, 180)
    pixels[700:820, 700:820] = 243
    pixels[1700:1780, 1700:1780] = (200, 120, 180)
    slide = ArraySlide(pixels, mpp=0.5)

    tissue = find_tissue(slide, SETTINGS)
    all_of_it = find_tissue(slide, TissueSettings(min_area_mm2=0, max_hole_mm2=0))

    assert tissue.area_mm2 == pytest.approx(0.36, rel=0.03)
    assert tissue.fraction(Region(720, 720, 80, 80)) == 1
    assert tissue.fraction(Region(1700, 1700, 80, 80)) == 0
    assert all_of_it.fraction(Region(720, 720, 80, 80)) == 0
    assert all_of_it.fraction(Region(1700, 1700, 80, 80)) > 0.9


def test_without_a_scale_tissue_is_found_all_the_same(cmu: NDArray[np.uint8]) -> None:
    tissue = find_tissue(ArraySlide(cmu), SETTINGS)

    assert 0.3 < tissue.mask.mean() < 0.45
    assert tissue.area_mm2 is None


def test_tiny_slides_do_not_fail() -> None:
    for pixels in (np.full((1, 1, 3), 250, np.uint8), np.full((1, 7, 3), 90, np.uint8), noise(240, size=5)):
        slide = ArraySlide(pixels, mpp=0.5)

        assert find_tissue(slide, SETTINGS).mask.shape == read_thumbnail(slide, 8.0).pixels.shape[:2]


def test_no_search_means_everything() -> None:
    tissue = find_tissue(ArraySlide(noise(240, size=100), mpp=0.5), TissueSettings(method="none"))

    assert tissue.fraction(Region(0, 0, 100, 100)) == 1
    assert tissue.fraction(Region(50, 0, 100, 100)) == 0.5
    assert tissue.area_mm2 == pytest.approx(0.0025)
    assert TissueMask.everything(Size(7, 3)).fraction(Region(6, 2, 1, 1)) == 1


def test_a_mask_of_any_size_is_stretched_over_the_slide(tmp_path: Path) -> None:
    mask = np.zeros((10, 30), np.uint8)
    mask[:, 15:] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")

    tissue = find_tissue(ArraySlide(noise(240, size=600), mpp=0.5), TissueSettings(method=str(tmp_path / "m.png")))

    assert tissue.fraction(Region(300, 0, 300, 600)) == 1
    assert tissue.fraction(Region(0, 0, 600, 600)) == 0.5
    assert tissue.fraction(Region(299, 7, 2, 11)) == 0.5
    assert tissue.downsample == 20


def test_masks_of_slides_are_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    folder = TissueSettings(method=str(tmp_path))

    assert folder.for_slide("a").method == str(tmp_path / "a.png")
    assert folder.for_slide("a", tmp_path / "other.png").method == str(tmp_path / "other.png")
    assert SETTINGS.for_slide("a") is SETTINGS
    with pytest.raises(ConfigError, match=r"no b\.png"):
        folder.for_slide("b")
    with pytest.raises(DataError):
        find_tissue(ArraySlide(noise(9, size=9)), TissueSettings(method=str(tmp_path / "gone.png")))


@given(st.data())
def test_fractions_are_those_of_counted_pixels(data: st.DataObject) -> None:
    mask = np.array(data.draw(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=3, max_size=3)))
    factor = data.draw(st.integers(1, 5))
    x, y = data.draw(st.integers(-5, 25)), data.draw(st.integers(-5, 20))
    width, height = data.draw(st.integers(1, 25)), data.draw(st.integers(1, 25))
    size = Size(4 * factor, 3 * factor)
    tissue = TissueMask(mask, downsample=(factor, factor), mpp=None, slide_size=size)

    full = np.zeros((80, 80), dtype=bool)
    full[20 : 20 + size.height, 20 : 20 + size.width] = np.kron(mask, np.ones((factor, factor), dtype=bool))
    counted = full[20 + y : 20 + y + height, 20 + x : 20 + x + width].mean()

    assert tissue.fraction(Region(x, y, width, height)) == pytest.approx(counted, abs=1e-8)


def test_the_thumbnails_edge_shows_the_slide() -> None:
    thumbnail = read_thumbnail(ArraySlide(np.zeros((1003, 1001, 3), np.uint8), mpp=4.0), 8.0)

    assert (thumbnail.pixels == 0).all()
    assert not tissue_of(thumbnail.pixels).any()


def test_what_cannot_be_read_counts_as_tissue_and_the_rest_is_searched() -> None:
    pixels = noise(240, size=4000)
    hole = Window(1000, 1400, 200, 200)

    slide = ArraySlide(pixels, mpp=0.5, broken=[hole])
    tissue = find_tissue(slide, SETTINGS)

    assert tissue.fraction(Region(1000, 1400, 200, 200)) == 1
    assert tissue.mask.mean() < 0.02
    assert read_thumbnail(slide, 8.0).is_unreadable.mean() < 0.02


def test_a_slide_that_cannot_be_read_anywhere_is_refused() -> None:
    slide = ArraySlide(noise(240, size=500), mpp=0.5, broken=[Window(0, 0, 500, 500)])

    with pytest.raises(UnreadableError):
        find_tissue(slide, SETTINGS)
