"""Layers of image labels: which classes occur in each patch, without saying where.

``image_labels/<layer>`` is an array (N, C) of uint8 in one chunk: 1 where the class occurs in
the patch, 0 where it does not, 255 where nobody knows. Column k is the class with index k. The
attributes name the classes and say what of a patch is white and belongs to none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import ValidationError

from wsiseg.atomic import atomic_path
from wsiseg.errors import StoreError
from wsiseg.labels import IGNORE, LabelMap
from wsiseg.stores.patches import check_layer_name
from wsiseg.stores.zarr_files import METADATA, read_array, read_metadata, write_array, write_group
from wsiseg.white import WhiteRule

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

GROUP: Final = "image_labels"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLayerInfo:
    """What a layer of image labels holds.

    Parameters
    ----------
    labels
        The classes, numbered 0 … C - 1.
    white
        What of a patch is white and belongs to no class; None where the classes cover all of it.
    """

    labels: LabelMap
    white: WhiteRule | None = None


def image_layers(store: Path) -> dict[str, ImageLayerInfo]:
    """Return the layers of image labels of a patch store by name.

    Raises
    ------
    StoreError
        If a layer is damaged.
    """
    names = sorted(file.parent.name for file in (store / GROUP).glob(f"*/{METADATA}"))
    return {name: _info(store / GROUP / name) for name in names if not name.startswith(".")}


def read_image_layer(store: Path, name: str) -> NDArray[np.uint8]:
    """Return a whole layer, (N, C) of 0, 1 and 255.

    Raises
    ------
    StoreError
        If there is no such layer, or it is damaged.
    """
    folder = store / GROUP / name
    if not (folder / METADATA).exists():
        known = ", ".join(image_layers(store)) or "none"
        raise StoreError(f"the store has no layer {name!r} of image labels", where=store, mend=f"It has: {known}")
    return read_array(folder)


def write_image_layer(
    store: Path, name: str, info: ImageLayerInfo, values: NDArray[np.integer], *, overwrite: bool = False
) -> None:
    """Write a whole layer, which appears when it is complete.

    Parameters
    ----------
    store
        Folder of the store, under construction or complete.
    name
        Name of the layer.
    info
        What it holds.
    values
        Integers 0, 1 and 255, (N, C).
    overwrite
        Take the place of a layer of that name.

    Raises
    ------
    StoreError
        If the store has a layer of that name, or it cannot have that name.
    ValueError
        If the values or the indices of the classes do not fit.
    """
    folder = store / GROUP / name
    check_layer_name(name, where=store)
    if folder.exists() and not overwrite:
        raise StoreError(
            f"the store has a layer {name!r} of image labels already", where=store, mend="Choose another name"
        )
    if [label.index for label in info.labels.labels] != list(range(values.shape[1])):
        raise ValueError(f"{values.shape[1]} columns need classes numbered 0, 1, … in this order")
    if not np.isin(values, (0, 1, IGNORE)).all():
        raise ValueError(f"image labels are 0, 1 or {IGNORE}")
    if not (folder.parent / METADATA).exists():
        write_group(folder.parent, {})
    attributes = {
        "labels": info.labels.model_dump(mode="json"),
        "white": None if info.white is None else info.white.model_dump(mode="json"),
    }
    with atomic_path(folder) as temporary:
        write_array(temporary, values.astype(np.uint8), fill=IGNORE, attributes=attributes)


def _info(folder: Path) -> ImageLayerInfo:
    attributes = read_metadata(folder).get("attributes", {})
    try:
        white = attributes["white"]
        return ImageLayerInfo(
            labels=LabelMap.model_validate(attributes["labels"]),
            white=None if white is None else WhiteRule.model_validate(white),
        )
    except (KeyError, TypeError, ValidationError) as error:
        raise StoreError(
            f"the layer {folder.name!r} of image labels has no valid label map", where=folder.parents[1]
        ) from error
