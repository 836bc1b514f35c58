"""Label images, small files whose pixels are class indices or object ids, and pictures as PNG."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsiseg.atomic import atomic_path
from wsiseg.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

LabelImage: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.uint32]

READABLE: Final = (".png", ".tif", ".tiff", ".bmp")

# Twice Pillow's default: beyond it Pillow and the tools built on it refuse to open a file.
MAX_LABEL_PIXELS: Final = 2 * 89_478_485

_INDEX_MODES: Final = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")
_WRITERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {  # Any: each format has its own keywords
    ".png": ("PNG", {"compress_level": 6}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
}


def read_labels(path: Path) -> LabelImage:
    """Return the labels of an index image.

    Parameters
    ----------
    path
        PNG, TIFF or BMP with one whole number per pixel: bilevel, grey of 8,
        16 or 32 bit, or palette, whose indices (not colours) are the labels.

    Returns
    -------
    LabelImage
        (H, W), uint8, uint16 or uint32 as the file has it.

    Raises
    ------
    DataError
        When the file is missing, damaged or too large, or holds colours,
        fractions or negative values.
    """
    try:
        with warnings.catch_warnings():
            # Label images of whole regions are often large; the limit that stops is MAX_LABEL_PIXELS.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            mode, pixels = image.mode, np.asarray(image)
    except Image.DecompressionBombError as error:
        raise DataError(
            f"the label image has more than {MAX_LABEL_PIXELS:,} pixels",
            where=path,
            mend="Cut it into pieces",
        ) from error
    except FileNotFoundError as error:
        raise DataError("there is no such label image", where=path) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError("cannot be read as a PNG, TIFF or BMP image", where=path, mend="Write it anew") from error
    if mode not in _INDEX_MODES:
        raise DataError(
            f"a label image has one whole number per pixel, but this one is {mode}",
            where=path,
            mend="Save class indices or object ids as a grey or palette PNG",
        )
    return _unsigned(pixels, path)


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """Return a picture, RGB (H, W, 3), as what is in a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def write_labels(path: Path, labels: NDArray[np.integer]) -> None:
    """Write labels as an index image that appears whole or not at all.

    Parameters
    ----------
    path
        Ends in ``.png``, ``.tif`` or ``.tiff``.
    labels
        Integer (H, W), 0 … 65535; written with 8 bit where that is enough,
        otherwise with 16.

    Raises
    ------
    DataError
        When the suffix, a value or the size does not suit such a file.
    """
    suffix = path.suffix.lower()
    if suffix not in _WRITERS:
        raise DataError(f"label images end in {', '.join(_WRITERS)}, not in {suffix!r}", where=path)
    if labels.size > MAX_LABEL_PIXELS:
        height, width = labels.shape
        raise DataError(
            f"{width:,} x {height:,} pixels are more than readers of label images accept ({MAX_LABEL_PIXELS:,})",
            where=path,
            mend="Use the labels in the OME-Zarr, which have no such limit",
        )
    lowest, highest = int(labels.min(initial=0)), int(labels.max(initial=0))
    if lowest < 0 or highest > np.iinfo(np.uint16).max:
        raise DataError(
            f"labels from {lowest} to {highest} do not fit into 16 bit",
            where=path,
            mend="Use the labels in the OME-Zarr, which have 32 bit",
        )
    depth = np.uint8 if highest <= np.iinfo(np.uint8).max else np.uint16
    kind, options = _WRITERS[suffix]
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(labels, dtype=depth)).save(temporary, format=kind, **options)


def write_palette(path: Path, labels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> None:
    """Write labels as a PNG that shows colours, and holds the labels as their indices.

    Parameters
    ----------
    path
        Appears whole or not at all.
    labels
        uint8 (H, W).
    palette
        RGB of each label, uint8 (256, 3).
    """
    image = Image.fromarray(np.ascontiguousarray(labels))
    image.putpalette(palette.tobytes())
    with atomic_path(path) as temporary:
        # A byte for each pixel, however few labels there are: some readers know nothing else.
        image.save(temporary, format="PNG", bits=8)


def _unsigned(pixels: NDArray[Any], path: Path) -> LabelImage:  # Any: whatever Pillow decoded
    if pixels.dtype.kind == "i" and pixels.min(initial=0) < 0:
        raise DataError("a label image must not hold negative values", where=path)
    match pixels.dtype.itemsize:
        case 1:
            return pixels.astype(np.uint8)
        case 2:
            return pixels.astype(np.uint16)
        case _:
            return pixels.astype(np.uint32)
