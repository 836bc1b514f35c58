"""Colours of DICOM slides that misname them."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

JPEG_SYNTAXES = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_PIXEL_DATA = b"\xe0\x7f\x10\x00OB"
_SOI = b"\xff\xd8\xff"
_APP0, _APP14, _SOF, _SOS = 0xE0, 0xEE, (0xC0, 0xC1, 0xC2), 0xDA


def hides_ycbcr(path: Path, properties: Mapping[str, str]) -> bool:
    """Tell whether a DICOM slide says RGB although its JPEG frames hold YCbCr.

    OpenSlide takes the file at its word and shows false colours.

    Parameters
    ----------
    path
        A file of the slide.
    properties
        OpenSlide's properties of it.
    """
    if properties.get("dicom.PhotometricInterpretation") != "RGB":
        return False
    if properties.get("dicom.TransferSyntaxUID") not in JPEG_SYNTAXES:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = data.find(_SOI, data.find(_PIXEL_DATA))
        return start >= 0 and _is_ycbcr(dict(_segments(data[start : start + (1 << 16)])))


def _is_ycbcr(segments: Mapping[int, bytes]) -> bool:
    """Decide as libjpeg does, and take sub-sampled second components for chroma as well."""
    if segments.get(_APP0, b"").startswith(b"JFIF\0"):
        return True
    adobe = segments.get(_APP14, b"")
    if adobe.startswith(b"Adobe") and len(adobe) >= 12:  # noqa: PLR2004 - the transform is its last byte
        return adobe[11] == 1
    for marker in _SOF:
        frame = segments.get(marker)
        if frame is not None and len(frame) >= 15:  # noqa: PLR2004 - three components of three bytes each
            return bytes(frame[6:15:3]) != b"RGB" and frame[7] != frame[10]
    return False


def _segments(jpeg: bytes) -> Iterator[tuple[int, bytes]]:
    position = 2
    while position + 4 <= len(jpeg) and jpeg[position] == 0xFF and jpeg[position + 1] != _SOS:  # noqa: PLR2004
        end = position + 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
        yield jpeg[position + 1], jpeg[position + 4 : end]
        position = end
