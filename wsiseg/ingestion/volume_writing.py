"""Writing volumes and their labels into a store."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from wsiseg import __version__
from wsiseg.errors import DataError
from wsiseg.executors import ordered_map
from wsiseg.ingestion.hdf5_cases import is_hdf5, read_hdf5
from wsiseg.ingestion.volumes import volumes_fingerprint
from wsiseg.labels import IGNORE, NO_CLASS, LabelMap
from wsiseg.nifti import read_label_volume, read_volume, whole_labels
from wsiseg.stores.volume_store import VolumeEntry, VolumeItem, VolumeMeta, write_volume_store
from wsiseg.volumes import prepare

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.ingestion.source import SourceImage
    from wsiseg.ingestion.volumes import VolumeSettings
    from wsiseg.nifti import VolumeGrid
    from wsiseg.progress import Progress

logger = logging.getLogger(__name__)


def write_volumes(
    volumes: Sequence[SourceImage], settings: VolumeSettings, store: Path, *, workers: int, progress: Progress
) -> None:
    """Write volumes and labels into `store`, which appears when it is complete.

    Raises
    ------
    DataError
        If a file cannot be read, or labels do not fit their volume or the classes.
    ConfigError
        If a library that reads the files is not installed.
    """
    classes = _classes(volumes, settings)
    meta = VolumeMeta(
        labels=classes,
        intensities=settings.intensities,
        fingerprint=volumes_fingerprint(volumes, settings),
        config=settings.model_dump(mode="json"),
        provenance={"tool": "wsiseg ingest", "version": __version__},
    )
    negative = []

    def read(volume: SourceImage) -> VolumeItem:
        voxels, grid = _voxels(volume, settings)
        if voxels.min() < 0:
            negative.append(volume.name)
        return _item(volume, voxels, grid, _labels(volume, voxels.shape, grid, settings, classes), settings)

    def items() -> Iterator[VolumeItem]:
        with progress.task("ingest", total=len(volumes), unit="volumes") as advance:
            for item in ordered_map(read, volumes, workers=workers, ahead=workers):
                yield item
                advance()

    write_volume_store(store, meta, items())
    if negative and settings.intensities.normalise == "positive":
        logger.warning(
            "%d volumes hold intensities below 0, such as %s, and only those above are the measure of all; of computed "
            "tomography pass --set intensities.normalise=all --set intensities.crop=false, and none where they are "
            "prepared already",
            len(negative),
            min(negative),
        )


def _item(
    volume: SourceImage,
    voxels: NDArray[Any],
    grid: VolumeGrid | None,
    labels: NDArray[np.uint8] | None,
    settings: VolumeSettings,
) -> VolumeItem:
    prepared = prepare(voxels, settings.intensities, where=volume.path)
    depth, height, width = voxels.shape
    entry = VolumeEntry(
        name=volume.name,
        group=volume.group,
        split=volume.split,
        is_labelled=labels is not None,
        shape=_triple(prepared.voxels.shape),
        start=_triple(part.start for part in prepared.box),
        whole=(depth, height, width),
        spacing_mm=None if grid is None else grid.spacing_mm,
        affine=None if grid is None else tuple((a, b, c, d) for a, b, c, d in grid.affine.tolist()),
    )
    return VolumeItem(entry=entry, voxels=prepared.voxels, labels=None if labels is None else labels[prepared.box])


def _classes(volumes: Sequence[SourceImage], settings: VolumeSettings) -> LabelMap:
    """Return the classes: as named, or as many as the labels show."""
    if settings.classes:
        return LabelMap.from_names(settings.classes)
    highest = 1
    if not settings.binary:
        for volume in volumes:
            if volume.labels is not None:
                labels = _raw_labels(volume, settings)[0]
                highest = max(highest, int(labels[labels != IGNORE].max(initial=0)))
    if highest >= NO_CLASS:
        raise DataError(f"labels hold 0 to 253, and 255 for ignored, but there is {highest}", where=volumes[0].labels)
    return LabelMap.from_names(("background", *(f"class {index}" for index in range(1, highest + 1))))


def _voxels(volume: SourceImage, settings: VolumeSettings) -> tuple[NDArray[Any], VolumeGrid | None]:
    if is_hdf5(volume.path):
        return _upright(read_hdf5(volume.path, labels=False), settings), None
    return read_volume(volume.path)


def _raw_labels(volume: SourceImage, settings: VolumeSettings) -> tuple[NDArray[np.uint8], VolumeGrid | None]:
    path = volume.labels or volume.path
    if is_hdf5(path):
        return whole_labels(_upright(read_hdf5(path, labels=True), settings), where=path), None
    return read_label_volume(path)


def _labels(
    volume: SourceImage,
    shape: tuple[int, ...],
    grid: VolumeGrid | None,
    settings: VolumeSettings,
    classes: LabelMap,
) -> NDArray[np.uint8] | None:
    """Return the labels of a volume as class indices, or None where it has none."""
    if volume.labels is None:
        return None
    labels, own = _raw_labels(volume, settings)
    if grid is not None and own is not None and grid.is_like(own):
        labels = grid.aligned(labels, own)
    elif labels.shape != shape:
        sizes = [" x ".join(map(str, sides)) for sides in (labels.shape, shape)]
        raise DataError(f"the labels have {sizes[0]} voxels, their volume {sizes[1]}", where=volume.labels)
    elif grid is not None and own is not None:
        raise DataError(
            "the labels do not lie where their volume does",
            where=volume.labels,
            mend="Give both the same affine, or resample the labels",
        )
    if settings.binary:
        return (labels > 0).astype(np.uint8)
    strange = np.setdiff1d(labels, [*range(len(classes)), IGNORE])
    if strange.size:
        raise DataError(
            f"holds the class {int(strange[0])}, but there are {len(classes)}",
            where=volume.labels,
            mend="Name all --classes, or pass --set binary=true if every label above 0 is one class",
        )
    return labels


def _upright(voxels: NDArray[Any], settings: VolumeSettings) -> NDArray[Any]:
    return voxels if settings.axes == "zyx" else voxels.transpose(2, 1, 0)


def _triple(values: Any) -> tuple[int, int, int]:  # noqa: ANN401 - three whole numbers of some kind
    depth, height, width = (int(value) for value in values)
    return depth, height, width
