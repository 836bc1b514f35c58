"""What is trained and validated on where volumes are learnt from."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.errors import DataError
from wsiseg.stores.volume_store import LAYER, VolumeStore
from wsiseg.training.labelled import part_labelled, without_labels
from wsiseg.training.splits import split_patches
from wsiseg.training.volume_batches import VolumeSource

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.labels import LabelMap
    from wsiseg.tasks.train_job import TrainConfig
    from wsiseg.volumes import IntensityRule

# Sides of windows are multiples of the step, by which the usual networks shrink them.
_STEP: Final = 16
_LARGEST: Final = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeData:
    """What a network of volumes learns from and is judged by.

    Parameters
    ----------
    stores
        All stores.
    labelled, unlabelled
        What is learnt from with labels and without.
    held_out
        What models are chosen by.
    chosen
        The volumes or patients whose labels are used, where not all of them are.
    """

    stores: list[VolumeStore]
    labelled: list[VolumeSource]
    unlabelled: list[VolumeSource]
    held_out: list[VolumeSource]
    chosen: list[str] | None

    @property
    def labels(self) -> LabelMap:
        """Return the classes."""
        return self.stores[0].meta.labels

    @property
    def intensities(self) -> IntensityRule:
        """Return how intensities were prepared."""
        return self.stores[0].meta.intensities

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Return the distances of voxels that most volumes have, to a thousandth of a millimetre; None if unknown."""
        spacings = Counter(
            tuple(round(side, 3) for side in entry.spacing_mm)
            for store in self.stores
            for entry in store.meta.volumes
            if entry.spacing_mm is not None
        )
        if not spacings:
            return None
        ((depth, height, width), _) = spacings.most_common(1)[0]
        return depth, height, width

    @property
    def usual_patch(self) -> tuple[int, int, int]:
        """Return the voxels of a window, (D, H, W), that holds most volumes and fits the usual networks, 96³ at most.

        Rows are as many as columns, since windows are turned.
        """
        shapes = [entry.shape for store in self.stores for entry in store.meta.volumes]
        depth, *plane = (_STEP * math.ceil(side / _STEP) for side in np.median(shapes, axis=0).tolist())
        # A single voxel is left at the bottom of networks of volumes otherwise, which they cannot normalise.
        side = min(_LARGEST, max(2 * _STEP, *plane))
        return min(_LARGEST, depth), side, side

    @property
    def roles(self) -> str:
        """Return what each volume is to a training, as CSV.

        A row with volume, group and role for each: train-labelled, train-unlabelled, val, test or unused.
        """
        file = io.StringIO(newline="")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("volume", "group", "role"))
        parts = {"train-unlabelled": self.unlabelled, "train-labelled": self.labelled, "val": self.held_out}
        for store in self.stores:
            own = np.where(store.splits == "test", "test", "unused").astype(np.object_)
            for role, sources in parts.items():
                for source in sources:
                    if source.store is store:
                        own[source.indices] = role
            writer.writerows(
                (entry.name, entry.group, role) for entry, role in zip(store.meta.volumes, own, strict=True)
            )
        return file.getvalue()


def volume_data(paths: Sequence[Path], config: TrainConfig, *, takes_unlabelled: bool) -> VolumeData:
    """Return what to train and to validate on.

    Parameters
    ----------
    paths
        Stores of volumes.
    config
        Splits, and which labels may be used.
    takes_unlabelled
        Whether the method learns from volumes without labels.

    Raises
    ------
    StoreError
        If a store cannot be used.
    ConfigError, DataError
        If the stores do not go together, or nothing is left to train on.
    """
    stores = [VolumeStore.open(path) for path in paths]
    for store in stores[1:]:
        for name in ("labels", "intensities"):
            if getattr(store.meta, name) != getattr(stores[0].meta, name):
                what = "classes" if name == "labels" else "preparation of intensities"
                raise DataError(
                    f"the stores differ in their {what}", where=store.path, mend="Make both with the same settings"
                )
    seed = config.fit.seed if config.split_seed is None else config.split_seed
    splits = split_patches(stores, LAYER, val_fraction=config.val_fraction, seed=seed)
    training, held_out = [train for train, _ in splits], [val for _, val in splits]
    chosen = None
    if config.labelled is not None:
        what = unit_of_volumes(stores)
        training, chosen = part_labelled(stores, training, config.labelled, seed=seed, what=what)
    return VolumeData(
        stores=stores,
        labelled=_sources(stores, training),
        unlabelled=_sources(stores, without_labels(stores, training, held_out)) if takes_unlabelled else [],
        held_out=_sources(stores, held_out),
        chosen=chosen,
    )


def unit_of_volumes(stores: Sequence[VolumeStore]) -> str:
    """Return what is drawn where only some labels may be used: patients where the stores name some, else volumes."""
    has_patients = any(entry.group != entry.name for store in stores for entry in store.meta.volumes)
    return "patients" if has_patients else "volumes"


def _sources(stores: Sequence[VolumeStore], parts: Sequence[NDArray[np.int64]]) -> list[VolumeSource]:
    return [
        VolumeSource(store=store, indices=indices) for store, indices in zip(stores, parts, strict=True) if len(indices)
    ]
