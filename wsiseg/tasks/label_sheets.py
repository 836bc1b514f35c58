"""Sheets of labels, each of a patch or of a whole slide or image, and which patch lies where on which of them."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from wsiseg.errors import DataError, NothingMatchedError
from wsiseg.geometry import Size, Window
from wsiseg.labels import IGNORE
from wsiseg.rasters import READABLE
from wsiseg.stores.patches import patch_names

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.annotations import Drawing
    from wsiseg.rasters import LabelImage
    from wsiseg.stores.patch_store import PatchStore

logger = logging.getLogger(__name__)

_GEOJSON: Final = re.compile(r"(\.geojson|\.json)(\.gz|\.zip)?$|\.zip$", re.IGNORECASE)


class Sheet(Protocol):
    """Labels of a slide, an image or a patch."""

    def cut(self, window: Window) -> NDArray[np.int32] | None:
        """Return the labels in a window, (H, W), or None where nothing is known of it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the labels of a patch are.

    Parameters
    ----------
    path
        The file.
    size
        Of the sheet in canvas pixels.
    window
        What the patch has of it, without padding.
    """

    path: Path
    size: Size
    window: Window


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrawnSheet:
    """A sheet of what was drawn.

    Parameters
    ----------
    drawing
        What was drawn.
    values
        What each of its objects becomes, int32 (N,).
    background, ignore
        Labels of what was not drawn, and of what nothing is known of.
    is_complete
        Whether everything was drawn everywhere.
    seen, covered
        Objects that gave labels to the windows so far, and those that smaller ones hide in part; they count from 1.
    """

    drawing: Drawing
    values: NDArray[np.int32]
    background: int
    ignore: int
    is_complete: bool
    seen: set[int] = field(default_factory=set)
    covered: set[int] = field(default_factory=set)

    def cut(self, window: Window) -> NDArray[np.int32] | None:
        """Return the labels in a window, (H, W), or None where nothing is known of it.

        Where all of it was drawn as what is to be ignored, that is what is known.
        """
        labels, drawn = self.drawing.labels(
            window, self.values, background=self.background, ignore=self.ignore, is_complete=self.is_complete
        )
        self.seen.update(np.unique(drawn.top[(labels != self.ignore) & (drawn.top > 0)]).tolist())
        self.covered.update(drawn.areas[drawn.is_covered].tolist())
        if (labels == self.ignore).all() and not self.drawing.sets_aside(window):
            return None
        return labels


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSheet:
    """A label image.

    Parameters
    ----------
    path
        The file.
    size
        That it must have.
    num_classes
        How many classes there are, or None where labels are ids of objects.
    is_complete
        Whether 0 is a label where a window holds nothing else; otherwise nobody may have looked there.
    read
        Returns the labels in the file, (H, W).
    """

    path: Path
    size: Size
    num_classes: int | None
    is_complete: bool
    read: Callable[[Path], LabelImage]

    def cut(self, window: Window) -> NDArray[np.int32] | None:
        """Return the labels in a window, (H, W), or None where nothing is known of it.

        Raises
        ------
        DataError
            If the file cannot be read, is of another size, or holds another class there.
        """
        labels = self.read(self.path)
        found = Size(labels.shape[1], labels.shape[0])
        if found != self.size:
            raise DataError(
                f"the label image has {found} pixels, and what it is named after {self.size}",
                where=self.path,
                mend="It must cover the patch, or the whole slide at the resolution of the patches",
            )
        part = labels[window.slices]
        if self.num_classes is None:
            if int(part.max(initial=0)) > np.iinfo(np.int32).max:
                raise DataError(f"object ids up to {int(part.max())} are too large", where=self.path)
        elif (strange := part[(part >= self.num_classes) & (part != IGNORE)]).size:
            raise DataError(
                f"holds the class {int(strange[0])}, but there are {self.num_classes}",
                where=self.path,
                mend="Name all --classes, or say --as instances if these are object ids",
            )
        is_known = self.is_complete or part.any()
        if not is_known or (self.num_classes is not None and (part == IGNORE).all()):
            return None
        return part.astype(np.int32)


def find_places(source: Path, store: PatchStore) -> dict[int, Place]:
    """Return where the labels of patches are, by patch.

    A folder holds files that are named after patches, slides or images: either GeoJSON, or label images where it
    holds no GeoJSON. A file alone is of the only slide or image in the store.

    Raises
    ------
    DataError
        If it is one file and there are several images, or one file would be of several patches.
    NothingMatchedError
        If no file has the name of a patch, a slide or an image.
    """
    if not source.exists():
        raise DataError("there is no such file or folder", where=source)
    return _places_in_folder(source, store) if source.is_dir() else _places_in_file(source, store)


def _places_in_file(source: Path, store: PatchStore) -> dict[int, Place]:
    sizes = _sizes(store)
    if len(sizes) > 1:
        raise DataError(
            f"this is one file, and {store.path.name} holds {len(sizes)} images",
            where=source,
            mend="Pass a folder of files that are named after the images",
        )
    return {
        index: Place(path=source, size=sizes[str(parent)], window=window)
        for index, (parent, window) in enumerate(zip(store.parents, _windows(store), strict=True))
    }


def _places_in_folder(source: Path, store: PatchStore) -> dict[int, Place]:
    sizes = _sizes(store)
    parents = [str(parent) for parent in store.parents]
    stems = [_stem(parent) for parent in parents]
    files, names = _files(source, set(stems)), patch_names(store)
    places: dict[int, Place] = {}
    owners: dict[Path, str] = {}
    for index, (name, stem, parent, window) in enumerate(zip(names, stems, parents, _windows(store), strict=True)):
        path = files.get(stem)
        place = None if path is None else Place(path=path, size=sizes[parent], window=window)
        owner = parent
        if place is None and (path := files.get(name)) is not None and not is_geojson(path):
            place = Place(path=path, size=window.size, window=Window(0, 0, window.width, window.height))
            owner = f"{parent} {index}"
        if place is None:
            continue
        if owners.setdefault(place.path, owner) != owner:
            raise DataError("two images of the store have this name", where=place.path, mend="Rename one of them")
        places[index] = place
    if not places:
        is_drawn = any(is_geojson(path) for path in files.values())
        told = f"GeoJSON is named after the slide: {stems[0]}.geojson" if stems else None
        raise NothingMatchedError(
            f"none of {len(files)} files is named after a {'slide' if is_drawn else 'patch'} or an image of the store",
            where=source,
            mend=told if is_drawn or told is None else f"Label images are named like {names[0]}.png. {told}",
        )
    if alone := [path for path in files.values() if path not in owners]:
        logger.warning("%s: %d files belong to no patch, such as %s", source, len(alone), alone[0].name)
    return places


def is_geojson(path: Path) -> bool:
    """Tell whether a file is named as GeoJSON is."""
    return _GEOJSON.search(path.name) is not None


def _sizes(store: PatchStore) -> Mapping[str, Size]:
    """Return the size of the canvas of each slide or image."""
    if store.meta.grid is not None:
        return {parent: Size(*store.meta.grid.canvas) for parent in store.meta.parents}
    ends = store.windows + store.extents
    return {
        parent: Size(*ends[store.parents == parent].max(axis=0).tolist())
        for parent in dict.fromkeys(store.parents.tolist())
    }


def _windows(store: PatchStore) -> list[Window]:
    """Return what each patch has of its slide or image, without padding."""
    return [
        Window(x, y, width, height)
        for (x, y), (width, height) in zip(store.windows.tolist(), store.extents.tolist(), strict=True)
    ]


def _stem(parent: object) -> str:
    """Return what files are named that belong to a slide or image."""
    return str(parent).rpartition("/")[2]


def _files(folder: Path, images: Collection[str]) -> dict[str, Path]:
    """Return the files in a folder by their names without ending: GeoJSON if there is any, else label images.

    What ends in .json or .zip may be anything, and is GeoJSON only if it has the name of one of the `images`; a mere
    .zip only where there are no label images. GeoJSON may keep the ending of the slide in its name, as scripts of
    QuPath give it.
    """
    drawings: list[tuple[str, Path]] = []
    packed: list[tuple[str, Path]] = []
    masks: list[tuple[str, Path]] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        stem = _GEOJSON.sub("", path.name)
        is_named_so = ".geojson" in path.name.lower()
        if is_named_so and stem not in images and (shorter := stem.rpartition(".")[0]) in images:
            stem = shorter
        if is_geojson(path) and (is_named_so or stem in images):
            is_mere = path.suffix.lower() == ".zip" and path.stem == stem
            (packed if is_mere else drawings).append((stem, path))
        elif path.suffix.lower() in READABLE:
            masks.append((path.stem, path))
    files: dict[str, Path] = {}
    for stem, path in [*drawings, *packed] if drawings or not masks else masks:
        if stem in files:
            raise DataError(f"the same name as {files[stem].name}", where=path, mend="Rename one of them")
        files[stem] = path
    return files
