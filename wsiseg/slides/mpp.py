"""The pixel size of a slide: everything the file says about it, and what of that can be trusted."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from wsiseg.errors import ConfigError, SlideError
from wsiseg.slides.base import Mpp, MppCandidate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wsiseg.slides.base import SlideInfo

SMALLEST_UM, LARGEST_UM = 0.05, 5.0
WARNING_DISAGREEMENT = 0.05
LARGEST_DISAGREEMENT = 0.20
LARGEST_ANISOTROPY = 0.02
# A scanner's level 0 is finer than this; a coarser value that only the TIFF tags give is often ten times too large,
# because libvips counts pixels per mm where the tag counts pixels per cm.
COARSE_TIFF_UM = 2.0
# A slide whose pixels are this much coarser than asked for gains nothing by interpolation.
COARSER = 1.1

# Ways to write a unit -> micrometres per unit.
UNITS_UM: Mapping[str, float] = {
    "nm": 1e-3,
    "nanometer": 1e-3,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "m": 1e6,
    "meter": 1e6,
    "in": 25400.0,
    "inch": 25400.0,
}
POWER_TO_UM: Mapping[float, float] = {5: 2.0, 10: 1.0, 20: 0.5, 40: 0.25, 60: 0.17, 63: 0.16, 100: 0.1}

# Keys that hold micrometres per pixel as they stand, the most trustworthy first.
_DIRECT = (
    ("openslide.mpp-x", "openslide.mpp-y"),
    ("tiffslide.mpp-x", "tiffslide.mpp-y"),
    ("aperio.MPP", "aperio.MPP"),
    (
        "mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_X",
        "mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_Y",
    ),
    ("openslide.mirax.MPP", "openslide.mirax.MPP"),
    ("ventana.ScanRes", "ventana.ScanRes"),
)
_DICOM = "dicom.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing"
_POWERS = (
    "openslide.objective-power",
    "tiffslide.objective-power",
    "aperio.AppMag",
    "hamamatsu.SourceLens",
    "ome.NominalMagnification",
)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def find_candidates(properties: Mapping[str, str]) -> tuple[MppCandidate, ...]:
    """Return everything that a file's metadata says about its pixel size, best first.

    Parameters
    ----------
    properties
        Metadata under OpenSlide's names, and ``ome.PhysicalSizeX`` and the like.
    """
    return tuple(_measured(properties)) + tuple(_guessed(properties))


def choose_mpp(
    properties: Mapping[str, str], *, slide_mpp: float | None = None
) -> tuple[Mpp | None, str | None, tuple[MppCandidate, ...]]:
    """Return the pixel size, what is wrong with it if there is none, and all candidates.

    Parameters
    ----------
    properties
        As for `find_candidates`.
    slide_mpp
        What the user says, in micrometres per level-0 pixel; beats the file.

    Raises
    ------
    ConfigError
        If `slide_mpp` is not a positive number.
    """
    candidates = find_candidates(properties)
    if slide_mpp is not None:
        return _given(slide_mpp, candidates), None, candidates
    measured = [candidate for candidate in candidates if not candidate.is_guess]
    sane = [candidate for candidate in measured if is_plausible(candidate)]
    if not sane:
        return None, _nothing_sane(measured, candidates), candidates
    best, *rivals = sane
    warnings = [_insane(candidate) for candidate in measured if not is_plausible(candidate)]
    for rival in rivals:
        apart = _disagreement(best, rival)
        if rival.source.startswith("tiff.") and _is_tenfold(best, rival):
            warnings.append(f"{_say(rival)} is ten times off, as libvips writes it, and is ignored")
        elif apart > LARGEST_DISAGREEMENT:
            return None, f"the file contradicts itself: {_say(best)}, but {_say(rival)}", candidates
        elif apart > WARNING_DISAGREEMENT:
            warnings.append(f"{_say(best)}, but {_say(rival)}")
    if abs(best.x - best.y) > LARGEST_ANISOTROPY * max(best.x, best.y):
        warnings.append(f"pixels are not square: {best.x:.4g} by {best.y:.4g} µm")
    if best.source.startswith("tiff.") and _mean(best) >= COARSE_TIFF_UM:
        warnings.append(f"{_say(best)} is coarse and may be ten times too large, as libvips writes it")
    return Mpp(value=_mean(best), x=best.x, y=best.y, source=best.source, warnings=tuple(warnings)), None, candidates


def check_mpp(slide_mpp: float) -> None:
    """Refuse what the user says if no pixel can have that size.

    Raises
    ------
    ConfigError
        If it is not a positive number.
    """
    if not (math.isfinite(slide_mpp) and slide_mpp > 0):
        raise ConfigError(f"a pixel size cannot be {slide_mpp:g} µm", where="--slide-mpp", mend="Give µm per pixel")


def is_plausible(candidate: MppCandidate) -> bool:
    """Tell whether a microscope slide can have such pixels: 0.05 to 5 µm along both sides."""
    return all(SMALLEST_UM <= side <= LARGEST_UM for side in (candidate.x, candidate.y))


def require_mpp(info: SlideInfo) -> float:
    """Return the pixel size in micrometres per level-0 pixel.

    Raises
    ------
    SlideError
        If it is unknown or contradictory.
    """
    if info.mpp is None:
        raise SlideError(
            info.mpp_problem or "the slide carries no pixel size",
            where=info.name,
            mend="Pass --slide-mpp with the micrometres per pixel of the slide if you know them",
        )
    return info.mpp.value


def scale_warnings(info: SlideInfo, downsample: float) -> list[str]:
    """Return what a user should know about the scale of pixels that are read from a slide, one line each.

    Parameters
    ----------
    info
        The slide.
    downsample
        Level-0 pixels per pixel that is read.
    """
    warnings = [] if info.mpp is None else [f"{info.name}: {warning}" for warning in info.mpp.warnings]
    if downsample * COARSER < 1:
        warnings.append(
            f"{info.name}: its pixels are interpolated, they are {1 / downsample:.3g} times coarser than asked for"
        )
    return warnings


def _measured(properties: Mapping[str, str]) -> Iterator[MppCandidate]:
    for key_x, key_y in _DIRECT:
        # Generic TIFFs have no pixel size of their own: OpenSlide derives it from the tags, which come below.
        if key_x.startswith("openslide.mpp") and properties.get("openslide.vendor") == "generic-tiff":
            continue
        yield from _candidate(key_x, _number(properties.get(key_x)), _number(properties.get(key_y)))
    spacing = _NUMBER.findall(properties.get("philips.DICOM_PIXEL_SPACING", ""))
    if len(spacing) == 2:  # noqa: PLR2004 - rows, columns
        yield from _candidate("philips.DICOM_PIXEL_SPACING", float(spacing[1]) * 1e3, float(spacing[0]) * 1e3)
    yield from _candidate(
        "ome.PhysicalSizeX",
        _length_um(properties.get("ome.PhysicalSizeX"), properties.get("ome.PhysicalSizeXUnit", "µm")),
        _length_um(properties.get("ome.PhysicalSizeY"), properties.get("ome.PhysicalSizeYUnit", "µm")),
    )
    # DICOM gives the distance between rows first.
    yield from _candidate(
        "dicom.PixelSpacing",
        _length_um(properties.get(f"{_DICOM}[1]"), "mm"),
        _length_um(properties.get(f"{_DICOM}[0]"), "mm"),
    )
    for prefix, unit in (("hamamatsu", "cm"), ("tiff", properties.get("tiff.ResolutionUnit", "inch"))):
        yield from _candidate(
            f"{prefix}.XResolution",
            _per_unit_um(properties.get(f"{prefix}.XResolution"), unit),
            _per_unit_um(properties.get(f"{prefix}.YResolution"), unit),
        )
    yield from _candidate(
        "image.dpi",
        _per_unit_um(properties.get("image.dpi-x"), "inch"),
        _per_unit_um(properties.get("image.dpi-y"), "inch"),
    )


def _guessed(properties: Mapping[str, str]) -> Iterator[MppCandidate]:
    for key in _POWERS:
        guess = POWER_TO_UM.get(_number(properties.get(key)) or 0)
        if guess is not None:
            yield MppCandidate(source=key, x=guess, y=guess, is_guess=True)


def _candidate(source: str, x: float | None, y: float | None) -> Iterator[MppCandidate]:
    x, y = x or y, y or x
    if x is not None and y is not None:
        yield MppCandidate(source=source, x=x, y=y)


def _number(text: str | None) -> float | None:
    # Some scanners write a decimal comma, whatever the locale of the reader.
    match = _NUMBER.search((text or "").replace(",", "."))
    value = float(match[0]) if match else 0.0
    return value if value > 0 and math.isfinite(value) else None


def _length_um(text: str | None, unit: str) -> float | None:
    value, factor = _number(text), UNITS_UM.get(_plain(unit))
    return value * factor if value is not None and factor is not None else None


def _per_unit_um(text: str | None, unit: str) -> float | None:
    value, factor = _number(text), UNITS_UM.get(_plain(unit))
    # One pixel per unit is how writers say that they do not know.
    return factor / value if value is not None and value != 1 and factor is not None else None


def _plain(unit: str) -> str:
    plain = unit.strip().casefold()
    return plain.removesuffix("s").replace("metre", "meter") if plain.endswith(("meters", "metres", "metre")) else plain


def _given(slide_mpp: float, candidates: tuple[MppCandidate, ...]) -> Mpp:
    check_mpp(slide_mpp)
    given = MppCandidate(source="given", x=slide_mpp, y=slide_mpp)
    warnings = [] if is_plausible(given) else [_insane(given)]
    warnings += [
        f"{_say(given)}, but {_say(rival)}"
        for rival in candidates
        if not rival.is_guess and _disagreement(given, rival) > WARNING_DISAGREEMENT
    ]
    return Mpp(value=slide_mpp, x=slide_mpp, y=slide_mpp, source="given", warnings=tuple(warnings))


def _nothing_sane(measured: list[MppCandidate], candidates: tuple[MppCandidate, ...]) -> str:
    if measured:
        return _insane(measured[0])
    guesses = [f"{_say(candidate)} at best" for candidate in candidates if candidate.is_guess]
    return "the slide carries no pixel size" + (
        f" ({guesses[0]}, which is a guess from the objective)" if guesses else ""
    )


def _insane(candidate: MppCandidate) -> str:
    return f"{_say(candidate)}, which no microscope slide has ({SMALLEST_UM:g} to {LARGEST_UM:g})"


def _say(candidate: MppCandidate) -> str:
    return f"{candidate.source} says {_mean(candidate):.4g} µm/px"


def _mean(candidate: MppCandidate) -> float:
    # Equal sides stay exactly what the file says.
    return candidate.x if candidate.x == candidate.y else (candidate.x + candidate.y) / 2


def _disagreement(one: MppCandidate, other: MppCandidate) -> float:
    return abs(_mean(one) - _mean(other)) / min(_mean(one), _mean(other))


def _is_tenfold(one: MppCandidate, other: MppCandidate) -> bool:
    ratio = _mean(one) / _mean(other)
    return any(abs(ratio / factor - 1) < WARNING_DISAGREEMENT for factor in (10, 0.1))
