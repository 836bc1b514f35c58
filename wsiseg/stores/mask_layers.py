"""The layers of a prediction: what they hold, where they lie, and how an empty store of them is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from wsiseg.geometry import Size
from wsiseg.labels import Label, LabelMap
from wsiseg.stores import ome

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wsiseg.geometry import Canvas

Layer = Literal["classes", "instances", "uncertainty", "probability"]
LabelArray: TypeAlias = NDArray[np.unsignedinteger]

DTYPES: Final[dict[Layer, type[np.uint8 | np.uint32]]] = {
    "classes": np.uint8,
    "instances": np.uint32,
    "uncertainty": np.uint8,
    "probability": np.uint8,
}
# What a store says about itself stands under this key.
KEY: Final = "wsiseg"
# Long shards keep the number of files low; low ones keep little of a band in memory.
_SHARD_WIDTH_PX: Final = 8192
_COARSEST_PX: Final = 1024
_ANY_OBJECT: Final = LabelMap(labels=(Label(index=1, name="object", colour=(255, 255, 255)),))


def make_store(path: Path, canvas: Canvas, labels: LabelMap, about: dict[str, Any]) -> None:  # Any: JSON
    """Make a store without predictions at `path`, with the layers that `about` names."""
    count = count_levels(canvas.size)
    layers: list[Layer] = about["layers"]
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.attrs.put(
        {
            "ome": {"version": ome.VERSION, "multiscales": [ome.multiscales("uncertainty", canvas, count)]},
            KEY: about,
        }
    )
    names = [layer for layer in layers if layer in ("classes", "instances")]
    root.create_group("labels", attributes={"ome": {"version": ome.VERSION, "labels": names}})
    for name in names:
        meaning = ome.class_label(labels) if name == "classes" else ome.instance_label()
        described = {
            "version": ome.VERSION,
            "multiscales": [ome.multiscales(name, canvas, count)],
            "image-label": meaning,
        }
        root.create_group(f"labels/{name}", attributes={"ome": described})
    planes = planes_of(labels, layers)
    if "probability" in layers:
        described = {
            "version": ome.VERSION,
            "multiscales": [ome.multiscales("probability", canvas, count, has_channels=True)],
            "omero": ome.channels(planes),
        }
        root.create_group("probability", attributes={"ome": described})
    band: int = about["band_px"]
    for layer in layers:
        is_map = layer == "classes" and "instances" not in layers
        has_planes = layer == "probability"
        for level in range(count):
            size = level_size(canvas.size, level)
            root.create_array(
                f"{place_of(layer)}s{level}",
                shape=(*([len(planes)] if has_planes else []), size.height, size.width),
                dtype=DTYPES[layer],
                chunks=(*([1] if has_planes else []), band, band),
                shards=(*([len(planes)] if has_planes else []), band, shard_width(band)),
                compressors=ZstdCodec(level=3),
                fill_value=labels.no_class if is_map else 0,
                dimension_names=("c", "y", "x") if has_planes else ("y", "x"),
            )


def planes_of(labels: LabelMap, layers: Sequence[Layer]) -> LabelMap:
    """Return what the planes of the probability layer stand for: each class, or any object where there are objects."""
    return _ANY_OBJECT if "instances" in layers else labels


def place_of(layer: Layer) -> str:
    """Return the folder of a layer within the store, with a slash at its end unless it is the store's own."""
    return {"uncertainty": "", "probability": "probability/"}.get(layer, f"labels/{layer}/")


def shard_width(band_px: int) -> int:
    """Return the width of a shard in pixels."""
    return band_px * max(1, _SHARD_WIDTH_PX // band_px)


def level_size(size: Size, level: int) -> Size:
    """Return the pixels of one resolution; each is half the one before, rounded up."""
    return Size(-(-size.width // 2**level), -(-size.height // 2**level))


def count_levels(size: Size) -> int:
    """Return the number of resolutions."""
    count = 1
    while max(level_size(size, count - 1).width, level_size(size, count - 1).height) > _COARSEST_PX:
        count += 1
    return count
