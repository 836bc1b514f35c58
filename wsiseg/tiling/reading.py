"""Reading patches, also those that were left on their slides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsiseg.errors import SlideError, StoreError
from wsiseg.geometry import Canvas, Scale, Size, Window
from wsiseg.slides.fingerprint import fingerprint
from wsiseg.slides.open import open_slide
from wsiseg.slides.reading import read_window
from wsiseg.stores.patch_set import PatchSet
from wsiseg.urls import url_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wsiseg.stores.patch_meta import PatchMeta


class SlidePixels:
    """Reads the patches of a store that holds positions only from its slide.

    Raises
    ------
    SlideError
        If the slide is gone, or is not the one that the positions were made for.
    """

    def __init__(self, meta: PatchMeta) -> None:
        if meta.slide is None or meta.grid is None:
            raise StoreError("the store names no slide to read from")
        path = Path(meta.slide.path)
        if url_of(path) is None and not path.exists():
            raise SlideError(
                "the slide of a store without pixels is gone", where=path, mend="Put it back, or tile with --codec zstd"
            )
        if fingerprint(path) != meta.slide.fingerprint:
            raise SlideError("not the slide that the patches were cut from", where=path, mend="Tile it again")
        self._slide = open_slide(path, reader=meta.slide.reader, slide_mpp=meta.slide.mpp)
        self._canvas = Canvas(Size(*meta.grid.canvas), Scale(meta.grid.downsample), meta.mpp)

    def read(self, windows: NDArray[np.int64], patch_px: int) -> NDArray[np.uint8]:
        """Return the patches at `windows`, RGB (n, H, W, 3); see `PixelSource`."""
        patches = np.empty((len(windows), patch_px, patch_px, 3), dtype=np.uint8)
        for patch, (x, y) in zip(patches, windows.tolist(), strict=True):
            patch[:] = read_window(self._slide, self._canvas, Window(x, y, patch_px, patch_px))
        return patches

    def close(self) -> None:
        """Release the slide."""
        self._slide.close()


def open_patches(paths: Sequence[Path]) -> PatchSet:
    """Open patch stores in a row, those without pixels together with their slides.

    A folder that is no store stands for the stores in it.

    Raises
    ------
    StoreError
        If there is no store, or one of them cannot be used.
    """
    return PatchSet.open([store for path in paths for store in find_stores(path)], open_pixels=SlidePixels)


def find_stores(path: Path) -> list[Path]:
    """Return the stores in a folder, or the store itself; what is neither is taken for a store, too."""
    inside = [] if (path / "zarr.json").exists() or not path.is_dir() else sorted(path.glob("*.zarr"))
    return [store for store in inside if not store.name.startswith(".")] or [path]
