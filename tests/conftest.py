"""What all tests share: real data where it is, and quiet, single-threaded numerics."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pytest
from hypothesis import settings

import wsiseg
from tests.slide_makers import Layout, write_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from wsiseg.stores.patch_store import PatchStore
    from wsiseg.stores.patches import LayerKind


# How long an example takes says how busy the machine is.
settings.register_profile("wsiseg", deadline=None)
settings.load_profile("wsiseg")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of real slides and labelled images, or skip."""
    folder = os.environ.get("WSISEG_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("WSISEG_TEST_DATA names no folder of test data")
    return Path(folder)


@pytest.fixture(scope="session")
def cmu_svs() -> Path:
    """Return the small real slide that the package ships."""
    return Path(wsiseg.__file__).parent / "demo_data" / "CMU-1-Small-Region.svs"


class MakePatchStore(Protocol):
    """Writes a patch store of images with labels."""

    def __call__(
        self,
        path: Path,
        images: NDArray[np.uint8],
        labels: NDArray[Any] | None = None,
        *,
        layer: str = "truth",
        kind: LayerKind = "classes",
        names: tuple[str, ...] = ("background", "gland"),
        parents: Sequence[str] = (),
        splits: Sequence[str] = (),
        extents: NDArray[np.int32] | None = None,
        positions: ArrayLike | None = None,
        mpp: float | None = 0.5,
        origin: Literal["real", "synthetic"] = "real",
    ) -> PatchStore:
        """Write images (N, H, W, 3) and labels (N, H, W).

        Each patch is its own parent, and lies in its corner, unless told otherwise.
        """
        ...


@pytest.fixture(scope="session")
def make_patch_store() -> MakePatchStore:
    """Return a function that writes patch stores."""
    from wsiseg.labels import LabelMap
    from wsiseg.stores.patch_meta import PatchMeta
    from wsiseg.stores.patch_store import PatchStore
    from wsiseg.stores.patch_writer import PatchTable, PatchWriter, new_folder

    def make(
        path: Path,
        images: NDArray[np.uint8],
        labels: NDArray[Any] | None = None,
        *,
        layer: str = "truth",
        kind: LayerKind = "classes",
        names: tuple[str, ...] = ("background", "gland"),
        parents: Sequence[str] = (),
        splits: Sequence[str] = (),
        extents: NDArray[np.int32] | None = None,
        positions: ArrayLike | None = None,
        mpp: float | None = 0.5,
        origin: Literal["real", "synthetic"] = "real",
    ) -> PatchStore:
        count, height, width = images.shape[:3]
        parents = parents or [f"image{n}" for n in range(count)]
        corners = np.zeros((count, 2), np.int64) if positions is None else np.asarray(positions, np.int64)
        known_parents = tuple(dict.fromkeys(parents))
        known_splits = tuple(dict.fromkeys(("", *splits)))
        table = PatchTable(
            positions=corners,
            windows=corners,
            extents=np.tile(np.array([[width, height]], np.int32), (count, 1)) if extents is None else extents,
            tissue=np.ones(count, np.float32),
            parent=np.array([known_parents.index(parent) for parent in parents], np.int32),
            split=np.array([known_splits.index(split) for split in splits or [""] * count], np.uint8),
        )
        meta = PatchMeta(
            codec="zstd",
            mpp=mpp,
            parents=known_parents,
            groups=known_parents,
            splits=known_splits,
            fingerprint=path.name,
            origin=origin,
        )
        with new_folder(path) as folder:
            writer = PatchWriter(folder, meta, table, (height, width))
            for shard in range(writer.images.shard_count):
                items = writer.images.shard_items(shard)
                writer.images.write_shard(shard, [writer.codec.encode(images[item]) for item in items])
        store = PatchStore.open(path)
        if labels is not None:
            store.add_layer(layer, kind, LabelMap.from_names(names))
            store.write_labels(layer, range(count), list(labels))
        return store

    return make


@pytest.fixture
def make_slide(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of small slides: a name and the fields of `tests.slide_makers.Layout`."""

    def make(name: str = "slide.svs", **layout: Any) -> Path:  # noqa: ANN401 - fields of Layout
        path = tmp_path / name
        write_slide(path, Layout(**layout))
        return path

    return make
