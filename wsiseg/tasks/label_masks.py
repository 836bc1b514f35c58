"""Labels of pixels from what people drew, or from label images."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wsiseg.annotations import check_objects, check_slide, place_drawing, read_features
from wsiseg.atomic import put_back
from wsiseg.errors import DataError, NothingMatchedError, StoreError
from wsiseg.geometry import Scale, Size
from wsiseg.labels import IGNORE
from wsiseg.lock import locked
from wsiseg.progress import SILENT, track
from wsiseg.rasters import read_labels
from wsiseg.stores.layer_writer import write_layer
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks.label_layers import kinds_of, layer_info
from wsiseg.tasks.label_report import Tally, mask_report
from wsiseg.tasks.label_settings import qupath_corner
from wsiseg.tasks.label_sheets import DrawnSheet, ImageSheet, find_places, is_geojson

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.annotations import Drawing
    from wsiseg.progress import Progress
    from wsiseg.stores.patches import LayerInfo
    from wsiseg.tasks.label_report import MaskReport
    from wsiseg.tasks.label_settings import LabelConfig
    from wsiseg.tasks.label_sheets import Place, Sheet

logger = logging.getLogger(__name__)

# What nothing is known of in a layer of instances.
_NO_OBJECT: Final = -1
# Annotators leave a stray outline here and there; more of them mean that the slide was another one.
_STRAY: Final = 0.05


def label_masks(
    path: Path,
    source: Path,
    config: LabelConfig,
    *,
    overwrite: bool = False,
    keep: bool = False,
    progress: Progress = SILENT,
) -> MaskReport:
    """Label the pixels of patches by what was drawn over them, or by label images.

    Of objects that overlap the smaller one lies on top, of equal ones the later. A patch of which nothing is known
    stays without label; one that was drawn as to be ignored has labels that say so.

    Parameters
    ----------
    path
        Store to label.
    source
        GeoJSON, a label image, or a folder of either; see `find_places`.
    config
        How they become labels.
    overwrite
        Take the place of a layer of that name.
    keep
        Take the place of the labels of patches of which something is known now. The others keep those that they have.
    progress
        Told about patches.

    Raises
    ------
    ConfigError
        If what is not drawn is to be background, and no class is.
    DataError
        If the files cannot be read, are of other classes, or of another slide.
    NothingMatchedError
        If no file is of the store, or nothing is drawn on its patches.
    StoreError
        If the store has another layer of that name, or cannot be written.
    """
    store = PatchStore.open(path)
    places = find_places(source, store)
    if not config.other_slide:
        for file, slide in {place.path: str(store.parents[index]) for index, place in places.items()}.items():
            if is_geojson(file):
                check_slide(file, slide)
    drawings = _drawings(store, places, config)
    info = layer_info(config, drawings, {place.path for place in places.values()})
    canvas = None if store.meta.grid is None else Size(*store.meta.grid.canvas)
    sheets = _sheets(config, info, drawings, places, canvas)
    drawn = [sheet for sheet in sheets.values() if isinstance(sheet, DrawnSheet)]

    def arrays(tally: Tally, is_kept: NDArray[np.bool_]) -> Iterator[NDArray[Any] | None]:
        for index in range(len(store)):
            place = places.get(index)
            labels = None if place is None else sheets[place.path].cut(place.window)
            if place is None or labels is None:
                tally.kept += int(is_kept[index])
                yield store.read_labels(config.layer, [index])[0] if is_kept[index] else None
                continue
            tally.add(labels, info, place.path)
            height, width = store.image_shape
            margins = (0, height - labels.shape[0]), (0, width - labels.shape[1])
            yield np.pad(labels, margins, constant_values=info.fill)

    with locked(path.with_name(f".{path.name}.lock")):
        # Only now does nobody else change them.
        put_back(store.path / "labels" / config.layer)
        is_kept = _labelled(store, config.layer, info) if keep else np.zeros(len(store), dtype=np.bool_)
        tally = Tally()
        was_done = _is_done(store, config.layer, info, arrays(tally, is_kept))
        if not was_done:
            tally = Tally()
            steps = track(arrays(tally, is_kept), progress, what="labels", total=len(store), unit="patches")
            try:
                found = _matched(steps, tally, drawn, source)
                write_layer(store, config.layer, info, found, overwrite=overwrite or keep)
            except OSError as error:
                raise StoreError(f"cannot be written: {error.strerror}", where=store.path) from error
    report = mask_report(store, info, tally, drawn, was_done=was_done)
    if info.kind == "instances" and report.lacks_background and not report.has_regions:
        logger.warning(
            "%s: nothing tells what is background, and what learns from this finds objects everywhere. Export the "
            "boxes of the class Region* in which all was drawn, too, or say --undrawn background",
            source,
        )
    return report


def _labelled(store: PatchStore, layer: str, info: LayerInfo) -> NDArray[np.bool_]:
    """Return which patches have labels that go together with new ones, (N,)."""
    before = store.layers.get(layer)
    if before is None:
        return np.zeros(len(store), dtype=np.bool_)
    if before.made_by:
        raise StoreError(
            f"the labels in the layer {layer!r} were made by a model, and would pass for drawn ones",
            where=store.path,
            mend="Choose another --layer",
        )
    if (before.kind, before.labels.classes) != (info.kind, info.labels.classes):
        raise StoreError(
            f"the layer {layer!r} holds {before.kind} of {', '.join(before.labels.names)}",
            where=store.path,
            mend=f"These are {info.kind} of {', '.join(info.labels.names)}. Name the same --classes, or --overwrite",
        )
    return store.is_labelled(layer)


def _drawings(store: PatchStore, places: Mapping[int, Place], config: LabelConfig) -> dict[Path, Drawing]:
    """Return what was drawn in each file of GeoJSON."""
    scale = Scale(1.0 if store.meta.grid is None else store.meta.grid.downsample)
    drawings: dict[Path, Drawing] = {}
    for place in places.values():
        if place.path in drawings or not is_geojson(place.path):
            continue
        found = read_features(place.path)
        if config.labels_as == "instances":
            check_objects(found)
        drawing = place_drawing(found, scale, qupath_corner(store.meta, config, found.origin))
        outside = drawing.count_outside(place.size)
        if outside > _STRAY * len(drawing):
            slide = store.meta.slide
            size = place.size if slide is None else Size(*slide.size)
            raise DataError(
                f"{outside} of {len(drawing)} objects lie outside the slide of {size} pixels",
                where=place.path,
                mend="They were drawn on another one, or counted from elsewhere (--qupath-origin)",
            )
        drawings[place.path] = drawing
    return drawings


def _sheets(
    config: LabelConfig,
    info: LayerInfo,
    drawings: Mapping[Path, Drawing],
    places: Mapping[int, Place],
    canvas: Size | None,
) -> dict[Path, Sheet]:
    """Return the sheets by their files; those of a slide are as large as its canvas."""
    # Patches come image by image.
    read = lru_cache(maxsize=1)(read_labels)
    sheets: dict[Path, Sheet] = {}
    has_background = info.kind == "instances" or info.labels.no_class == 0
    for place in places.values():
        drawing = drawings.get(place.path)
        if drawing is None:
            sheets.setdefault(
                place.path,
                ImageSheet(
                    path=place.path,
                    size=place.size,
                    num_classes=None if info.kind == "instances" else len(info.labels),
                    # A slide is hardly ever labelled from edge to edge; an image or a patch is.
                    is_complete=config.undrawn == "background" or not has_background or place.size != canvas,
                    read=read,
                ),
            )
        elif place.path not in sheets:
            sheets[place.path] = DrawnSheet(
                drawing=drawing,
                values=_values(config, info, drawing),
                background=0 if has_background else IGNORE,
                ignore=_ignored(info),
                is_complete=config.undrawn == "background",
            )
    return sheets


def _values(config: LabelConfig, info: LayerInfo, drawing: Drawing) -> NDArray[np.int32]:
    """Return what each object becomes."""
    known = config.classes or (info.labels.names if info.kind == "classes" else ())
    if info.kind == "instances" and len(kinds_of(config)) == 1:
        # It says what objects are called, whatever they were drawn as.
        known = ()
    values = drawing.numbers.copy()
    for row, names in enumerate(drawing.names):
        name = next((name for name in names if name in known), None)
        if names and known and name is None:
            raise DataError(
                f"an object is of the class {names[0]!r}, which is none of {', '.join(known)}",
                where=drawing.path,
                mend="Name all --classes, or change it in QuPath",
            )
        if info.kind == "classes":
            # Something is there, and nobody says what.
            values[row] = IGNORE if name is None else info.labels.names.index(name)
    return values


def _ignored(info: LayerInfo) -> int:
    return _NO_OBJECT if info.kind == "instances" else IGNORE


def _matched(
    arrays: Iterator[NDArray[Any] | None], tally: Tally, drawn: Sequence[DrawnSheet], source: Path
) -> Iterator[NDArray[Any] | None]:
    """Yield the labels of patches; at the end, raise if there were none."""
    yield from arrays
    regions = sum(len(sheet.drawing.regions) for sheet in drawn)
    is_on_a_patch = (regions and tally.labelled) or tally.set_aside or any(sheet.seen for sheet in drawn)
    if drawn and not is_on_a_patch:
        objects = sum(len(sheet.drawing.objects) for sheet in drawn)
        raise NothingMatchedError(
            f"none of {objects} objects and {regions} boxes of the class Region* lies on a patch",
            where=source,
            mend="They must be of this slide, in pixels of its level 0",
        )
    if not tally.labelled:
        raise NothingMatchedError(
            "it shows no label on any patch",
            where=source,
            mend="If nothing is there to be labelled, say --undrawn background",
        )


def _is_done(store: PatchStore, layer: str, info: LayerInfo, arrays: Iterator[NDArray[Any] | None]) -> bool:
    if store.layers.get(layer) != info:
        return False
    is_labelled = store.is_labelled(layer)
    return all(
        is_labelled[index] == (labels is not None)
        and (labels is None or np.array_equal(store.read_labels(layer, [index])[0], labels))
        for index, labels in enumerate(arrays)
    )
