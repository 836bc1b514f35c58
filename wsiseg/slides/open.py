"""Opening a slide: what a file is, is told by looking into it, never by its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import openslide

from wsiseg.errors import ConfigError, SlideError
from wsiseg.slides.openslide import OpenSlideSlide
from wsiseg.slides.tiff import TiffSlide
from wsiseg.slides.tiff_index import VENDORS, NoReaderError
from wsiseg.slides.tiff_whole import MAGIC as TIFF_MAGIC
from wsiseg.slides.tiff_whole import check_directories
from wsiseg.slides.tiffslide import TiffSlideSlide
from wsiseg.urls import local_of, url_of

if TYPE_CHECKING:
    from wsiseg.slides.base import Slide

READERS = ("tiff", "openslide", "tiffslide", "images")
_IMAGE_MAGIC = {b"\x89PNG": "PNG image", b"\xff\xd8\xff": "JPEG image", b"BM": "BMP image"}
_POINTER_MAGIC = b"version https://git-lfs"


def open_slide(path: Path | str, *, reader: str | None = None, slide_mpp: float | None = None) -> Slide:
    """Return an open slide.

    Parameters
    ----------
    path
        File, folder of one DICOM slide, or a URL such as ``s3://bucket/slide.svs``.
    reader
        One of `READERS`, or None for whatever reads the file best.
    slide_mpp
        Micrometres per level-0 pixel that beat what the file says.

    Raises
    ------
    SlideError
        If the file is missing, damaged or of no known format.
    ConfigError
        If there is no such reader, or `slide_mpp` is not a positive number.
    """
    if reader is not None and reader not in READERS:
        raise ConfigError(f"there is no reader {reader!r}", where="--reader", mend=f"Readers: {', '.join(READERS)}")
    url = url_of(path)
    if url is not None:
        return _remote(url, reader, slide_mpp)
    place = _place(Path(local_of(path)))
    head = _head(place)
    if reader is None:
        return _best(place, head, slide_mpp)
    if reader == "tiff":
        return TiffSlide(place, slide_mpp=slide_mpp)
    if reader == "tiffslide":
        return TiffSlideSlide(str(place), slide_mpp=slide_mpp)
    if reader == "images":
        return _image(place, "asked for", slide_mpp)
    return OpenSlideSlide(place, slide_mpp=slide_mpp)


def _remote(url: str, reader: str | None, slide_mpp: float | None) -> Slide:
    if reader not in (None, "tiffslide"):
        raise ConfigError(f"the {reader} reader reads files only", where=url, mend="Use --reader tiffslide")
    return TiffSlideSlide(url, why="not a local file", slide_mpp=slide_mpp)


def _best(path: Path, head: bytes, slide_mpp: float | None) -> Slide:
    vendor = openslide.OpenSlide.detect_format(path)
    refusal = ""
    if vendor in VENDORS:
        check_directories(path)
    if head[:4] in TIFF_MAGIC:
        try:
            return TiffSlide(path, why="a tiled TIFF, decoded without detours", slide_mpp=slide_mpp)
        except NoReaderError:
            # OpenSlide would show the upper 8 bits or the first plane, as if that were all.
            raise
        except SlideError as error:
            refusal = f"; not the fast reader because {error.what}"
    if vendor is not None:
        return OpenSlideSlide(path, why=f"{vendor} format{refusal}", slide_mpp=slide_mpp)
    if head[:4] in TIFF_MAGIC:
        return _image(path, "a TIFF without tiles", slide_mpp)
    for magic, kind in _IMAGE_MAGIC.items():
        if head.startswith(magic):
            return _image(path, kind, slide_mpp)
    raise SlideError("not a slide or image of any known format", where=path)


def _image(path: Path, why: str, slide_mpp: float | None) -> Slide:
    # Pillow and tifffile take longer to import than most slides to open.
    from wsiseg.slides.images import ImageSlide

    return ImageSlide(path, why=why, slide_mpp=slide_mpp)


def _place(path: Path) -> Path:
    try:
        if path.is_dir():
            parts = sorted(path.glob("*.dcm"), key=lambda part: (-part.stat().st_size, part.name))
            if parts:
                return parts[0]
            raise SlideError("a folder, not a slide", where=path, mend="Name the slides in it")
        if not path.exists():
            raise SlideError("there is no such file", where=path)
    except OSError as error:
        raise SlideError(f"cannot be read: {error.strerror}", where=path) from error
    return path


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(64)
            size = file.seek(0, 2)
    except OSError as error:
        raise SlideError(f"cannot be read: {error.strerror}", where=path) from error
    if not head:
        raise SlideError("the file is empty", where=path, mend="Copy it again")
    if head.startswith(_POINTER_MAGIC):
        raise SlideError("a Git LFS pointer, not the slide itself", where=path, mend="Run git lfs pull")
    start = _first_directory(head)
    if start is not None and start >= size:
        raise SlideError(
            f"the file is cut short: its directory lies at byte {start:,} of {size:,}", where=path, mend="Copy it again"
        )
    return head


def _first_directory(head: bytes) -> int | None:
    """Return where a TIFF says that its first directory lies, or None for other files."""
    if head[:4] not in TIFF_MAGIC:
        return None
    is_big = b"+" in head[2:4]
    return int.from_bytes(head[8:16] if is_big else head[4:8], "little" if head[:2] == b"II" else "big")
