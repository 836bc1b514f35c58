"""What readers of patches may ask for, and what layers of labels are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self

import numpy as np
from pydantic import ValidationError

from wsiseg.errors import StoreError
from wsiseg.labels import IGNORE, LabelMap
from wsiseg.stores.patch_meta import SYNTHETIC

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.stores.image_labels import ImageLayerInfo

    Indices = Sequence[int] | NDArray[np.integer[Any]]

# Slide or image, x and y, as tables tell them.
Place = tuple[str, str, str]
LayerKind = Literal["instances", "classes", "confidence"]
_KINDS: Final[dict[str, LayerKind]] = {
    "instances": "instances",
    "classes": "classes",
    "confidence": "confidence",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerInfo:
    """What a layer of labels holds.

    Parameters
    ----------
    kind
        ``instances`` (int32 ids, 0 background, negative ignored), ``classes`` (uint8 indices, 255 ignored) or
        ``confidence`` (uint8, percent, 255 where there is no class).
    labels
        The classes.
    made_by
        What made it of what is known of the patches, such as a trained classifier; layers that one has made say the
        same. Empty where labels were given.
    made_at
        When it was begun by what made it: UTC, ISO 8601, in microseconds, so that later times sort later. Empty where
        labels were given. Layers of several stores that go together may have been begun one after the other.
    """

    kind: LayerKind
    labels: LabelMap
    made_by: str = ""
    made_at: str = field(default="", compare=False)

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], *, where: Path) -> Self:
        """Return what the attributes of a layer's array say; `where` it lies is for the message.

        Raises
        ------
        StoreError
            If they say nothing of the kind.
        """
        try:
            labels = LabelMap.model_validate(attributes["labels"])
            made = {key: str(attributes.get(key, "")) for key in ("made_by", "made_at")}
            return cls(kind=_KINDS[attributes["kind"]], labels=labels, **made)
        except (KeyError, ValidationError) as error:
            raise StoreError("the layer has no valid label map", where=where) from error

    @property
    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the layer's array."""
        made = {"made_by": self.made_by, "made_at": self.made_at} if self.made_by else {}
        return {"kind": self.kind, "labels": self.labels.model_dump(mode="json"), **made}

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of the values."""
        return np.dtype(np.int32 if self.kind == "instances" else np.uint8)

    @property
    def fill(self) -> int:
        """Return the value of patches without labels."""
        return 0 if self.kind == "instances" else IGNORE


def check_layer_name(name: str, *, where: Path) -> None:
    """Raise unless a layer of a store may have this name.

    Raises
    ------
    StoreError
        If it may not.
    """
    if not name or name.startswith(".") or "/" in name:
        raise StoreError(f"{name!r} cannot be the name of a layer", where=where)


def patch_names(patches: Patches) -> list[str]:
    """Return what files are named that belong to one patch each, (N,).

    That is the slide or image without the folders before it, and the patch's place x-y on it if there are several.
    Synthetic patches do not change the names of real ones, and are called as what they were made from is.
    """
    _, owners = np.unique(patches.parents.astype(str), return_inverse=True)
    is_real = patches.splits != SYNTHETIC
    counts = np.bincount(owners[is_real], minlength=len(owners))
    counts = np.where(counts, counts, np.bincount(owners, minlength=len(owners)))
    names = []
    for parent, owner, (x, y) in zip(patches.parents, owners, patches.positions.tolist(), strict=True):
        # Where labels are in file names, a parent is the image's split and stem.
        stem = str(parent).rpartition("/")[2]
        names.append(stem if counts[owner] == 1 else f"{stem}-{x}-{y}")
    return names


def patch_places(patches: Patches) -> list[Place]:
    """Return where each patch lies, (N,); synthetic ones lie where what they were made from does."""
    corners = patches.positions.tolist()
    return [(str(parent), str(x), str(y)) for parent, (x, y) in zip(patches.parents, corners, strict=True)]


def real_places(patches: Patches) -> dict[Place, list[int]]:
    """Return which real patches lie at each place."""
    found: dict[Place, list[int]] = {}
    for index, (place, split) in enumerate(zip(patch_places(patches), patches.splits, strict=True)):
        if split != SYNTHETIC:
            found.setdefault(place, []).append(index)
    return found


def confidence_layer(layer: str) -> str:
    """Return the name of the layer that says how sure a layer of classes is."""
    return f"{layer}-confidence"


class PixelSource(Protocol):
    """Reads the images of a store that holds none."""

    def read(self, windows: NDArray[np.int64], patch_px: int) -> NDArray[np.uint8]:
        """Return the patches whose upper left corners lie at `windows` (n, 2) canvas x, y, as (n, H, W, 3)."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


class Patches(Protocol):
    """What training and prediction ask of one store or of several in a row."""

    def __len__(self) -> int: ...

    @property
    def mpp(self) -> float | None: ...  # noqa: D102 - see PatchStore
    @property
    def patch_px(self) -> int: ...  # noqa: D102
    @property
    def image_shape(self) -> tuple[int, int]: ...  # noqa: D102
    @property
    def parents(self) -> NDArray[np.object_]: ...  # noqa: D102
    @property
    def groups(self) -> NDArray[np.object_]: ...  # noqa: D102
    @property
    def splits(self) -> NDArray[np.object_]: ...  # noqa: D102
    @property
    def positions(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def tissue(self) -> NDArray[np.float32]: ...  # noqa: D102
    @property
    def extents(self) -> NDArray[np.int32]: ...  # noqa: D102
    @property
    def layers(self) -> dict[str, LayerInfo]: ...  # noqa: D102
    @property
    def image_layers(self) -> dict[str, ImageLayerInfo]: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    def is_labelled(self, layer: str) -> NDArray[np.bool_]: ...  # noqa: D102
    def read_images(self, indices: Indices) -> NDArray[np.uint8]: ...  # noqa: D102
    def read_labels(self, layer: str, indices: Indices) -> NDArray[Any]: ...  # noqa: D102
    def labels_fingerprint(self, layer: str, indices: Indices) -> str: ...  # noqa: D102
    def add_layer(self, name: str, kind: LayerKind, labels: LabelMap, *, made_by: str = "") -> None: ...  # noqa: D102
    def write_labels(self, layer: str, indices: Indices, arrays: Sequence[NDArray[Any]]) -> None: ...  # noqa: D102
    def read_image_labels(self, layer: str, indices: Indices) -> NDArray[np.uint8]: ...  # noqa: D102
    def add_image_layer(  # noqa: D102
        self, name: str, info: ImageLayerInfo, values: NDArray[np.integer[Any]], *, overwrite: bool = False
    ) -> None: ...
