"""Labels as one PNG, written row by row."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from wsiseg.atomic import atomic_path
from wsiseg.errors import DataError
from wsiseg.geometry import Window
from wsiseg.rasters import MAX_LABEL_PIXELS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.geometry import Size

_BAND_PX: Final = 1 << 22
_GREY: Final = 0
_FILTER_UP: Final = 2


def check_label_png(size: Size, *, highest: int, where: str | Path) -> None:
    """Refuse labels that no PNG can hold, before any work is done.

    Parameters
    ----------
    size
        Of the canvas.
    highest
        The largest label that may occur: the number of objects, or 255 for classes.
    where
        The file or option to name in the message.

    Raises
    ------
    DataError
        If there are too many pixels or labels.
    """
    if size.area > MAX_LABEL_PIXELS:
        raise DataError(
            f"{size.width:,} x {size.height:,} pixels are more than readers of PNG accept ({MAX_LABEL_PIXELS:,})",
            where=where,
            mend="Use prediction.zarr, which has no such limit, or predict at a coarser --mpp",
        )
    if highest > np.iinfo(np.uint16).max:
        raise DataError(
            f"{highest:,} objects are more than a 16-bit PNG can number ({np.iinfo(np.uint16).max:,})",
            where=where,
            mend="Use labels/instances in prediction.zarr, which has 32 bit",
        )


def write_label_png(
    path: Path,
    *,
    read: Callable[[Window], NDArray[np.unsignedinteger]],
    size: Size,
    highest: int,
) -> None:
    """Write a label layer as a grey PNG: 8 bit for classes, 16 bit for objects.

    Parameters
    ----------
    path
        Ends in ``.png``; appears whole or not at all.
    read
        Gives a window of labels, uint8 (classes) or uint32 (instances), (H, W).
    size
        Of the canvas.
    highest
        The largest label that occurs.

    Raises
    ------
    DataError
        If there are too many pixels or labels for a PNG.
    """
    check_label_png(size, highest=highest, where=path)
    is_wide = read(Window(0, 0, 1, 1)).dtype.itemsize > 1
    depth = np.dtype(">u2" if is_wide else "u1")
    rows = max(1, _BAND_PX // size.width)
    packer = zlib.compressobj(6)
    above = np.zeros(size.width * depth.itemsize, dtype=np.uint8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        _chunk(file, b"IHDR", struct.pack(">IIBBBBB", size.width, size.height, 8 * depth.itemsize, _GREY, 0, 0, 0))
        for top in range(0, size.height, rows):
            labels = read(Window(0, top, size.width, min(rows, size.height - top)))
            lines = np.ascontiguousarray(labels.astype(depth)).view(np.uint8).reshape(len(labels), -1)
            # Labels repeat downwards: the difference to the line above is nearly all zeros.
            stored = np.empty((len(lines), lines.shape[1] + 1), dtype=np.uint8)
            stored[:, 0] = _FILTER_UP
            stored[0, 1:] = lines[0] - above
            stored[1:, 1:] = lines[1:] - lines[:-1]
            above = lines[-1].copy()
            data = packer.compress(stored.tobytes())
            if data:
                _chunk(file, b"IDAT", data)
        _chunk(file, b"IDAT", packer.flush())
        _chunk(file, b"IEND", b"")


def _chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
