"""Making a patch store out of folders of images and label images."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from wsiseg import __version__
from wsiseg.config import Config
from wsiseg.errors import ConfigError, DataError, NothingMatchedError
from wsiseg.executors import ordered_map
from wsiseg.geometry import Size, Window
from wsiseg.grid import overlap_px, parse_overlap, patch_windows
from wsiseg.labels import IGNORE, LabelMap
from wsiseg.manifest import SPLITS
from wsiseg.rasters import read_labels
from wsiseg.slides.fingerprint import fingerprint
from wsiseg.slides.images import ImageSlide
from wsiseg.stores.patch_meta import PatchMeta
from wsiseg.stores.patch_writer import PatchTable, PatchWriter, new_folder
from wsiseg.stores.patches import LayerInfo
from wsiseg.stores.shard_writer import ShardWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.progress import Progress

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
LAYER: Final = "labels"
BACKGROUND: Final = (255, 255, 255)


class IngestSettings(Config):
    """How images become patches.

    Parameters
    ----------
    layout
        How the source is laid out; one of `LAYOUTS`.
    mpp
        Micrometres per pixel of the images, or ``unknown``.
    labels_as
        What the label images hold: ``instances`` (object ids) or ``classes`` (class indices, 255 ignored). Needed
        where there are labels.
    classes
        Names of the classes in the order of their indices, background first. For instances the
        one class of the objects. By default numbered, or ``object``.
    patch_size
        Edge of a patch in pixels; None keeps images whole, padded to the largest.
    overlap
        What neighbouring patches share: pixels, or below 1 a share of the patch size.
    split
        One of train, val, test, unlabelled for all images, or a CSV file with the columns
        ``image`` (file name or stem), ``split`` and, if wanted, ``patient_id``.
    """

    layout: str = "images"
    mpp: Literal["unknown"] | Annotated[float, Field(gt=0, le=1000)]
    labels_as: Literal["instances", "classes"] | None = None
    classes: tuple[str, ...] = ()
    patch_size: int | None = Field(default=None, ge=8, le=8192)
    overlap: Annotated[float, BeforeValidator(parse_overlap), Field(ge=0)] = 0.0
    split: str = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.layout not in LAYOUTS:
            raise ValueError(f"there is no layout {self.layout!r}; known: {', '.join(LAYOUTS)}")
        if self.patch_size is None and self.overlap:
            raise ValueError("overlap needs patch_size, whole images do not overlap")
        if self.patch_size is not None:
            overlap_px(self.overlap, self.patch_size)
        if self.labels_as == "instances" and len(self.classes) > 2:  # noqa: PLR2004 - background and one more
            raise ValueError("label images of instances tell no classes, so name one class at most")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceImage:
    """An image to be taken in.

    Parameters
    ----------
    name
        Its stem: the parent of its patches.
    path
        The image.
    labels
        Its label image, or None.
    split
        Its split, or nothing.
    group
        What must stay together in splits.
    """

    name: str
    path: Path
    labels: Path | None
    split: str = ""
    group: str = ""


def _images_and_labels(source: Path) -> list[SourceImage]:
    """Find ``images/*`` and ``labels/<same stem>.png``."""
    if not source.is_dir():
        raise NothingMatchedError("there is no such folder", where=source)
    folder = source / "images"
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise NothingMatchedError("the folder holds no images", where=folder, mend="Images lie in SRC/images")
    labels = {file.stem: file for file in sorted((source / "labels").glob("*.png"))}
    images: dict[str, SourceImage] = {}
    for file in files:
        if file.stem in images:
            raise DataError(f"the same name as {images[file.stem].path.name}", where=file, mend="Rename one of them")
        images[file.stem] = SourceImage(name=file.stem, path=file, labels=labels.pop(file.stem, None), group=file.stem)
    if labels:
        first = next(iter(labels.values()))
        if all(image.labels is None for image in images.values()):
            raise DataError("no label image has the name of an image", where=first, mend="Name both alike")
        logger.warning("%s: %d label images belong to no image, such as %s", source, len(labels), first.name)
    return list(images.values())


LAYOUTS: Final[dict[str, Callable[[Path], list[SourceImage]]]] = {"images": _images_and_labels}


def find_images(source: Path, settings: IngestSettings) -> list[SourceImage]:
    """Return the images of a source, with their splits.

    Raises
    ------
    NothingMatchedError
        If there are none.
    DataError
        If names are ambiguous, or no label fits.
    ConfigError
        If the splits or the settings do not fit the images.
    """
    images = LAYOUTS[settings.layout](source)
    if settings.labels_as is None and any(image.labels is not None for image in images):
        raise ConfigError(
            "the images have labels",
            where=source,
            mend="Say --labels-as instances (object ids) or --labels-as classes (class indices)",
        )
    if not settings.split or settings.split in SPLITS:
        return [replace(image, split=settings.split) for image in images]
    return _split_by_table(images, settings.split)


def _split_by_table(images: list[SourceImage], table: str) -> list[SourceImage]:
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:  # noqa: PTH123 - a user's text, not yet a path
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        mend = f"Name one of {', '.join(SPLITS)}, or a CSV file with columns image and split"
        raise ConfigError("neither a split nor a readable table", where=table, mend=mend) from error
    if not rows or not {"image", "split"} <= rows[0].keys():
        raise ConfigError("the table of splits needs the columns image and split", where=table)
    given: dict[str, dict[str, str | None]] = {}
    for number, row in enumerate(rows, start=2):
        if row["split"] not in SPLITS:
            raise ConfigError(
                f"row {number}, column split: {row['split']!r} is none of {', '.join(SPLITS)}", where=table
            )
        given[row["image"] or ""] = row
    found = []
    for image in images:
        one = given.get(image.name) or given.get(image.path.name)
        if one is None:
            raise ConfigError(f"the table of splits has no row for the image {image.name}", where=table)
        found.append(replace(image, split=one["split"] or "", group=one.get("patient_id") or image.name))
    return found


def source_fingerprint(images: list[SourceImage], settings: IngestSettings) -> str:
    """Return a hash of the images, their labels and the settings."""
    digest = hashlib.blake2b(json.dumps(settings.model_dump(mode="json"), sort_keys=True).encode(), digest_size=16)
    for image in images:
        parts = [image.name, image.split, image.group, fingerprint(image.path)]
        parts.append("" if image.labels is None else fingerprint(image.labels))
        digest.update("\0".join(parts).encode() + b"\n")
    return digest.hexdigest()


def write_images(
    images: list[SourceImage], settings: IngestSettings, store: Path, *, workers: int, progress: Progress
) -> None:
    """Write images and labels into `store`, which appears when it is complete.

    Raises
    ------
    SlideError
        If an image cannot be read.
    DataError
        If a label image cannot be read or does not fit.
    """
    sizes = [ImageSlide(image.path).info.size for image in images]
    windows = [_windows(size, settings) for size in sizes]
    if settings.patch_size is not None:
        shape = (settings.patch_size, settings.patch_size)
    else:
        shape = (max(size.height for size in sizes), max(size.width for size in sizes))
    layer = _layer(images, settings)
    with new_folder(store) as folder:
        table = _table(images, sizes, windows, shape)
        writer = PatchWriter(folder, _meta(images, settings), table, shape)
        labels = None if layer is None else writer.layer(LAYER, layer)

        def encode(index: int) -> list[tuple[bytes, bytes | None]]:
            pixels = _pixels(images[index], sizes[index])
            truth = None if layer is None else _labels(images[index], sizes[index], layer)
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


def _layer(images: list[SourceImage], settings: IngestSettings) -> LayerInfo | None:
    if settings.labels_as is None:
        return None
    if settings.labels_as == "instances":
        names = settings.classes or ("object",)
        names = names if len(names) > 1 else ("background", *names)
    elif settings.classes:
        names = settings.classes
    else:
        found = {int(value) for image in images if image.labels is not None for value in np.unique(_read(image.labels))}
        names = ("background", *(f"class {index}" for index in range(1, max(found - {IGNORE}, default=0) + 1)))
        if len(names) > IGNORE:
            raise DataError("label images of classes hold 0 to 254, and 255 for ignored", where=images[0].labels)
    return LayerInfo(kind=settings.labels_as, labels=LabelMap.from_names(names))


def _pixels(image: SourceImage, size: Size) -> NDArray[np.uint8]:
    with ImageSlide(image.path) as slide:
        return slide.read_level(0, Window(0, 0, size.width, size.height))


def _read(path: Path) -> NDArray[Any]:
    return read_labels(path)


def _labels(image: SourceImage, size: Size, layer: LayerInfo) -> NDArray[Any] | None:
    """Return the labels of an image as the layer keeps them, (H, W), or None where it has none."""
    if image.labels is None:
        return None
    labels = _read(image.labels)
    if labels.shape != (size.height, size.width):
        raise DataError(
            f"the label image has {labels.shape[1]}x{labels.shape[0]} pixels, its image {size}", where=image.labels
        )
    highest = int(labels.max(initial=0))
    if layer.kind == "instances":
        if highest > np.iinfo(np.int32).max:
            raise DataError(f"object ids up to {highest} are too large", where=image.labels)
        return labels.astype(np.int32)
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
    images: list[SourceImage], sizes: list[Size], windows: list[NDArray[np.int64]], shape: tuple[int, int]
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


def _meta(images: list[SourceImage], settings: IngestSettings) -> PatchMeta:
    return PatchMeta(
        codec="zstd",
        mpp=None if settings.mpp == "unknown" else settings.mpp,
        background=BACKGROUND,
        parents=tuple(image.name for image in images),
        groups=tuple(image.group for image in images),
        splits=("", *SPLITS),
        fingerprint=source_fingerprint(images, settings),
        config=settings.model_dump(mode="json"),
        provenance={"tool": "wsiseg ingest", "version": __version__},
    )
