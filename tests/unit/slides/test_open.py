"""A file is what it holds, not what it is called; and what cannot be opened says why in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.slide_makers import Family, Layout, tissue, write_slide
from wsiseg.errors import ConfigError, SlideError, UnreadableError
from wsiseg.geometry import Size, Window
from wsiseg.slides.open import READERS, open_slide
from wsiseg.slides.tiff_whole import check_directories

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def assert_refused(path: Path | str, why: str) -> None:
    with pytest.raises(SlideError, match=why) as caught:
        open_slide(path)
    assert "\n" not in str(caught.value)


def test_the_name_does_not_matter(tmp_path: Path, make_slide: Callable[..., Path]) -> None:
    slide = make_slide(name="really a slide.png", family="aperio")
    Image.fromarray(tissue(Size(50, 40))).save(tmp_path / "image", format="JPEG")
    (tmp_path / "image").rename(tmp_path / "image.svs")

    with open_slide(slide) as opened:
        assert opened.info.reader == "tiff"
    with open_slide(tmp_path / "image.svs") as opened:
        assert (opened.info.reader, opened.info.why) == ("images", "JPEG image")


def test_names_may_hold_spaces_and_any_letters(make_slide: Callable[..., Path]) -> None:
    path = make_slide(name="Präparat 7 – Größe 切片.svs", family="aperio")
    for reader in ("tiff", "openslide", "tiffslide"):
        with open_slide(str(path), reader=reader) as slide:
            assert slide.read_level(0, Window(0, 0, 9, 9)).shape == (9, 9, 3)


def test_a_reader_can_be_forced_and_must_exist(make_slide: Callable[..., Path]) -> None:
    path = make_slide(family="aperio")

    with open_slide(path, reader="openslide") as slide:
        assert slide.info.reader == "openslide"
    with pytest.raises(ConfigError, match=", ".join(READERS)):
        open_slide(path, reader="bioformats")


def test_the_users_pixel_size_wins(make_slide: Callable[..., Path]) -> None:
    for reader in ("tiff", "openslide", "tiffslide", "images"):
        with open_slide(make_slide(family="aperio"), reader=reader, slide_mpp=0.3) as slide:
            assert slide.info.mpp is not None
            assert slide.info.mpp.value == 0.3


def test_files_that_are_no_slides_say_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "empty.svs").touch()
    (tmp_path / "text.svs").write_text("patient,slide\n1,2\n")
    (tmp_path / "pointer.svs").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    (tmp_path / "noise.svs").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "stub.tif").write_bytes(b"II*\0\x08\0\0\0" + b"\xff" * 20)
    (tmp_path / "stub.png").write_bytes(b"\x89PNG\r\n\x1a\n")

    assert_refused(tmp_path / "missing.svs", "there is no such file")
    assert_refused(tmp_path, "a folder, not a slide")
    assert_refused(tmp_path / "empty.svs", "empty")
    assert_refused(tmp_path / "text.svs", "not a slide or image of any known format")
    assert_refused(tmp_path / "pointer.svs", "Git LFS pointer.*git lfs pull")
    assert_refused(tmp_path / "noise.svs", "not a slide or image of any known format")
    assert_refused(tmp_path / "stub.tif", "cut short")
    assert_refused(tmp_path / "stub.png", "not an image that can be read")


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_slide_cut_before_its_directory_says_so(tmp_path: Path, cmu_svs: Path, share: float) -> None:
    whole = cmu_svs.read_bytes()
    (tmp_path / "cut.svs").write_bytes(whole[: int(len(whole) * share)])

    assert_refused(tmp_path / "cut.svs", "the file is cut short.*Copy it again")


@pytest.mark.parametrize("share", [0.7, 0.9, 0.97])
def test_a_slide_cut_behind_its_first_directory_says_so(tmp_path: Path, cmu_svs: Path, share: float) -> None:
    # It opened, since its pixels were there, as one without a pixel size, and asked for --slide-mpp.
    whole = cmu_svs.read_bytes()
    (tmp_path / "cut.svs").write_bytes(whole[: int(len(whole) * share)])

    assert_refused(tmp_path / "cut.svs", "the file is cut short.*Copy it again")


@pytest.mark.parametrize("family", ["aperio", "generic", "ome"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_slide_is_whole_to_its_last_byte(tmp_path: Path, family: Family, *, bigtiff: bool) -> None:
    path = tmp_path / "s.tif"
    write_slide(path, Layout(family=family, levels=(1, 2), bigtiff=bigtiff))

    check_directories(path)
    path.write_bytes(path.read_bytes()[:16] + b"\0" * 8)
    with pytest.raises(SlideError, match="cut short"):
        check_directories(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_of_a_slide_whose_data_is_cut_the_rest_is_read(tmp_path: Path, share: float) -> None:
    path = tmp_path / "s.svs"
    write_slide(path, Layout(family="aperio", size=Size(512, 512)))
    whole = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        first, last = page.dataoffsets[0], page.dataoffsets[-1] + page.databytecounts[-1]
        tags = max(tag.valueoffset + 8 * tag.count for tag in page.tags)
    if tags > first:
        cut = bytearray(whole)
        # Directories may lie behind the data: blank the data instead of cutting.
        middle = first + int((last - first) * share)
        cut[middle:last] = bytes(last - middle)
        path.write_bytes(cut)
    else:
        path.write_bytes(whole[: first + int((last - first) * share)])

    try:
        slide = open_slide(path)
    except SlideError:
        return
    with slide:
        good = bad = 0
        for y in range(0, 512, 64):
            for x in range(0, 512, 64):
                try:
                    slide.read_level(0, Window(x, y, 64, 64))
                    good += 1
                except UnreadableError as error:
                    assert str(error).startswith("s.svs: level 0 cannot be read at")  # noqa: PT017
                    bad += 1
    assert good >= int(64 * share) - 8
    assert bad >= int(64 * (1 - share)) - 8


def test_the_odd_files_say_what_is_wrong(data_dir: Path) -> None:
    assert_refused(data_dir / "slides" / "odd" / "unopenable.tiff", "compression: 52479")
    for reader in ("tiff", "openslide"):
        with open_slide(data_dir / "slides" / "odd" / "unreadable.svs", reader=reader) as slide:
            for _ in range(2):
                with pytest.raises(UnreadableError, match="Bogus marker length"):
                    slide.read_level(0, Window(0, 0, 16, 16))


def test_a_failed_openslide_goes_on_reading_what_is_whole(make_slide: Callable[..., Path]) -> None:
    path = make_slide(family="aperio", size=Size(256, 256))
    with tifffile.TiffFile(path) as file:
        offset = file.pages.first.dataoffsets[0]
    with path.open("r+b") as damaged:
        damaged.seek(offset)
        damaged.write(b"\0" * 40)

    with open_slide(path, reader="openslide") as slide:
        with pytest.raises(UnreadableError):
            slide.read_level(0, Window(0, 0, 64, 64))
        assert slide.read_level(0, Window(128, 128, 64, 64)).std() > 1


@pytest.mark.parametrize(
    ("array", "options", "why"),
    [
        (np.zeros((70, 80, 3), np.uint16), {"photometric": "rgb"}, "uint16 pixels.*8-bit"),
        (np.zeros((70, 80, 3), np.uint16), {"photometric": "rgb", "tile": (64, 64)}, "16-bit pixels"),
        (np.zeros((70, 80), np.float32), {}, "float32 pixels.*8-bit"),
        (np.zeros((70, 80, 2), np.uint8), {"photometric": "minisblack", "planarconfig": "contig"}, "2 channels"),
    ],
)
def test_tiffs_that_are_not_8_bit_colour_are_refused(
    tmp_path: Path, array: np.ndarray[Any, Any], options: dict[str, Any], why: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", array, metadata=None, **options)

    assert_refused(tmp_path / "a.tif", why)


def test_sixteen_bit_png_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "a.png")

    assert_refused(tmp_path / "a.png", "8-bit")


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1"])
def test_plain_images_become_rgb(tmp_path: Path, suffix: str, mode: str) -> None:
    image = Image.fromarray(tissue(Size(31, 23))).convert(mode)
    image.save(tmp_path / f"a.{suffix}")

    with open_slide(tmp_path / f"a.{suffix}") as slide:
        assert slide.info.mpp is None
        np.testing.assert_array_equal(slide.read_level(0, Window(0, 0, 31, 23)), np.asarray(image.convert("RGB")))


def test_transparent_pixels_show_the_background(tmp_path: Path) -> None:
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:4, :, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "a.png")

    with open_slide(tmp_path / "a.png") as slide:
        pixels = slide.read_level(0, Window(0, 0, 8, 8))

    assert (pixels[:4] == 0).all()
    assert (pixels[4:] == 255).all()


def test_one_pixel_is_a_slide(tmp_path: Path) -> None:
    Image.fromarray(np.full((1, 1, 3), 77, np.uint8)).save(tmp_path / "a.png")

    with open_slide(tmp_path / "a.png", slide_mpp=0.5) as slide:
        assert slide.info.size == Size(1, 1)
        assert (slide.read_level(0, Window(-1, -1, 3, 3))[1, 1] == 77).all()


def test_a_broken_image_is_unreadable_not_fatal(tmp_path: Path) -> None:
    Image.fromarray(tissue(Size(200, 200))).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])

    with open_slide(tmp_path / "a.png") as slide, pytest.raises(UnreadableError, match="cannot be decoded"):
        slide.read_level(0, Window(0, 0, 10, 10))


def test_an_image_too_large_to_decode_whole_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(tissue(Size(30, 30))).save(tmp_path / "a.png")
    monkeypatch.setattr("wsiseg.slides.images.MAX_PIXELS", 800)

    assert_refused(tmp_path / "a.png", "too large.*tiled pyramidal TIFF")


def test_resolutions_of_images_are_read(tmp_path: Path) -> None:
    pixels = tissue(Size(30, 30))
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", resolution=(20000, 20000), resolutionunit=3)
    Image.fromarray(pixels).save(tmp_path / "a.png", dpi=(50800, 50800))
    Image.fromarray(pixels).save(tmp_path / "print.png", dpi=(300, 300))

    for name, expected in (("a.tif", 0.5), ("a.png", 0.5)):
        with open_slide(tmp_path / name) as slide:
            assert slide.info.mpp is not None
            assert slide.info.mpp.value == pytest.approx(expected, rel=1e-3)
    with open_slide(tmp_path / "print.png") as slide:
        assert slide.info.mpp is None


def test_a_url_goes_to_tiffslide() -> None:
    with pytest.raises(SlideError, match="tiffslide cannot open it"):
        open_slide("memory://nothing.svs")
    with pytest.raises(ConfigError, match="--reader tiffslide"):
        open_slide("https://example.org/a.svs", reader="tiff")


# A path that went through pathlib has lost a slash.
@pytest.mark.parametrize("url", ["memory://slides/a.svs", "memory:/slides/a.svs"])
def test_a_remote_slide_is_read(cmu_svs: Path, url: str) -> None:
    fsspec.filesystem("memory").pipe("/slides/a.svs", cmu_svs.read_bytes())

    with open_slide(url) as slide, open_slide(cmu_svs) as local:
        window = Window(1000, 1000, 60, 60)
        np.testing.assert_array_equal(slide.read_level(0, window), local.read_level(0, window))
        assert (slide.info.reader, slide.info.name) == ("tiffslide", "a.svs")


def test_a_file_url_is_a_file(cmu_svs: Path) -> None:
    with open_slide(f"file://{cmu_svs}") as slide:
        assert slide.info.reader == "tiff"


def test_dicom_shows_true_colours(data_dir: Path) -> None:
    window = Window(800, 1000, 400, 400)
    with (
        open_slide(data_dir / "slides" / "cmu1-dicom") as dicom,
        open_slide(data_dir / "slides" / "CMU-1-Small-Region.svs") as svs,
    ):
        assert "YCbCr" in dicom.info.why
        assert np.abs(dicom.read_level(0, window).astype(int) - svs.read_level(0, window)).mean() < 12
        assert len(dicom.info.levels) == 12
    with open_slide(data_dir / "slides" / "camelyon-jpeg.dcm") as slide:
        assert "YCbCr" not in slide.info.why
        assert slide.info.mpp is None
        assert slide.info.mpp_problem is not None
        assert "28.97" in slide.info.mpp_problem


def test_fluorescence_is_read(data_dir: Path) -> None:
    with open_slide(data_dir / "slides" / "dapi-fluorescence.ndpi") as slide:
        assert slide.info.reader == "openslide"
        assert slide.info.levels[1].tile == Size(1984, 8)
        assert slide.read_level(6, Window(0, 0, 62, 76)).mean() < 60
