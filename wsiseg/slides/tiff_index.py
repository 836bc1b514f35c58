"""What a tiled TIFF holds and where, and whether the fast reader can show it exactly."""

from __future__ import annotations

import itertools
import logging
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import openslide
import tifffile

from wsiseg.errors import SlideError
from wsiseg.geometry import Size
from wsiseg.slides import tiff_codecs as codecs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

# What these write, this reader shows as OpenSlide does; other scanners' TIFFs have rules of their own.
VENDORS = ("aperio", "generic-tiff", None)
REDUCED_IMAGE = 1
MACRO_IMAGE = 9
_UNITS = {1: "none", 2: "inch", 3: "centimeter"}
# Broken files make it log what the exception says as well.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True, kw_only=True)
class TiffLevel:
    """One tiled directory.

    Parameters
    ----------
    size, tile
        Of the level and of its tiles, in pixels.
    offsets, counts
        Place and length of each tile's bytes in the file, row by row; a count of 0 is a tile without pixels.
    compression, photometric, predictor
        As the tags give them.
    tables
        JPEG tables that the tiles share.
    """

    size: Size
    tile: Size
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    compression: int
    photometric: int
    predictor: int
    tables: bytes | None

    @property
    def columns(self) -> int:
        """Return how many tiles lie side by side."""
        return -(-self.size.width // self.tile.width)

    @property
    def rows(self) -> int:
        """Return how many tiles lie one below the other."""
        return -(-self.size.height // self.tile.height)


@dataclass(frozen=True, slots=True, kw_only=True)
class TiffIndex:
    """All levels of a tiled TIFF, finest first, and what it says about itself."""

    vendor: str
    levels: tuple[TiffLevel, ...]
    associated: tuple[str, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)


def read_index(path: Path) -> TiffIndex:
    """Return the index of a tiled TIFF that this package decodes itself.

    Raises
    ------
    SlideError
        If the file is no such TIFF, with the reason.
    """
    vendor = openslide.OpenSlide.detect_format(path)
    if vendor not in VENDORS:
        raise SlideError(f"{vendor} files have rules of their own", where=path)
    try:
        with tifffile.TiffFile(path) as file:
            first = file.pages.first
            ome = file.ome_metadata if first.is_ome else None
            pages = list(_level_pages(file, is_aperio=vendor == "aperio"))
            levels = tuple(_level(page, path) for page in pages)
            _check_pyramid(levels)
            if vendor == "aperio":
                _check_complete(levels)
            properties = _properties(first, vendor)
            if ome is not None:
                properties |= _ome_properties(ome, samples=first.samplesperpixel, path=path)
            return TiffIndex(
                vendor="ome-tiff" if ome is not None else vendor or "tiff",
                levels=levels,
                associated=tuple(sorted(_associated(file))) if vendor == "aperio" else (),
                properties=properties,
            )
    except _UnsuitableError as error:
        raise SlideError(str(error), where=path) from error
    except (
        tifffile.TiffFileError,
        ET.ParseError,
        OSError,
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        struct.error,
    ) as error:
        # tifffile lets what it stumbles over in a damaged directory pass through.
        raise SlideError(f"the TIFF directories are damaged: {error}", where=path) from error


class NoReaderError(SlideError):
    """No other reader would show the file better either."""


class _UnsuitableError(Exception):
    """Another reader shows the file better."""


def _level_pages(file: tifffile.TiffFile, *, is_aperio: bool) -> Iterator[tifffile.TiffPage]:
    for index in range(len(file.pages)):
        page = file.pages.get(index).aspage()
        if index == 0:
            if not page.is_tiled:
                raise _UnsuitableError("the pixels are not in tiles")
            yield page
            for sub in page.pages or ():
                whole = sub.aspage()
                if whole.is_tiled:
                    yield whole
        # Aperio puts what is no level into strips; in other files a level says that it is a reduction.
        elif page.is_tiled and (is_aperio or int(page.subfiletype) & REDUCED_IMAGE):
            yield page


def _level(page: tifffile.TiffPage, path: Path) -> TiffLevel:
    compression, photometric = int(page.compression), int(page.photometric)
    if compression not in codecs.COMPRESSION_NAMES:
        raise _UnsuitableError(f"compression {compression} is not among those decoded here")
    if page.bitspersample != 8 or page.dtype is None or page.dtype.name != "uint8":  # noqa: PLR2004
        raise NoReaderError(
            f"has {page.bitspersample}-bit pixels; only 8-bit images are read",
            where=path,
            mend="Convert it to 8-bit RGB with a fixed window",
        )
    is_planar = int(page.planarconfig) != 1 and page.samplesperpixel > 1
    if is_planar or page.samplesperpixel != (1 if photometric == codecs.GRAY else 3):
        raise _UnsuitableError(f"the {page.samplesperpixel} channels are not one gray or three interleaved colours")
    is_raw = compression in (codecs.NONE, codecs.LZW, codecs.DEFLATE, codecs.ADOBE_DEFLATE)
    allowed = {codecs.JPEG: (codecs.GRAY, codecs.RGB, codecs.YCBCR)}.get(compression, (codecs.GRAY, codecs.RGB))
    # Aperio's own JPEG 2000 says its colours by the compression, whatever this tag says.
    if photometric not in allowed and compression not in (codecs.APERIO_JPEG2000_RGB, codecs.APERIO_JPEG2000_YCBCR):
        raise _UnsuitableError(f"photometric interpretation {photometric} is not among those decoded here")
    if is_raw and int(page.predictor) not in (1, codecs.HORIZONTAL_PREDICTOR):
        raise _UnsuitableError(f"predictor {int(page.predictor)} is not among those decoded here")
    for tag, plain in (("Orientation", 1), ("FillOrder", 1), ("ImageDepth", 1)):
        if tag in page.tags and int(page.tags[tag].value) != plain:
            raise _UnsuitableError(f"{tag} is not the usual one")
    level = TiffLevel(
        size=Size(page.imagewidth, page.imagelength),
        tile=Size(page.tilewidth, page.tilelength),
        offsets=np.array(page.dataoffsets, dtype=np.int64),
        counts=np.array(page.databytecounts, dtype=np.int64),
        compression=compression,
        photometric=photometric,
        predictor=int(page.predictor) if is_raw else 1,
        tables=page.jpegtables,
    )
    if not len(level.offsets) == len(level.counts) == level.columns * level.rows:
        raise _UnsuitableError(f"{len(level.offsets)} tiles cannot cover {level.size} pixels")
    return level


def _check_pyramid(levels: tuple[TiffLevel, ...]) -> None:
    finest = levels[0].size
    for finer, coarser in itertools.pairwise(levels):
        if coarser.size.width > finer.size.width or coarser.size.height > finer.size.height:
            raise _UnsuitableError("the levels are not in order of size")
        # A hundredth, or a pixel in a small level: more is another picture, not a reduction.
        across, down = finest.width / coarser.size.width, finest.height / coarser.size.height
        slack = 0.01 + 1 / min(coarser.size.width, coarser.size.height)
        if abs(across - down) > slack * max(across, down):
            raise _UnsuitableError("a level has another shape than the first")


def _check_complete(levels: tuple[TiffLevel, ...]) -> None:
    if any((level.counts == 0).any() for level in levels):
        raise _UnsuitableError("tiles are missing, and OpenSlide draws them from other levels")


def _properties(page: tifffile.TiffPage, vendor: str | None) -> dict[str, str]:
    properties = {"openslide.vendor": vendor} if vendor else {}
    if vendor == "aperio":
        for part in page.description.split("|")[1:]:
            key, equals, value = part.partition("=")
            if equals:
                properties[f"aperio.{key.strip()}"] = value.strip()
    else:
        tags = page.tags
        for name in ("XResolution", "YResolution"):
            if name in tags:
                above, below = tags[name].value
                if above > 0 and below > 0:
                    properties[f"tiff.{name}"] = f"{above / below:.9g}"
        properties["tiff.ResolutionUnit"] = _UNITS.get(
            int(tags["ResolutionUnit"].value) if "ResolutionUnit" in tags else 2, "none"
        )
    for name in ("ImageDescription", "Make", "Model", "Software", "DateTime"):
        if name in page.tags:
            properties[f"tiff.{name}"] = str(page.tags[name].value)
    return properties


def _ome_properties(xml: str, *, samples: int, path: Path) -> dict[str, str]:
    root = ET.fromstring(xml)  # noqa: S314 - expat refuses entity bombs, and nothing external is fetched
    namespace = re.match(r"\{[^}]*\}", root.tag)
    prefix = namespace[0] if namespace else ""
    pixels = root.find(f"{prefix}Image/{prefix}Pixels")
    if pixels is None:
        return {}
    if any(pixels.get(name, "1") != "1" for name in ("SizeZ", "SizeT")):
        raise NoReaderError("holds a stack or a series of images", where=path, mend="Save one plane as a file")
    if int(pixels.get("SizeC", samples)) != samples:
        raise NoReaderError(
            f"holds {pixels.get('SizeC')} separate channels instead of colours", where=path, mend="Convert it to RGB"
        )
    names = ("PhysicalSizeX", "PhysicalSizeXUnit", "PhysicalSizeY", "PhysicalSizeYUnit")
    properties = {f"ome.{name}": value for name in names if (value := pixels.get(name)) is not None}
    objective = root.find(f"{prefix}Instrument/{prefix}Objective")
    if objective is not None and (power := objective.get("NominalMagnification")) is not None:
        properties["ome.NominalMagnification"] = power
    return properties


def _associated(file: tifffile.TiffFile) -> Iterator[str]:
    for index in range(1, len(file.pages)):
        page = file.pages.get(index).aspage()
        if not page.is_tiled:
            kind = int(page.subfiletype)
            yield "macro" if kind == MACRO_IMAGE else "label" if kind == REDUCED_IMAGE else "thumbnail"
