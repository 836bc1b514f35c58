"""A DICOM slide that says RGB is believed unless its JPEG shows that it is YCbCr."""

from __future__ import annotations

from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import pytest

from wsiseg.slides.dicom import hides_ycbcr

if TYPE_CHECKING:
    from pathlib import Path

SAYS_RGB = {"dicom.PhotometricInterpretation": "RGB", "dicom.TransferSyntaxUID": "1.2.840.10008.1.2.4.50"}


def frame(outcolorspace: str, subsampling: str) -> bytes:
    pixels = np.zeros((16, 16, 3), np.uint8)
    return bytes(
        imagecodecs.jpeg8_encode(pixels, colorspace="RGB", outcolorspace=outcolorspace, subsampling=subsampling)
    )


def without_markers(jpeg: bytes) -> bytes:
    """Cut out the segment behind SOI, which says what the colours are."""
    return jpeg[:2] + jpeg[4 + int.from_bytes(jpeg[4:6], "big") :]


@pytest.mark.parametrize(
    ("jpeg", "expected"),
    [
        (frame("YCBCR", "420"), True),
        (frame("YCBCR", "444"), True),
        (frame("RGB", "444"), False),
        (without_markers(frame("YCBCR", "420")), True),
        (without_markers(frame("YCBCR", "444")), False),
        (b"", False),
        (b"\xff\xd8\xff", False),
    ],
)
def test_the_frame_is_looked_at(tmp_path: Path, jpeg: bytes, *, expected: bool) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(b"\0" * 128 + b"DICM" + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + jpeg)

    assert hides_ycbcr(path, SAYS_RGB) is expected


@pytest.mark.parametrize(
    "properties",
    [
        {**SAYS_RGB, "dicom.PhotometricInterpretation": "YBR_FULL_422"},
        {**SAYS_RGB, "dicom.TransferSyntaxUID": "1.2.840.10008.1.2.4.91"},
        {},
    ],
)
def test_other_files_are_taken_at_their_word(tmp_path: Path, properties: dict[str, str]) -> None:
    assert not hides_ycbcr(tmp_path / "never looked at", properties)
