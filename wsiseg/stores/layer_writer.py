"""Writing a whole layer of labels at once: complete or not there."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from wsiseg.atomic import atomic_path
from wsiseg.errors import StoreError
from wsiseg.stores.chunk_codecs import Zstd
from wsiseg.stores.patches import check_layer_name
from wsiseg.stores.shard_writer import ShardWriter
from wsiseg.stores.shards import ShardedArray
from wsiseg.stores.zarr_files import METADATA, write_group

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from wsiseg.stores.patch_store import PatchStore
    from wsiseg.stores.patches import LayerInfo

_RUN: Final = 64


def write_layer(
    store: PatchStore,
    name: str,
    info: LayerInfo,
    arrays: Iterable[NDArray[Any] | None],
    *,
    overwrite: bool = False,
) -> None:
    """Write a layer of labels, which appears when it is complete.

    Parameters
    ----------
    store
        Gets the layer; nobody else writes to it.
    name
        Name of the layer.
    info
        What it holds.
    arrays
        Integers (H, W) for each patch from the first to the last, None for those without labels.
    overwrite
        Take the place of a layer of that name.

    Raises
    ------
    StoreError
        If the store has a layer of that name, or it cannot have that name.
    """
    check_layer_name(name, where=store.path)
    folder = store.path / "labels" / name
    if folder.exists() and not overwrite:
        raise StoreError(
            f"the store has other labels in the layer {name!r}",
            where=store.path,
            mend="Say --keep to keep those of other patches, choose another --layer, or --overwrite all",
        )
    if not (folder.parent / METADATA).exists():
        write_group(folder.parent, {})
    with atomic_path(folder) as temporary:
        array = ShardedArray.create(
            temporary,
            count=len(store),
            item_shape=store.image_shape,
            dtype=info.dtype,
            codec=Zstd(info.dtype.itemsize),
            fill=info.fill,
            attributes=info.attributes,
        )
        shards, rest = ShardWriter(array), iter(arrays)
        while run := list(islice(rest, _RUN)):
            shards.add([None if one is None else array.codec.encode(one.astype(info.dtype, copy=False)) for one in run])
        shards.close()
