"""Several patch stores, read like one."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from wsiseg.errors import StoreError
from wsiseg.labels import IGNORE
from wsiseg.stores.image_labels import ImageLayerInfo
from wsiseg.stores.patch_store import PatchStore
from wsiseg.stores.patches import LayerInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from wsiseg.labels import LabelMap
    from wsiseg.stores.patch_meta import PatchMeta
    from wsiseg.stores.patches import Indices, LayerKind, PixelSource

Info = TypeVar("Info", LayerInfo, ImageLayerInfo)


class PatchSet:
    """Several stores in a row, read like one.

    Patches of different sizes are padded to the largest; their extents tell.

    Parameters
    ----------
    stores
        At least one.

    Raises
    ------
    StoreError
        If there is none, or layers of one name differ in kind or classes. Colours may differ; the first count.
    """

    def __init__(self, stores: Sequence[PatchStore]) -> None:
        if not stores:
            raise StoreError("no patch store was given", mend="Make one with wsiseg tile or wsiseg ingest")
        self.stores = tuple(stores)
        self._starts = np.cumsum([0, *(len(store) for store in stores)])
        self.layers: dict[str, LayerInfo] = {}
        self.image_layers: dict[str, ImageLayerInfo] = {}
        for store in stores:
            _unite(self.layers, store.layers, store)
            _unite(self.image_layers, store.image_layers, store)
        self.positions: NDArray[np.int64] = np.concatenate([store.positions for store in stores])
        self.extents: NDArray[np.int32] = np.concatenate([store.extents for store in stores])
        self.tissue: NDArray[np.float32] = np.concatenate([store.tissue for store in stores])
        self.parents: NDArray[np.object_] = np.concatenate([store.parents for store in stores])
        self.groups: NDArray[np.object_] = np.concatenate([store.groups for store in stores])
        self.splits: NDArray[np.object_] = np.concatenate([store.splits for store in stores])
        shapes = [store.image_shape for store in stores]
        self.image_shape = (max(shape[0] for shape in shapes), max(shape[1] for shape in shapes))

    @classmethod
    def open(cls, paths: Sequence[Path], *, open_pixels: Callable[[PatchMeta], PixelSource] | None = None) -> PatchSet:
        """Open the stores at `paths`; see the class."""
        return cls([PatchStore.open(path, open_pixels=open_pixels) for path in paths])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def patch_px(self) -> int:
        """Return the longer edge of the patch arrays."""
        return max(self.image_shape)

    @property
    def mpp(self) -> float | None:
        """Return the micrometres per patch pixel, or None where any store has none.

        Raises
        ------
        StoreError
            If the stores differ by more than 2 %.
        """
        values = [store.mpp for store in self.stores]
        try:
            return common_mpp(values)
        except ValueError as error:
            raise StoreError(
                f"the stores have different resolutions ({error})", mend="Make them with the same --mpp"
            ) from error

    @property
    def fingerprint(self) -> str:
        """Return the hash of what the stores were made from, whatever their order."""
        digest = hashlib.blake2b(digest_size=16)
        for fingerprint in sorted(store.fingerprint for store in self.stores):
            digest.update(fingerprint.encode())
        return digest.hexdigest()

    def is_labelled(self, layer: str) -> NDArray[np.bool_]:
        """Tell which patches have labels in `layer`, (N,)."""
        self._known(layer)
        parts = [
            store.is_labelled(layer) if layer in store.layers else np.zeros(len(store), dtype=np.bool_)
            for store in self.stores
        ]
        return np.concatenate(parts)

    def read_images(self, indices: Indices) -> NDArray[np.uint8]:
        """Return patches in the order of `indices`, RGB (n, H, W, 3); see `PatchStore.read_images`."""
        wanted = self._checked(indices)
        result = np.empty((len(wanted), *self.image_shape, 3), dtype=np.uint8)
        for store, places, local in self._split_up(wanted):
            height, width = store.image_shape
            if (height, width) != self.image_shape:
                result[places] = store.meta.background
            result[places, :height, :width] = store.read_images(local)
        return result

    def read_labels(self, layer: str, indices: Indices) -> NDArray[Any]:
        """Return labels in the order of `indices`, (n, H, W); see `PatchStore.read_labels`."""
        info = self._known(layer)
        wanted = self._checked(indices)
        result = np.full((len(wanted), *self.image_shape), info.fill, dtype=info.dtype)
        for store, places, local in self._split_up(wanted):
            if layer in store.layers:
                height, width = store.image_shape
                result[places, :height, :width] = store.read_labels(layer, local)
        return result

    def labels_fingerprint(self, layer: str, indices: Indices) -> str:
        """Return the hash of the labels of some patches; see `PatchStore.labels_fingerprint`."""
        self._known(layer)
        digest = hashlib.blake2b(digest_size=16)
        for store, _, local in self._split_up(self._checked(indices)):
            if layer in store.layers:
                digest.update(f"{store.fingerprint} {store.labels_fingerprint(layer, local)} ".encode())
        return digest.hexdigest()

    def add_layer(self, name: str, kind: LayerKind, labels: LabelMap, *, made_by: str = "") -> None:
        """Add an empty layer to every store; see `PatchStore.add_layer`."""
        for store in self.stores:
            store.add_layer(name, kind, labels, made_by=made_by)
        self.layers[name] = self.stores[0].layers[name]

    def write_labels(self, layer: str, indices: Indices, arrays: Sequence[NDArray[Any]]) -> None:
        """Write labels of some patches; see `PatchStore.write_labels`."""
        for store, places, local in self._split_up(self._checked(indices)):
            height, width = store.image_shape
            store.write_labels(layer, local, [arrays[place][:height, :width] for place in places.tolist()])

    def read_image_labels(self, layer: str, indices: Indices) -> NDArray[np.uint8]:
        """Return which classes occur in patches, (n, C); see `PatchStore.read_image_labels`."""
        if layer not in self.image_layers:
            known = ", ".join(self.image_layers) or "none"
            raise StoreError(f"no store has a layer {layer!r} of image labels", mend=f"Known: {known}")
        wanted = self._checked(indices)
        result = np.full((len(wanted), len(self.image_layers[layer].labels)), IGNORE, dtype=np.uint8)
        for store, places, local in self._split_up(wanted):
            if layer in store.image_layers:
                result[places] = store.read_image_labels(layer, local)
        return result

    def add_image_layer(
        self, name: str, info: ImageLayerInfo, values: NDArray[np.integer[Any]], *, overwrite: bool = False
    ) -> None:
        """Add a whole layer of image labels, (N, C), to every store; see `PatchStore.add_image_layer`."""
        if len(values) != len(self):
            raise ValueError(f"{len(values)} rows do not fit {len(self)} patches")
        for store, part in zip(self.stores, np.split(values, self._starts[1:-1]), strict=True):
            store.add_image_layer(name, info, part, overwrite=overwrite)
        self.image_layers[name] = info

    def close(self) -> None:
        """Release the slides of stores that hold no pixels."""
        for store in self.stores:
            store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self.close()

    def _known(self, layer: str) -> LayerInfo:
        if layer not in self.layers:
            raise StoreError(f"no store has a layer {layer!r}", mend=f"Known: {', '.join(self.layers) or 'none'}")
        return self.layers[layer]

    def _checked(self, indices: Indices) -> NDArray[np.int64]:
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"patch indices must lie within 0 … {len(self) - 1}")
        return wanted

    def _split_up(self, wanted: NDArray[np.int64]) -> list[tuple[PatchStore, NDArray[np.intp], NDArray[np.int64]]]:
        """Return (store, places in `wanted`, indices in the store) for each store that is touched."""
        owners = np.searchsorted(self._starts, wanted, side="right") - 1
        parts = []
        for owner in np.unique(owners).tolist():
            places = np.flatnonzero(owners == owner)
            parts.append((self.stores[owner], places, wanted[places] - self._starts[owner]))
        return parts


def common_mpp(values: Sequence[float | None]) -> float | None:
    """Return the micrometres per pixel of what goes together, or None where any has none.

    Raises
    ------
    ValueError
        If they differ by more than 2 %.
    """
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    if max(known) > 1.02 * min(known):
        raise ValueError(", ".join(f"{value:g}" for value in sorted(set(known))) + " µm/px")
    return float(np.mean(known))


def are_alike(one: Info, other: Info) -> bool:
    """Tell whether two layers hold the same, in whatever colours their classes are drawn."""
    return replace(other, labels=one.labels) == one and other.labels.classes == one.labels.classes


def _unite(known: dict[str, Info], more: dict[str, Info], store: PatchStore) -> None:
    """Add the layers of one more store to those known so far."""
    for name, info in more.items():
        if not are_alike(known.setdefault(name, info), info):
            raise StoreError(
                f"the layer {name!r} has other classes than in the stores before, or was made otherwise",
                where=store.path,
                mend="Name these stores alone, or label all of them alike",
            )
