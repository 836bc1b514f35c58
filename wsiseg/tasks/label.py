"""The job behind ``wsiseg label``: labels for patches from what people drew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsiseg.annotations import check_slide
from wsiseg.errors import ConfigError
from wsiseg.progress import SILENT
from wsiseg.rasters import READABLE
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks.label_image import label_images
from wsiseg.tasks.label_masks import label_masks
from wsiseg.tiling.reading import find_stores

if TYPE_CHECKING:
    from pathlib import Path

    from wsiseg.progress import Progress
    from wsiseg.tasks.label_image import ImageLabelReport
    from wsiseg.tasks.label_report import MaskReport
    from wsiseg.tasks.label_settings import LabelConfig


def label(
    path: Path,
    source: Path,
    config: LabelConfig,
    *,
    overwrite: bool = False,
    keep: bool = False,
    progress: Progress = SILENT,
) -> ImageLabelReport | MaskReport:
    """Label the patches of a store, or their pixels; see `label_images` and `label_masks`.

    Raises
    ------
    ConfigError
        If labels of whole patches are asked of anything but one file of GeoJSON, or shall be kept, or several stores
        are named.
    DataError
        If boxes were drawn on another slide, or the file cannot be read.
    """
    if (stores := find_stores(path)) != [path]:
        raise ConfigError(
            f"this is a folder of {len(stores)} stores, which are labelled one by one",
            where=path,
            mend=f"Name one of them, such as {stores[0]}",
        )
    if keep and overwrite:
        raise ConfigError("what is kept is not replaced", where="--keep", mend="Leave it out, or --overwrite")
    if config.labels_as != "image":
        return label_masks(path, source, config, overwrite=overwrite, keep=keep, progress=progress)
    if keep:
        raise ConfigError(
            "only labels of pixels are kept", where="--keep", mend="Say --as instances or --as classes, or --overwrite"
        )
    if source.is_dir() or source.suffix.lower() in READABLE:
        raise ConfigError(
            "image labels are made of GeoJSON", where=source, mend="Say --as instances or --as classes for label images"
        )
    store = PatchStore.open(path)
    if store.meta.grid is not None and not config.other_slide:
        check_slide(source, store.meta.parents[0])
    return label_images(path, source, config, overwrite=overwrite)
