"""Labels as a pyramidal OME-TIFF, for viewers that do not read Zarr."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import tifffile

import wsiseg
from wsiseg.atomic import atomic_path
from wsiseg.geometry import Size, Window
from wsiseg.inference.polygons import GREY
from wsiseg.labels import IGNORE, NO_CLASS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.geometry import Canvas
    from wsiseg.labels import LabelMap

_TILE_PX: Final = 512
_COARSEST_PX: Final = 1024
# Levels up to this size are kept while they are written, so that the next one is made of them.
_KEPT_BYTES: Final = 64 << 20
_READ_PX: Final = 4096
# Where 32-bit offsets end, with room for tags and for labels that do not compress.
_CLASSIC_BYTES: Final = 2**32 - 2**28


def write_ome_tiff(
    path: Path,
    *,
    read: Callable[[Window], NDArray[np.unsignedinteger]],
    canvas: Canvas,
    labels: LabelMap,
    slide_id: str,
) -> None:
    """Write a label layer in tiles with all its coarser levels.

    Each level takes every second pixel of the one before, so no label is ever mixed. Class
    layers carry their colours as a palette. The file appears whole or not at all, and equal
    labels of one slide give equal bytes. Memory holds a row of tiles and at most 64 MiB of a coarse level.

    Parameters
    ----------
    path
        Ends in ``.ome.tif``.
    read
        Gives a window of the layer, uint8 (classes) or uint32 (instances), (H, W).
    canvas
        Size and resolution.
    labels
        Colours of the classes.
    slide_id
        Name of the slide, which goes into the file's identifier.
    """
    sizes = _level_sizes(canvas.size)
    dtype = read(Window(0, 0, 1, 1)).dtype
    needed = sum(size.area for size in sizes) * dtype.itemsize
    options: dict[str, Any] = {  # Any: keywords of another library
        "tile": (_TILE_PX, _TILE_PX),
        "compression": "zlib",
        "dtype": dtype,
        "software": f"wsiseg {wsiseg.__version__}",
    }
    if dtype.itemsize == 1:
        options |= {"photometric": "palette", "colormap": _palette(labels)}
    else:
        options |= {"photometric": "minisblack"}
    with (
        atomic_path(path) as temporary,
        tifffile.TiffWriter(temporary, bigtiff=needed > _CLASSIC_BYTES, ome=True) as writer,
    ):
        levels = _Levels(read, sizes, dtype)
        for number, size in enumerate(sizes):
            first = number == 0
            writer.write(
                levels.tiles(number),
                shape=(size.height, size.width),
                subifds=len(sizes) - 1 if first else None,
                subfiletype=0 if first else 1,
                metadata=_metadata(canvas, slide_id) if first else None,
                **_resolution(canvas, number),
                **options,
            )


class _Levels:
    """Gives the tiles of each level in turn; a coarse level is made of the last one that was kept."""

    def __init__(
        self,
        read: Callable[[Window], NDArray[np.unsignedinteger]],
        sizes: list[Size],
        dtype: np.dtype[np.unsignedinteger],
    ) -> None:
        self._read = read
        self._sizes = sizes
        self._dtype = dtype
        self._kept: NDArray[np.unsignedinteger] | None = None
        self._kept_level = 0

    def tiles(self, level: int) -> Iterator[NDArray[np.unsignedinteger]]:
        """Yield tiles (512, 512) row by row, padded with 0."""
        size = self._sizes[level]
        is_kept = 0 < size.area * self._dtype.itemsize <= _KEPT_BYTES
        keep = np.zeros((size.height, size.width), dtype=self._dtype) if is_kept else None
        for top in range(0, size.height, _TILE_PX):
            for left in range(0, size.width, _TILE_PX):
                window = Window(left, top, _TILE_PX, _TILE_PX).clipped(size)
                values = self._values(window, level)
                if keep is not None:
                    keep[window.slices] = values
                tile = np.zeros((_TILE_PX, _TILE_PX), dtype=self._dtype)
                tile[: window.height, : window.width] = values
                yield tile
        if keep is not None:
            self._kept, self._kept_level = keep, level

    def _values(self, window: Window, level: int) -> NDArray[np.unsignedinteger]:
        if self._kept is not None:
            step = 1 << (level - self._kept_level)
            rows, columns = window.slices
            return self._kept[
                rows.start * step : rows.stop * step : step, columns.start * step : columns.stop * step : step
            ][: window.height, : window.width]
        step = 1 << level
        values = np.empty((window.height, window.width), dtype=self._dtype)
        side = max(1, _READ_PX // step)
        for top in range(0, window.height, side):
            for left in range(0, window.width, side):
                part = Window(left, top, side, side).clipped(window.size)
                # Up to the last pixel that is taken, not to the end of its block, which may lie outside.
                source = Window(
                    (window.x + part.x) * step,
                    (window.y + part.y) * step,
                    (part.width - 1) * step + 1,
                    (part.height - 1) * step + 1,
                )
                values[part.slices] = self._read(source)[::step, ::step]
        return values


def _level_sizes(size: Size) -> list[Size]:
    sizes = [size]
    while max(sizes[-1].width, sizes[-1].height) > _COARSEST_PX:
        sizes.append(Size(-(-sizes[-1].width // 2), -(-sizes[-1].height // 2)))
    return sizes


def _palette(labels: LabelMap) -> NDArray[np.uint16]:
    colours = np.zeros((3, 256), dtype=np.uint16)
    for label in labels.labels:
        colours[:, label.index] = np.asarray(label.colour, dtype=np.uint16) * 257
    if labels.no_class == NO_CLASS:
        colours[:, NO_CLASS] = np.iinfo(np.uint16).max
    colours[:, IGNORE] = np.asarray(GREY, dtype=np.uint16) * 257
    return colours


def _metadata(canvas: Canvas, slide_id: str) -> dict[str, object]:
    # Named by what it is: a random name would make every run's file another one.
    name = f"{wsiseg.__version__} {slide_id} {canvas.size} {canvas.mpp}"
    metadata: dict[str, object] = {"axes": "YX", "UUID": str(uuid.uuid5(uuid.NAMESPACE_OID, name)), "Name": "labels"}
    if canvas.mpp is not None:
        metadata |= {
            "PhysicalSizeX": canvas.mpp,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": canvas.mpp,
            "PhysicalSizeYUnit": "µm",
        }
    return metadata


def _resolution(canvas: Canvas, level: int) -> dict[str, Any]:  # Any: keywords of another library
    if canvas.mpp is None:
        return {}
    per_cm = 1e4 / (canvas.mpp * 2**level)
    return {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
