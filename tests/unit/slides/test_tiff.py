"""The fast reader shows what OpenSlide shows, or leaves the file alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile

from tests.slide_makers import APERIO, Layout, tissue, write_slide
from wsiseg.errors import SlideError, UnreadableError
from wsiseg.geometry import Size, Window
from wsiseg.slides.open import open_slide
from wsiseg.slides.tiff import TiffSlide

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RAW: tuple[dict[str, Any], ...] = tuple(
    {"compression": compression, "photometric": photometric, "predictor": predictor, "levels": (1, 3)}
    for compression in ("none", "lzw", "deflate")
    for photometric in ("rgb", "gray")
    for predictor in (False, True)
    if not (compression == "none" and predictor)
)
JPEG: tuple[dict[str, Any], ...] = tuple(
    {"subsampling": subsampling, "shared_tables": shared, "family": family, "levels": (1, 2, 4)}
    for subsampling in ("444", "422", "420")
    for shared in (False, True)
    for family in ("generic", "aperio")
)
OTHERS: tuple[dict[str, Any], ...] = (
    {"photometric": "rgb", "shared_tables": True, "family": "aperio"},
    {"photometric": "rgb", "family": "generic"},
    {"photometric": "gray", "shared_tables": True},
    {"photometric": "rgb", "family": "ome"},
    {"compression": "33003", "photometric": "rgb", "family": "aperio"},
    {"compression": "33005", "photometric": "rgb", "family": "aperio"},
    {"missing": (3, 7)},
    {"missing": (0,), "compression": "deflate", "photometric": "rgb"},
    {"size": Size(1, 1), "tile": 16},
    {"size": Size(65, 63), "tile": 64},
    {"bigtiff": True},
    {"bigtiff": True, "byteorder": ">", "photometric": "rgb", "compression": "lzw", "predictor": True},
)


def assert_equals_openslide(path: Path) -> None:
    with openslide.OpenSlide(path) as oracle, open_slide(path, reader="tiff") as slide:
        for level, size in enumerate(oracle.level_dimensions):
            rgba = np.asarray(oracle.read_region((0, 0), level, size))
            expected = np.where(rgba[..., 3:] == 255, rgba[..., :3], 255)
            assert slide.info.levels[level].size == Size(*size)
            assert slide.info.levels[level].downsample == pytest.approx(oracle.level_downsamples[level])
            np.testing.assert_array_equal(slide.read_level(level, Window(0, 0, *size)), expected)


@pytest.mark.parametrize("layout", [*RAW, *JPEG, *OTHERS], ids=str)
def test_every_layout_looks_as_in_openslide(make_slide: Callable[..., Path], layout: dict[str, Any]) -> None:
    assert_equals_openslide(make_slide(**layout))


def test_the_real_slide_looks_as_in_openslide(cmu_svs: Path) -> None:
    assert_equals_openslide(cmu_svs)


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "odd/boxes.tiff", "odd/small.svs"])
def test_real_data_looks_as_in_openslide(data_dir: Path, name: str) -> None:
    assert_equals_openslide(data_dir / "slides" / name)


def test_all_colours_of_aperios_ycbcr_are_openslides(tmp_path: Path) -> None:
    path = tmp_path / "colours.svs"
    blue, red = np.meshgrid(np.arange(256), np.arange(256))
    tiles = [
        bytes(
            imagecodecs.jpeg2k_encode(
                np.stack([np.full_like(blue, luma), blue, red], axis=-1).astype(np.uint8),
                codecformat="J2K",
                mct=False,
                reversible=True,
            )
        )
        for luma in (0, 100, 180, 255)
    ]
    tifffile.imwrite(
        path,
        iter(tiles),
        shape=(512, 512, 3),
        dtype=np.uint8,
        tile=(256, 256),
        photometric="rgb",
        compression=33003,
        metadata=None,
        description=APERIO.format(w=512, h=512, t=256, codec="J2K/YUV16", mpp=0.25),
    )

    assert_equals_openslide(path)


def test_jpeg_2000_that_openslide_does_not_know_is_read(make_slide: Callable[..., Path]) -> None:
    path = make_slide(compression="34712", photometric="rgb")

    with open_slide(path) as slide:
        assert slide.info.reader == "tiff"
        pixels = slide.read_level(0, Window(0, 0, 333, 287))

    assert np.abs(pixels.astype(int) - tissue(Size(333, 287))).mean() < 3


def test_levels_in_sub_directories_are_found(make_slide: Callable[..., Path]) -> None:
    with open_slide(make_slide(name="a.ome.tif", family="ome", photometric="rgb", levels=(1, 2, 4))) as slide:
        assert slide.info.vendor == "ome-tiff"
        assert [level.size for level in slide.info.levels] == [Size(333, 287), Size(167, 144), Size(84, 72)]
        assert slide.info.mpp is not None
        assert slide.info.mpp.source == "ome.PhysicalSizeX"


@pytest.mark.parametrize(
    ("shape", "axes", "why"), [((3, 80, 90), "CYX", "3 separate channels"), ((2, 80, 90), "ZYX", "stack")]
)
def test_stacks_and_channels_are_refused_instead_of_shown_in_part(
    tmp_path: Path, shape: tuple[int, ...], axes: str, why: str
) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, np.zeros(shape, np.uint8), tile=(64, 64), photometric="minisblack", metadata={"axes": axes})

    with pytest.raises(SlideError, match=why):
        open_slide(path)


def test_missing_tiles_of_aperio_are_left_to_openslide(make_slide: Callable[..., Path]) -> None:
    path = make_slide(family="aperio", missing=(2,))

    with open_slide(path) as slide:
        assert slide.info.reader == "openslide"
        assert "tiles are missing" in slide.info.why


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"dtype": np.uint16, "tile": (64, 64), "photometric": "rgb"}, "16-bit"),
        ({"dtype": np.uint8, "photometric": "rgb"}, "not in tiles"),
        ({"dtype": np.uint8, "tile": (64, 64), "photometric": "rgb", "planarconfig": "separate"}, "interleaved"),
        ({"dtype": np.uint8, "tile": (64, 64), "photometric": "rgb", "compression": "zstd"}, "compression 50000"),
        (
            {"dtype": np.uint8, "tile": (64, 64), "photometric": "rgb", "extratags": [(274, 3, 1, 3, True)]},
            "Orientation",
        ),
    ],
)
def test_what_cannot_be_shown_exactly_is_not_claimed(tmp_path: Path, options: dict[str, Any], why: str) -> None:
    path = tmp_path / "other.tif"
    shape = (3, 80, 90) if "planarconfig" in options else (80, 90, 3)
    tifffile.imwrite(path, np.zeros(shape, options.pop("dtype")), metadata=None, **options)

    with pytest.raises(SlideError, match=why):
        TiffSlide(path)


def test_only_what_lies_in_a_damaged_tile_is_lost(make_slide: Callable[..., Path]) -> None:
    path = make_slide(family="aperio", size=Size(256, 256))
    with tifffile.TiffFile(path) as file:
        offset = file.pages.first.dataoffsets[5]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\0" * 40)

    with open_slide(path) as slide:
        slide.read_level(0, Window(0, 0, 256, 64))
        slide.read_level(0, Window(128, 0, 128, 256))
        with pytest.raises(UnreadableError, match="level 0 cannot be read at 64, 64"):
            slide.read_level(0, Window(0, 0, 128, 128))
        with pytest.raises(UnreadableError):
            slide.read_level(0, Window(64, 64, 64, 64))


def test_a_tile_of_the_wrong_size_is_damage(tmp_path: Path) -> None:
    small = bytes(imagecodecs.jpeg8_encode(np.zeros((32, 32, 3), np.uint8)))
    path = tmp_path / "s.tif"
    tifffile.imwrite(
        path, iter([small]), shape=(64, 64, 3), dtype=np.uint8, tile=(64, 64), photometric="ycbcr", compression="jpeg"
    )

    with open_slide(path, reader="tiff") as slide, pytest.raises(UnreadableError):
        slide.read_level(0, Window(0, 0, 8, 8))


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_raw_tile_is_a_jpeg_in_true_colours(
    make_slide: Callable[..., Path],
    photometric: str,
    shared: bool,  # noqa: FBT001 - a parameter
) -> None:
    path = make_slide(photometric=photometric, shared_tables=shared, size=Size(200, 130))

    with open_slide(path) as slide:
        assert isinstance(slide, TiffSlide)
        raw = slide.raw_tile(0, 1, 1)
        assert raw is not None
        assert raw.colorspace == photometric
        decoded = imagecodecs.jpeg8_decode(raw.data)
        np.testing.assert_array_equal(decoded, slide.read_level(0, Window(64, 64, 64, 64)))


def test_raw_tiles_of_the_real_slide_are_its_pixels(cmu_svs: Path) -> None:
    with open_slide(cmu_svs) as slide:
        assert isinstance(slide, TiffSlide)
        raw = slide.raw_tile(0, 4, 6)
        assert raw is not None
        np.testing.assert_array_equal(
            imagecodecs.jpeg8_decode(raw.data), slide.read_level(0, Window(960, 1440, 240, 240))
        )


def test_there_are_raw_tiles_of_colour_jpeg_only(make_slide: Callable[..., Path]) -> None:
    with open_slide(make_slide(compression="lzw", photometric="rgb")) as slide:
        assert isinstance(slide, TiffSlide)
        with pytest.raises(SlideError, match="no colour JPEG"):
            slide.raw_tile(0, 0, 0)
    with open_slide(make_slide(name="holes.tif", missing=(0,))) as slide:
        assert isinstance(slide, TiffSlide)
        assert slide.raw_tile(0, 0, 0) is None


def test_each_tile_is_decoded_once_however_many_windows_touch_it(
    make_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    plain = imagecodecs.jpeg8_decode

    def counting(data: bytes, **options: Any) -> Any:  # noqa: ANN401 - as the codec
        decoded.append(data)
        return plain(data, **options)

    monkeypatch.setattr(imagecodecs, "jpeg8_decode", counting)
    with open_slide(make_slide(size=Size(256, 256))) as slide:
        for y in range(0, 225, 32):
            for x in range(0, 225, 32):
                slide.read_level(0, Window(x - 8, y - 8, 48, 48))

    assert len(decoded) == 16


def test_the_pixels_outlive_the_slide(tmp_path: Path) -> None:
    pixels = write_slide(tmp_path / "s.tif", Layout(compression="none", photometric="rgb"))

    with open_slide(tmp_path / "s.tif") as slide:
        read = slide.read_level(0, Window(0, 0, 64, 64))

    np.testing.assert_array_equal(read, pixels[:64, :64])
