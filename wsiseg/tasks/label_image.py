"""Labels of whole patches from what people drew over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wsiseg.annotations import read_annotations
from wsiseg.errors import NothingMatchedError, StoreError
from wsiseg.labels import IGNORE, LabelMap
from wsiseg.lock import locked
from wsiseg.stores.image_labels import ImageLayerInfo
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks.label_settings import qupath_corner

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.tasks.label_settings import LabelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLabelReport:
    """What was labelled.

    Parameters
    ----------
    store
        The store.
    patches, labelled
        Numbers of all patches and of those with a label.
    counts
        In how many patches each class occurs.
    uncertain
        Number of labelled patches of which is not known whether they show each class.
    skipped
        Objects in the file that were left out.
    was_done
        Whether the store had these labels already.
    """

    store: Path
    patches: int
    labelled: int
    counts: dict[str, int]
    uncertain: int
    skipped: int
    was_done: bool

    def __str__(self) -> str:
        found = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        uncertain = f"; {self.uncertain:,} with little of another class, which stays unknown" if self.uncertain else ""
        left_out = f"; {self.skipped:,} objects left out, without class or area" if self.skipped else ""
        done = ", already done" if self.was_done else ""
        labelled = f"{self.labelled:,} of {self.patches:,} patches labelled in {self.store}"
        return f"{labelled}: {found}{uncertain}{left_out}{done}"


def label_images(path: Path, annotations: Path, config: LabelConfig, *, overwrite: bool = False) -> ImageLabelReport:
    """Label the patches of a slide by the annotations that cover their centres.

    A patch gets every class that is drawn over its centre or over a tenth of it, and no other. Of a class
    of which it has less, it stays unknown whether it shows it; where nothing is drawn over its centre, it
    stays without label.

    Parameters
    ----------
    path
        A store that was cut from the slide.
    annotations
        GeoJSON of QuPath.
    config
        How annotations become labels.
    overwrite
        Take the place of a layer of that name.

    Raises
    ------
    DataError
        If the annotations cannot be read, or are of other classes.
    NothingMatchedError
        If no annotation covers the centre of a patch.
    StoreError
        If the store cannot be labelled, or has another layer of that name.
    """
    found = read_annotations(annotations)
    store = PatchStore.open(path)
    classes = config.classes or found.classes
    values = found.occurring(_boxes(store, qupath_corner(store.meta, config, found.origin)), classes)
    is_labelled = (values != IGNORE).any(axis=1)
    if not is_labelled.any():
        raise NothingMatchedError(
            f"none of {len(found.regions)} annotations with a class covers the centre of a patch",
            where=annotations,
            mend="They must be of this slide, in pixels of its level 0",
        )
    labels = LabelMap.from_names(classes, background=False, colours=found.colours)
    info = ImageLayerInfo(labels=labels, white=config.white)
    with locked(path.with_name(f".{path.name}.lock")):
        was_done = _is_done(store, config.layer, info, values)
        if not was_done:
            _write(store, config.layer, info, values, overwrite=overwrite)
    return ImageLabelReport(
        store=path,
        patches=len(store),
        labelled=int(is_labelled.sum()),
        counts=dict(zip(classes, (values == 1).sum(axis=0).tolist(), strict=True)),
        uncertain=int(((values == IGNORE).any(axis=1) & is_labelled).sum()),
        skipped=found.skipped,
        was_done=was_done,
    )


def _boxes(store: PatchStore, corner: tuple[int, int]) -> NDArray[np.float64]:
    """Return left, top, right and bottom of what each patch has of the slide, in QuPath's frame, (N, 4)."""
    if store.meta.grid is None:
        raise StoreError(
            "the store was not cut from a slide", where=store.path, mend="Images are labelled by wsiseg ingest --labels"
        )
    ends = np.concatenate((store.windows, store.windows + store.extents), axis=1) * store.meta.grid.downsample
    return ends - np.array((*corner, *corner), dtype=np.float64)


def _is_done(store: PatchStore, layer: str, info: ImageLayerInfo, values: NDArray[np.uint8]) -> bool:
    if store.image_layers.get(layer) != info:
        return False
    return np.array_equal(store.read_image_labels(layer, range(len(store))), values)


def _write(store: PatchStore, layer: str, info: ImageLayerInfo, values: NDArray[np.uint8], *, overwrite: bool) -> None:
    if layer in store.image_layers and not overwrite:
        raise StoreError(
            f"the store has other labels in the layer {layer!r}",
            where=store.path,
            mend="Choose another --layer, or --overwrite",
        )
    try:
        store.add_image_layer(layer, info, values, overwrite=overwrite)
    except OSError as error:
        raise StoreError(f"cannot be written: {error.strerror}", where=store.path) from error
