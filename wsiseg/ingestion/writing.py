"""Writing images and labels into a patch store."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wsiseg import __version__
from wsiseg.errors import DataError
from wsiseg.executors import ordered_map
from wsiseg.geometry import Size, Window
from wsiseg.grid import overlap_px, patch_windows
from wsiseg.ingestion.label_files import read_label_file
from wsiseg.ingestion.search import source_fingerprint
from wsiseg.labels import IGNORE, NO_CLASS, LabelMap
from wsiseg.manifest import SPLITS
from wsiseg.rasters import read_labels
from wsiseg.slides.images import ImageSlide
from wsiseg.stores.image_labels import ImageLayerInfo
from wsiseg.stores.patch_meta import PatchMeta
from wsiseg.stores.patch_writer import PatchTable, PatchWriter, new_folder
from wsiseg.stores.patches import LayerInfo
from wsiseg.stores.shard_writer import ShardWriter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.ingestion.search import IngestSettings
    from wsiseg.ingestion.source import Source, SourceImage
    from wsiseg.progress import Progress

logger = logging.getLogger(__name__)

LAYER: Final = "labels"
BACKGROUND: Final = (255, 255, 255)


def write_images(source: Source, settings: IngestSettings, store: Path, *, workers: int, progress: Progress) -> None:
    """Write images and labels into `store`, which appears when it is complete.

    Raises
    ------
    SlideError
        If an image cannot be read.
    DataError
        If a label image cannot be read or does not fit.
    """
    images = source.images
    sizes = [ImageSlide(image.path).info.size for image in images]
    windows = [_windows(size, settings) for size in sizes]
    if settings.patch_size is not None:
        shape = (settings.patch_size, settings.patch_size)
    else:
        shape = (max(size.height for size in sizes), max(size.width for size in sizes))
    layer = _layer(source, settings)
    with new_folder(store) as folder:
        table = _table(images, sizes, windows, shape)
        writer = PatchWriter(folder, _meta(source, settings), table, shape)
        labels = None if layer is None else writer.layer(LAYER, layer)
        image_layer = _image_layer(source, settings)
        if image_layer is not None:
            writer.image_layer(LAYER, image_layer, _occurring(images, windows, image_layer))

        def encode(index: int) -> list[tuple[bytes, bytes | None]]:
            pixels = _pixels(images[index], sizes[index])
            truth = None if layer is None else _labels(images[index], sizes[index], layer, source.excluded)
            encoded = []
            for x, y in windows[index].tolist():
                part = Window(x, y, shape[1], shape[0])
                patch = writer.codec.encode(_padded(pixels, part, BACKGROUND))
                known = None
                if truth is not None and labels is not None and layer is not None:
                    known = labels.codec.encode(_padded(truth, part, layer.fill))
                encoded.append((patch, known))
            return encoded

        patches = ShardWriter(writer.images)
        known = None if labels is None else ShardWriter(labels)
        with progress.task("ingest", total=len(images), unit="images") as advance:
            for encoded in ordered_map(encode, range(len(images)), workers=workers, ahead=2 * workers):
                patches.add([patch for patch, _ in encoded])
                if known is not None:
                    known.add([label for _, label in encoded])
                advance()
        patches.close()
        if known is not None:
            known.close()


def _windows(size: Size, settings: IngestSettings) -> NDArray[np.int64]:
    if settings.patch_size is None:
        return np.zeros((1, 2), dtype=np.int64)
    stride = settings.patch_size - overlap_px(settings.overlap, settings.patch_size)
    return patch_windows(size, patch_px=settings.patch_size, stride_px=stride)


def _layer(source: Source, settings: IngestSettings) -> LayerInfo | None:
    files = [image.labels for image in source.images if image.labels is not None]
    if settings.kind is None or not (files or settings.labels_as):
        return None
    if settings.kind == "instances":
        names = settings.classes if settings.labels is None and settings.classes else ("object",)
        names = names if len(names) > 1 else ("background", *names)
        return LayerInfo(kind="instances", labels=source.labels or LabelMap.from_names(names))
    named = _named_classes(source)
    if named is not None:
        return LayerInfo(kind="classes", labels=named)
    if settings.classes:
        names = settings.classes
    else:
        found = {int(value) for file in files for value in np.unique(read_labels(file))}
        names = ("background", *(f"class {index}" for index in range(1, max(found - {IGNORE}, default=0) + 1)))
        if len(names) > NO_CLASS:
            raise DataError("label images of classes hold 0 to 253, and 255 for ignored", where=files[0])
    return LayerInfo(kind="classes", labels=LabelMap.from_names(names))


def _named_classes(source: Source) -> LabelMap | None:
    """Return the classes that the source or the image labels name."""
    names = next((tuple(image.occurs) for image in source.images if image.occurs is not None), None)
    own = None if names is None else LabelMap.from_names(names, background=False)
    return source.labels or own


def _image_layer(source: Source, settings: IngestSettings) -> ImageLayerInfo | None:
    labels = _named_classes(source)
    if labels is None or all(image.occurs is None for image in source.images):
        return None
    return ImageLayerInfo(labels=labels, white=settings.white)


def _occurring(
    images: Sequence[SourceImage], windows: list[NDArray[np.int64]], layer: ImageLayerInfo
) -> NDArray[np.uint8]:
    """Return which classes occur in each patch, (N, C)."""
    rows = np.full((len(images), len(layer.labels)), IGNORE, dtype=np.uint8)
    for row, image in zip(rows, images, strict=True):
        if image.occurs is not None:
            row[:] = list(image.occurs.values())
    counts = np.array([len(part) for part in windows])
    # What occurs in an image need not occur in each part of it; what does not occur in it, does not.
    is_cut = (counts > 1) & (rows == 1).any(axis=1)
    if is_cut.any():
        logger.warning("%d images are cut, and which of their patches show a class is not known", is_cut.sum())
    rows[is_cut] = np.where(rows[is_cut] == 1, IGNORE, rows[is_cut])
    occurring: NDArray[np.uint8] = np.repeat(rows, counts, axis=0)
    return occurring


def _pixels(image: SourceImage, size: Size) -> NDArray[np.uint8]:
    with ImageSlide(image.path) as slide:
        return slide.read_level(0, Window(0, 0, size.width, size.height))


def _labels(image: SourceImage, size: Size, layer: LayerInfo, excluded: int | None) -> NDArray[Any] | None:
    """Return the labels of an image as the layer keeps them, (H, W), or None where it has none."""
    if image.labels is None:
        return None
    labels = read_label_file(image.labels, size)
    highest = int(labels.max(initial=0))
    if layer.kind == "instances":
        if highest > np.iinfo(np.int32).max:
            raise DataError(f"object ids up to {highest} are too large", where=image.labels)
        return labels.astype(np.int32)
    if excluded is not None:
        labels = np.where(labels == excluded, IGNORE, labels)
    known = [label.index for label in layer.labels.labels] + [IGNORE]
    strange = np.setdiff1d(labels, known)
    if strange.size:
        raise DataError(
            f"holds the class {int(strange[0])}, but there are {len(known) - 1}",
            where=image.labels,
            mend="Name all --classes, or say --labels-as instances if these are object ids",
        )
    return labels.astype(np.uint8)


def _padded(array: NDArray[Any], part: Window, fill: int | tuple[int, int, int]) -> NDArray[Any]:
    """Return the part of an image (H, W, …), filled where it reaches beyond."""
    inside = part.clipped(Size(array.shape[1], array.shape[0]))
    if inside == part:
        return np.ascontiguousarray(array[part.slices])
    result = np.empty((part.height, part.width, *array.shape[2:]), dtype=array.dtype)
    result[:] = fill
    result[inside.within(part).slices] = array[inside.slices]
    return result


def _table(
    images: Sequence[SourceImage], sizes: list[Size], windows: list[NDArray[np.int64]], shape: tuple[int, int]
) -> PatchTable:
    corners = np.concatenate(windows)
    owner = np.repeat(np.arange(len(images)), [len(part) for part in windows])
    ends = np.array([(size.width, size.height) for size in sizes])[owner]
    splits = np.array([("", *SPLITS).index(image.split) for image in images], dtype=np.uint8)
    return PatchTable(
        positions=corners,
        windows=corners,
        extents=np.clip(ends - corners, 0, (shape[1], shape[0])).astype(np.int32),
        tissue=np.ones(len(corners), dtype=np.float32),
        parent=owner.astype(np.int32),
        split=splits[owner],
    )


def _meta(source: Source, settings: IngestSettings) -> PatchMeta:
    return PatchMeta(
        codec="zstd",
        mpp=None if settings.mpp == "unknown" else settings.mpp,
        background=BACKGROUND,
        parents=tuple(image.name for image in source.images),
        groups=tuple(image.group for image in source.images),
        splits=("", *SPLITS),
        fingerprint=source_fingerprint(source, settings),
        config=settings.model_dump(mode="json"),
        provenance={"tool": "wsiseg ingest", "version": __version__},
    )
