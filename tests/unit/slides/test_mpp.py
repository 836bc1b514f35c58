"""The pixel size is what the file says, in whatever unit, unless it contradicts itself or makes no sense."""

from __future__ import annotations

import pytest

from wsiseg.errors import ConfigError, SlideError
from wsiseg.geometry import Size
from wsiseg.slides.base import Level, SlideInfo
from wsiseg.slides.mpp import choose_mpp, require_mpp

PIXEL_SPACING = "dicom.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing"


def tiff(resolution: float, unit: str) -> dict[str, str]:
    return {"tiff.XResolution": str(resolution), "tiff.YResolution": str(resolution), "tiff.ResolutionUnit": unit}


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25"}, 0.25),
        ({"aperio.MPP": "0.4990"}, 0.499),
        ({"aperio.MPP": "0,4990"}, 0.499),
        ({"ventana.ScanRes": "0.465"}, 0.465),
        ({"philips.DICOM_PIXEL_SPACING": '"0.000226891" "0.000226891"'}, 0.226891),
        ({f"{PIXEL_SPACING}[0]": "0.000499", f"{PIXEL_SPACING}[1]": "0.000499"}, 0.499),
        ({"hamamatsu.XResolution": "43826"}, 0.228175),
        (tiff(20000, "centimeter"), 0.5),
        (tiff(20000, "cm"), 0.5),
        (tiff(50800, "inch"), 0.5),
        ({"tiff.XResolution": "50800", "tiff.YResolution": "50800"}, 0.5),
        ({"ome.PhysicalSizeX": "0.5", "ome.PhysicalSizeY": "0.5"}, 0.5),
        ({"ome.PhysicalSizeX": "500", "ome.PhysicalSizeXUnit": "nm"}, 0.5),
        ({"ome.PhysicalSizeX": "0.0005", "ome.PhysicalSizeXUnit": "mm"}, 0.5),
        ({"ome.PhysicalSizeX": "0.5", "ome.PhysicalSizeXUnit": "um"}, 0.5),
        ({"ome.PhysicalSizeX": "0.5", "ome.PhysicalSizeXUnit": "micrometre"}, 0.5),
        ({"mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_X": "0.2325"}, 0.2325),
    ],
    ids=str,
)
def test_every_source_is_understood_in_its_unit(properties: dict[str, str], expected: float) -> None:
    mpp, problem, _ = choose_mpp(properties)

    assert problem is None
    assert mpp is not None
    assert mpp.value == pytest.approx(expected, rel=1e-4)
    assert mpp.warnings == ()


@pytest.mark.parametrize(
    "properties",
    [
        tiff(72, "inch"),
        tiff(96, "inch"),
        tiff(300, "inch"),
        tiff(28.346, "centimeter"),
        tiff(118.11, "centimeter"),
        tiff(20000, "none"),
        tiff(1, "centimeter"),
        tiff(0, "inch"),
        {"image.dpi-x": "72", "image.dpi-y": "72"},
        {
            "openslide.vendor": "generic-tiff",
            "openslide.mpp-x": "352.8",
            "openslide.mpp-y": "352.8",
            **tiff(72, "inch"),
        },
        {"aperio.MPP": "499"},
        {"aperio.MPP": "0.0004990"},
        {"aperio.MPP": "unknown"},
        {"ome.PhysicalSizeX": "1", "ome.PhysicalSizeXUnit": "pixel"},
        {"openslide.objective-power": "20"},
        {},
    ],
    ids=str,
)
def test_defaults_and_nonsense_are_no_pixel_size(properties: dict[str, str]) -> None:
    mpp, problem, _ = choose_mpp(properties)

    assert mpp is None
    assert problem


def test_an_objective_power_is_shown_and_never_used() -> None:
    mpp, problem, candidates = choose_mpp({"aperio.AppMag": "40"})

    assert mpp is None
    assert problem is not None
    assert "guess" in problem
    assert [(one.x, one.is_guess) for one in candidates] == [(0.25, True)]


def test_the_scanner_beats_the_tags_and_rivals_are_kept() -> None:
    mpp, _, candidates = choose_mpp({"aperio.MPP": "0.5", **tiff(20080, "centimeter")})

    assert mpp is not None
    assert (mpp.value, mpp.source, mpp.warnings) == (0.5, "aperio.MPP", ())
    assert [one.source for one in candidates] == ["aperio.MPP", "tiff.XResolution"]


def test_a_small_contradiction_warns() -> None:
    mpp, _, _ = choose_mpp({"aperio.MPP": "0.5", "ome.PhysicalSizeX": "0.55"})

    assert mpp is not None
    assert mpp.value == 0.5
    assert "ome.PhysicalSizeX says 0.55" in mpp.warnings[0]


def test_a_large_contradiction_stops() -> None:
    mpp, problem, candidates = choose_mpp({"aperio.MPP": "0.25", "ome.PhysicalSizeX": "0.5"})

    assert mpp is None
    assert problem == "the file contradicts itself: aperio.MPP says 0.25 µm/px, but ome.PhysicalSizeX says 0.5 µm/px"
    assert len(candidates) == 2


def test_ten_times_off_in_the_tags_is_libvips() -> None:
    mpp, _, _ = choose_mpp({"aperio.MPP": "0.5", **tiff(2000, "centimeter")})

    assert mpp is not None
    assert mpp.value == 0.5
    assert "libvips" in mpp.warnings[0]


def test_coarse_tags_alone_are_doubted() -> None:
    mpp, _, _ = choose_mpp(tiff(2000, "centimeter"))

    assert mpp is not None
    assert mpp.value == pytest.approx(5)
    assert "ten times" in mpp.warnings[0]


def test_oblong_pixels_warn() -> None:
    mpp, _, _ = choose_mpp({"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.52"})

    assert mpp is not None
    assert mpp.value == pytest.approx(0.51)
    assert "not square" in mpp.warnings[0]


def test_the_user_beats_the_file_and_hears_about_it() -> None:
    mpp, problem, _ = choose_mpp({"aperio.MPP": "0.25", "ome.PhysicalSizeX": "0.5"}, slide_mpp=0.5)

    assert problem is None
    assert mpp is not None
    assert (mpp.value, mpp.source) == (0.5, "given")
    assert mpp.warnings == ("given says 0.5 µm/px, but aperio.MPP says 0.25 µm/px",)


def test_an_odd_value_of_the_user_is_taken_with_a_warning() -> None:
    mpp, _, _ = choose_mpp({}, slide_mpp=28.97)

    assert mpp is not None
    assert mpp.value == 28.97
    assert mpp.warnings


@pytest.mark.parametrize("value", [0, -0.5, float("nan"), float("inf")])
def test_an_impossible_value_of_the_user_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="--slide-mpp"):
        choose_mpp({}, slide_mpp=value)


def test_what_needs_a_pixel_size_says_how_to_give_it() -> None:
    mpp, problem, _ = choose_mpp({})
    info = SlideInfo(
        path=None, reader="array", levels=(Level(size=Size(1, 1), downsample=1),), mpp=mpp, mpp_problem=problem
    )

    with pytest.raises(SlideError, match=r"no pixel size.*--slide-mpp"):
        require_mpp(info)
