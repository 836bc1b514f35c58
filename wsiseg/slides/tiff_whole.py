"""Whether the directories of a TIFF lie within the file: of a copy that broke off they often do not."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, BinaryIO, Final

from wsiseg.errors import SlideError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAGIC: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Bytes of a value, by the number of its type in a TIFF.
_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
# Description, resolution, places and lengths of strips and tiles, JPEG tables: what a slide cannot do without.
_NEEDED: Final = frozenset((270, 273, 279, 282, 283, 324, 325, 347))


def check_directories(path: Path) -> None:
    """Check that no directory of a TIFF, and nothing that one needs, pixels apart, lies beyond the file's end.

    Readers leave out a tag that does, and the slide seems to carry no pixel size. Files that are no TIFFs pass.

    Raises
    ------
    SlideError
        If the file ends too early.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        for end in _ends(file):
            if end > size:
                raise SlideError(
                    f"the file is cut short: it ends at byte {size:,}, and a directory at {end:,}",
                    where=path,
                    mend="Copy it again",
                )


def _ends(file: BinaryIO) -> Iterator[int]:
    """Yield where directories and the values of their tags end, in the order in which they are found."""
    file.seek(0)
    head = file.read(16)
    if head[:4] not in MAGIC:
        return
    order = "<" if head[:2] == b"II" else ">"
    # Classic TIFFs count in 2 and 4 bytes, BigTIFFs in 8.
    counter, place = ("Q", "Q") if b"+" in head[2:4] else ("H", "I")
    inline = struct.calcsize(f"={place}")
    entry = struct.Struct(f"{order}HH{place}{inline}s")
    yield 2 * inline
    (start,) = struct.unpack_from(f"{order}{place}", head, inline)
    seen: set[int] = set()
    while start and start not in seen:
        seen.add(start)
        body = start + struct.calcsize(f"={counter}")
        yield body
        file.seek(start)
        (entries,) = struct.unpack(f"{order}{counter}", file.read(body - start))
        tail = body + entries * entry.size
        yield tail + inline
        table = file.read(entries * entry.size)
        (start,) = struct.unpack(f"{order}{place}", file.read(inline))
        for tag, kind, count, value in entry.iter_unpack(table):
            length = count * _BYTES.get(kind, 0)
            if tag in _NEEDED and length > inline:
                yield struct.unpack(f"{order}{place}", value)[0] + length
